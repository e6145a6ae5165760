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
expect '--kind: only block' "$bench" scan --kind mamba2
expect '--kind mamba3 is unknown: it is one of mamba1 or mamba2' "$bench" block --kind mamba3
expect 'head_dim is 7, which does not divide d_inner 32' "$bench" block --kind mamba2 --dim 16 --head-dim 7 --device cpu
expect '--weights: only' "$bench" scan --weights bf16
expect '--dtype: backbone-step runs in f32' "$bench" backbone-step --dtype bf16
expect '--check: lm-load has none' "$bench" lm-load --check
TMPDIR=$PWD/nowhere expect 'lm-load: its temporary files: No such' "$bench" lm-load --model char --device cpu

for device; do
  use_device "$device"
  "$bench" scan --check --batch 1 --dim 5 --length 40 --state 3 --repeat 2 --device "$device" --format csv > scan.csv
  [ "$(wc -l < scan.csv)" -eq 2 ] || fail "scan on $device: not one row"
  for op in block block-train; do
    "$bench" $op --kind mamba2 --check --batch 2 --dim 12 --length 70 --state 6 --head-dim 4 --groups 3 --repeat 2 \
      --device "$device" --format csv > block.csv || fail "$op of Mamba-2 on $device: $(cat block.csv)"
    grep -q 'kind=mamba2 batch=2 dim=12 length=70 state=6 width=4 head_dim=4 groups=3' block.csv || fail "$(cat block.csv)"
  done
  # Every line of a table ends in the same column. The peak is the row's own: the scan's tensors once (u, delta, z, out:
  # 4 x 8 x 64 floats; A: 8 x 4; B, C: 2 x 4 x 64; D, delta_bias: 8), each in a whole number of 256 bytes, and its
  # workspace; it does not grow with the copies that keep them out of the caches, nor with what ran before.
  "$bench" scan --batch 1 --dim 8 --state 4 --sweep length=64:256 --repeat 2 --device "$device" --plot sweep.svg > table.txt
  [ "$(awk '/^(op|scan) /{ print length }' table.txt | sort -u | wc -l)" -eq 1 ] || fail "not aligned: $(cat table.txt)"
  grep -q 'font-size="15.0">scan batch=1 dim=8 state=4 groups=1, f32, cold caches<' sweep.svg || fail "no title: $(cat sweep.svg)"
  "$bench" scan --batch 1 --dim 8 --state 4 --length 64 --repeat 2 --device "$device" --format json > one.json
  "$bench" scan --batch 1 --dim 8 --state 4 --sweep length=64:256 --repeat 2 --device "$device" --format json > rows.json
  peak=$(sed -n 's/^ *"peak_bytes": \([0-9]*\),\{0,1\}$/\1/p' one.json)
  [ -n "$peak" ] || fail "peak_bytes is no whole number: $(cat one.json)"
  [ "$peak" -ge 11008 ] && [ "$peak" -lt 200000 ] || fail "scan of 11 KB on $device takes $peak bytes"
  [ "$(sed -n 's/^ *"peak_bytes": \([0-9]*\),\{0,1\}$/\1/p' rows.json | head -n 1)" = "$peak" ] || fail "peaks differ: $(cat one.json rows.json)"
  [ "$(grep -c '^ *"length": 64,\{0,1\}$' one.json)" -eq 1 ] || fail "length is no whole number: $(cat one.json)"
  "$bench" lm-load --model char --dtype f16 --weights bf16 --repeat 1 --device "$device" --explain > load.txt
  grep -q 'reading the 3 MB once' load.txt || fail "lm-load on $device: $(cat load.txt)"
  for type in f16 int8; do
    "$bench" lm-decode --model char --weights $type --prompt 3 --new 4 --repeat 1 --device "$device" > decode.txt
  done
done
use_device cpu
for op in 'lm-decode --prompt 3 --new 4' 'lm-train --length 16'; do
  "$bench" $op --model char --batch 2 --dtype bf16 --repeat 1 --device cpu --format csv > bf16.csv
  grep -q ',bf16,' bf16.csv || fail "$op in bf16: $(cat bf16.csv)"
done
[ -z "$(find . -name 'mamba-bench-*')" ] || fail "a temporary folder remains"
