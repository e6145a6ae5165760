#!/bin/sh
# Records what models compute, to compare two versions of the library bit for bit (record.c):
#
#   tests/model/record.sh BUILD FOLDER [OLD]
#
# BUILD is a build folder with tests/model/record in it. FOLDER gets a record for each device, and the files that go
# with it. OLD is the FOLDER of another version: states and checkpoints are read from there, and the records compared.
# RECORD_DEVICES (default "cpu"): devices as mamba-info lists them, e.g. "cpu opencl:0".
set -eu
here=$(dirname "$0")
build=$1 folder=$2 old=${3:-}
mkdir -p "$folder"
for device in ${RECORD_DEVICES:-cpu}; do
  "$build"/tests/model/record "$device" "$here"/../fixtures/models "$folder/$device" ${old:+"$old/$device"} > "$folder/$device.txt"
  [ -z "$old" ] || diff -u "$old/$device.txt" "$folder/$device.txt"
done
