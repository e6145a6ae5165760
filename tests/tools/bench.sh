#!/bin/sh
# mamba-bench as a user runs it. $1: folder of the programs, $2: folder to work in, $3...: devices.
set -eu
. "$(dirname -- "$0")/expect.sh"
bench=$1/mamba-bench work=$2
shift 2
rm -rf "$work"
mkdir -p "$work"
cd "$work"
TMPDIR=$PWD
export TMPDIR

expect 'no operation "fly"' "$bench" fly
expect '--weights: only' "$bench" backbone-step --weights bf16
expect '--weights: only' "$bench" scan --weights bf16
expect '--dtype: lm-decode runs in f32' "$bench" lm-decode --dtype bf16
expect '--check: lm-load has none' "$bench" lm-load --check
TMPDIR=$PWD/nowhere expect 'lm-load: its temporary files: No such' "$bench" lm-load --model char --device cpu

for device; do
  use_device "$device"
  "$bench" scan --check --batch 1 --dim 5 --length 40 --state 3 --repeat 2 --device "$device" --format csv > scan.csv
  [ "$(wc -l < scan.csv)" -eq 2 ] || fail "scan on $device: not one row"
  "$bench" lm-load --model char --dtype f16 --weights bf16 --repeat 1 --device "$device" --explain > load.txt
  grep -q 'reading the 3 MB once' load.txt || fail "lm-load on $device: $(cat load.txt)"
  for type in f16 int8; do
    "$bench" lm-decode --model char --weights $type --prompt 3 --new 4 --repeat 1 --device "$device" > decode.txt
  done
done
use_device cpu
[ -z "$(find . -name 'mamba-bench-*')" ] || fail "a temporary folder was left behind"
