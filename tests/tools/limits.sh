#!/bin/sh
# The tools where memory, processes or nothing at all is left. $1: folder of the programs, $2: folder to work in.
# Every run ends by itself within seconds, with its answer or with a message.
set -eu
. "$(dirname -- "$0")/expect.sh"
tools=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"

# Address space: libraries that start threads, or ask for memory until they get it, as they are loaded would not come
# to the end (150000 KiB: a quarter of what OpenBLAS takes on two processors).
for tool in mamba-info mamba-train mamba-generate mamba-eval mamba-bench; do
  (ulimit -v 150000; exec timeout 20 "$tools/$tool" --version) > out.txt 2>&1 || fail "$tool in little memory: status $?, $(cat out.txt)"
  grep -q "^$tool [0-9]" out.txt || fail "$tool in little memory: $(cat out.txt)"
done

# A run that does not fit says so, or runs: it does not hang and is not killed.
for i in $(seq 60); do echo "the king is not my lord"; done > text.txt
for level in baseline avx2 avx512; do
  for room in 30000 60000 100000 150000 250000; do
    status=0
    (ulimit -v $room; CLM_CPU_LEVEL=$level exec timeout 20 "$tools/mamba-train" --preset tiny --data text.txt --out m \
      --steps 3 --device cpu --threads 2) > out.txt 2>&1 || status=$?
    [ $status -lt 124 ] || fail "$level in $room KiB: status $status: $(cat out.txt)"
    [ $status -eq 0 ] || [ -s out.txt ] || fail "$level in $room KiB: status $status without a message"
    rm -rf m
  done
done

# No process more: threads count as such. Root is above that limit, so it becomes nobody.
nobody=
if [ "$(id -u)" -eq 0 ]; then
  command -v setpriv > /dev/null || { echo "passed over, no setpriv: a limit of processes"; exit 0; }
  nobody="setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all"
  $nobody test -x "$tools/mamba-generate" || { echo "passed over, nobody cannot read $tools"; exit 0; }
fi
command -v prlimit > /dev/null || exit 0
timeout 20 $nobody prlimit --nproc=1 "$tools/mamba-generate" --version > out.txt 2>&1 ||
  fail "no process more: status $?, $(cat out.txt)"
