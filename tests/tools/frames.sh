#!/bin/sh
# mamba-train --task as a user runs it, from CSV tables and npy arrays. $1: folder of the programs, $2: folder to work
# in, $3...: devices. Every failure must be one message on stderr, a non-zero status, and no files must remain.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
. "$here/expect.sh"
tools=$1 work=$2
shift 2
rm -rf "$work"
mkdir -p "$work"
cd "$work"

# Walks up and down: x is the step, sum what they add up to (slowly forgotten), trend its class.
awk 'BEGIN { srand(2); print "sequence,x,noise,sum,trend";
  for (s = 0; s < 400; s++) { sum = 0; n = 20 + s % 7;
    for (t = 0; t < n; t++) { x = rand() - 0.5; sum = 0.7 * sum + x;
      printf "walk %d, %.4f ,%.4f,%.5f,%s\n", s, x, rand(), sum, sum < 0 ? "down" : "up" } } }' > walks.csv

# npy FILE DTYPE SHAPE: an array of the numbers on stdin, which are 0, 1, 2, -1 or -100.
npy() {
  {
    printf '\223NUMPY\1\0v\0'
    printf '%-117s\n' "{'descr': '$2', 'fortran_order': False, 'shape': ($3), }"
    # shellcheck disable=SC2059
    printf "$(awk -v t="$2" '{ if (t == "<f4") printf "%s", $1 == 0 ? "\\0\\0\\0\\0" : $1 == 1 ? "\\0\\0\\200\\77" : $1 == 2 ? "\\0\\0\\0\\100" : "\\0\\0\\200\\277";
      else if (t ~ /1$/) printf "\\%s", $1; else if (t ~ /2$/) printf "\\%s\\0", $1;
      else printf "%s", $1 == -100 ? "\\234\\377\\377\\377" : $1 < 0 ? "\\377\\377\\377\\377" : "\\" $1 "\\0\\0\\0" }')"
  } > "$1"
}
numbers() { awk -v n="$1" -v m="$2" 'BEGIN { for (i = 0; i < n; i++) print int(i * i / 3) % m }'; }
numbers 240 2 | npy x.npy '<f4' '20, 6, 2'
numbers 20 3 | npy last.npy '<i4' '20,'
numbers 120 3 | npy every.npy '<i4' '20, 6'
numbers 120 2 | npy y.npy '<f4' '20, 6'
numbers 40 2 | npy y2.npy '<f4' '20, 2'
numbers 240 2 | npy y3.npy '<f4' '20, 6, 2'
numbers 19 2 | npy short.npy '<i4' '19,'
echo -1 | npy none.npy '<i4' '1,'
numbers 12 2 | npy one.npy '<f4' '1, 6, 2'
head -c 500 x.npy > cut.npy

csv="$tools/mamba-train --task regression --data walks.csv --target sum --features x,noise --preset tiny"
regress="$tools/mamba-train --task regression --preset tiny --out m --steps 2 --device cpu"
classify="$tools/mamba-train --task classification --preset tiny --out m --steps 2 --device cpu"

# ---- Bad input ----
expect '--task is "clustering", expected regression or classification' "$tools/mamba-train" --task clustering --data x.npy --out m --steps 2
expect '--output is "first"' $regress --data x.npy --output first
expect '--vocab is for texts' $regress --data walks.csv --vocab byte
expect '--target is only for --task' "$tools/mamba-train" --data walks.csv --target sum --out m --steps 2
expect '--targets Y.npy is missing' $regress --data x.npy
expect '--target NAME is missing' $regress --data walks.csv
expect '--targets is for npy arrays' $regress --data walks.csv --targets y.npy
expect '--target and --features name columns' $regress --data x.npy --targets y.npy --target sum
expect 'no preset "char-small" for --task' "$tools/mamba-train" --task regression --preset char-small --data x.npy --targets y.npy --out m --steps 2 --device cpu
expect 'cannot read nowhere.csv' $regress --data nowhere.csv --target sum
expect 'nowhere.npy' $regress --data nowhere.npy --targets y.npy
expect 'nowhere.npy' $regress --data x.npy --targets nowhere.npy
expect 'cut.npy' $regress --data cut.npy --targets y.npy
expect 'not a valid .npy file' $regress --data x.npy --targets walks.csv
expect '(n, length, embed_dim) are expected' $regress --data y.npy --targets y.npy
expect 'does not hold whole numbers' $classify --data x.npy --targets y.npy
expect 'short.npy has 19 sequences, x.npy 20' $classify --data x.npy --targets short.npy
expect '--output does not fit last.npy' $classify --data x.npy --targets last.npy --output every
expect 'all are -1' $classify --data one.npy --targets none.npy
expect 'one sequence only, at least 2' $regress --data one.npy --targets one.npy
expect 'a window instead' $classify --data x.npy --targets last.npy --length 3
expect 'has no such column' $regress --data walks.csv --target height
expect 'in use already' $regress --data walks.csv --target sum,sum
expect 'in use already' $regress --data walks.csv --target sum --features sum
expect 'the classes are in one' $classify --data walks.csv --target sum,trend
expect 'line 2, column "trend": "up" is not a number\|line 2, column "trend": "down" is not a number' $regress --data walks.csv --target trend
expect 'dropout' $csv --out m --steps 2 --dropout 1.5 --device cpu
expect 'head_dim is 5, which does not divide d_inner 32' $csv --out m --steps 2 --layers mamba2 --head-dim 5 --device cpu
expect 'n_groups is 3, which does not divide the number of heads 4' $csv --out m --steps 2 --layers mamba2 --head-dim 8 --n-groups 3 --device cpu
expect 'an unknown kind of layer at "mamba9"' $csv --out m --steps 2 --layers mamba9 --device cpu
expect '--layers cannot be given with --resume' "$tools/mamba-train" --task regression --data walks.csv --target sum --out m --steps 2 --layers mamba2 --resume --device cpu
expect 'd_conv is 40' $csv --out m --steps 2 --d-conv 40 --device cpu

# table WORDS TEXT: a table of this text is refused so.
table() {
  printf "$2" > bad.csv
  expect "$1" $regress --data bad.csv --target y
}
printf 'x\0y\n1,2\n' > bad.csv
expect 'not text' $regress --data bad.csv --target y
table 'bad.csv is empty' ''
table 'no rows below its header' 'x,y\n'
table 'no rows below its header' '\n\n'
table 'line 3 has 1 fields, the header has 2' 'x,y\n1,2\n1\n'
table 'line 2 has 3 fields, the header has 2' 'x,y\n1,2,3\n'
table 'two columns are called "x"' 'x,y,x\n1,2,3\n'
table 'the row of line 3 has a quoted field that does not end' 'x,y\n1,2\n"3,4\n5,6\n'
table 'line 4 has 1 fields' '"x","a\nb",y\n\n1\n2,3,4\n'
table 'line 3, column "x": "" is not a number' 'x,y\n1,2\n,2\n'
table '"nan" is not a number' 'x,y\n1,2\nnan,2\n'
table '"1e99" is not a number' 'x,y\n1e99,2\n1,2\n'
table '"0x10" is not a number' 'x,y\n0x10,2\n1,2\n'
table '"1 2" is not a number' 'x,y\n1 2,2\n1,2\n'
table '"1.2.3" is not a number' 'x,y\n1.2.3,2\n1,2\n'
table 'no columns of numbers besides the targets' 'sequence,y\n1,2\n'
table 'no columns of numbers besides the targets' ',colour,y\n1,red,2\n'
table 'comes back after another one' 'sequence,x,y\na,1,2\nb,1,2\na,1,2\n'
table 'one sequence only' 'x,y\n1,2\n3,4\n'
printf 'sequence,x,c\na,1,up\nb,1,\n' > bad.csv
expect 'line 3 has no class' $classify --data bad.csv --target c
printf 'sequence,x,c\na,1,\377\nb,1,up\n' > bad.csv
expect 'not UTF-8' $classify --data bad.csv --target c
printf 'x,c\n1,-100\n2,-100\n' > bad.csv
expect 'has no class: all are -100' $classify --data bad.csv --target c
rm bad.csv

# ---- Runs ----
present() {
  [ "$1" = cpu ] || ! "$tools/mamba-generate" --model nowhere --device "$1" 2>&1 | grep -q 'no usable OpenCL device'
}

tried=
for device in "$@"; do
  use_device "$device"
  present "$device" || { echo "passed over, no such device: $device"; continue; }
  tried="$tried $device"
  rm -rf whole parts
  $csv --out whole --steps 30 --device "$device" > log.txt 2>&1 || fail "training on $device: $(cat log.txt)"
  grep -q '400 sequences (91[0-9][0-9] frames of 2 numbers), 1 targets: sum' log.txt || fail "$(cat log.txt)"
  grep -q 'mean squared error, R2 ' log.txt || fail "$(cat log.txt)"
  for file in config.json model.safetensors train.csv loss.svg trainer.safetensors; do
    [ -s whole/$file ] || fail "whole/$file is missing"
  done
  [ "$(find whole | wc -l)" -eq 6 ] || fail "other files are in the directory: $(ls whole)"
  grep -q '"model_type": "clmamba_backbone"' whole/config.json || fail "config.json"
  head -n 1 whole/train.csv | grep -qx 'step,frames,seconds,learning_rate,train_loss,val_loss,val_r2' || fail "header"
  tail -n 1 whole/train.csv | grep -Eqx '30,[0-9]+,[0-9.]+,[0-9.e-]+,[0-9.]+,[0-9.]+,-?[0-9.]+' || fail "$(tail -n 1 whole/train.csv)"
  grep -q 'mean squared error' whole/loss.svg || fail "loss.svg has no unit"
  # In parts: the same bits.
  $csv --out parts --steps 30 --stop-at 11 --device "$device" > log.txt 2>&1 || fail "$(cat log.txt)"
  "$tools/mamba-train" --task regression --data walks.csv --target sum --features x,noise --out parts --resume --device "$device" \
    > log.txt 2>&1 || fail "$(cat log.txt)"
  cmp whole/model.safetensors parts/model.safetensors || fail "11 + 19 steps differ from 30 on $device"
  [ "$(cut -d, -f1 parts/train.csv | sort -u | wc -l)" -eq 31 ] || fail "steps of train.csv after a resumed run"
done
use_device cpu

# Learnt in a few seconds: the sum to nine tenths of its variance, the trend of a whole walk's end.
rm -rf whole
$csv --out whole --steps 300 --lr 0.01 --device cpu > log.txt 2>&1 || fail "$(cat log.txt)"
r2=$(tail -n 1 whole/train.csv | cut -d, -f7)
awk "BEGIN { exit !($r2 > 0.9) }" || fail "R2 is $r2"
$classify --data walks.csv --target trend --features x --output last --steps 300 --lr 0.01 > log.txt 2>&1 || fail "$(cat log.txt)"
grep -Eq '400 sequences .* 2 classes: down \([0-9]+\), up \([0-9]+\)' log.txt || fail "$(cat log.txt)"
grep -q 'nats, accuracy' log.txt || fail "$(cat log.txt)"
tr -d ' \n' < m/config.json | grep -q '"output_names":\["down","up"\]' || fail "$(cat m/config.json)"
tail -n 1 m/train.csv | cut -d, -f7 | awk '{ exit !($1 >= 0.75) }' || fail "$(tail -n 1 m/train.csv)"

# What was trained is used: outputs into a file, and the score, which on the last tenth of the sequences is the
# validation of train.csv's last row.
{ head -n 1 walks.csv; awk -F, '/^walk/ { split($1, w, " "); if (w[2] >= 360) print }' walks.csv; } > tenth.csv
eval="$tools/mamba-eval --device cpu"
$eval --model whole --data tenth.csv --target sum --features x,noise --output sums.csv > score.txt || fail "mamba-eval --data"
grep -Eq '^[0-9]+ outputs, mean squared error [0-9.]+, R2 [0-9.]+$' score.txt || fail "$(cat score.txt)"
awk -v got="$(sed 's/.*error \([0-9.]*\),.*/\1/' score.txt)" -v want="$(tail -n 1 whole/train.csv | cut -d, -f6)" \
  'BEGIN { d = got - want; exit !(d < 1e-5 && d > -1e-5) }' || fail "score: $(cat score.txt), validation: $(tail -n 1 whole/train.csv)"
head -n 1 sums.csv | grep -qx '"sum"' || fail "header of sums.csv: $(head -n 1 sums.csv)"
[ "$(wc -l < sums.csv)" -eq "$(wc -l < tenth.csv)" ] || fail "rows of sums.csv"
# The file has what the score is of.
paste -d, sums.csv tenth.csv | awk -F, -v got="$(sed 's/.*error \([0-9.]*\),.*/\1/' score.txt)" \
  'NR > 1 { s += ($1 - $5) ^ 2; n++ } END { d = s / n - got; exit !(d < 1e-5 && d > -1e-5) }' || fail "sums.csv differs from the score"
cut -d, -f1-3 tenth.csv > frames.csv # without targets: outputs alone, the same
$eval --model whole --data frames.csv --output same.csv > score.txt || fail "mamba-eval without targets"
cmp sums.csv same.csv && [ ! -s score.txt ] || fail "outputs differ without targets"
$eval --model whole --data frames.csv --output sums.npy || fail "mamba-eval to npy"
[ "$(wc -c < sums.npy)" -eq $((128 + 4 * ($(wc -l < frames.csv) - 1))) ] || fail "sums.npy has $(wc -c < sums.npy) bytes"
$eval --model m --data tenth.csv --target trend --features x --output classes.csv > score.txt || fail "mamba-eval of classes"
grep -Eq '^40 outputs, nats [0-9.]+, accuracy [0-9.]+$' score.txt || fail "$(cat score.txt)"
head -n 1 classes.csv | grep -qx '"down","up",class' || fail "header of classes.csv: $(head -n 1 classes.csv)"
[ "$(grep -Ec '^-?[0-9.e-]+,-?[0-9.e-]+,"(up|down)"$' classes.csv)" -eq 40 ] || fail "$(cat classes.csv)"
expect 'give --output OUT, or --targets or --target' $eval --model whole --data frames.csv
expect 'are for --data' $eval --model whole --score tenth.csv --target sum
expect 'frames of 3 numbers, the model takes 2' $eval --model whole --data tenth.csv --output l.csv --features x,noise,sum
expect 'cannot read nowhere.csv' $eval --model whole --data nowhere.csv --output l.csv
expect 'cannot write no/where.csv' $eval --model whole --data frames.csv --output no/where.csv
expect 'cannot read nowhere/config.json' $eval --model nowhere --data frames.csv --output l.csv

# A model meets other data.
sed 's/,up$/,sideways/' walks.csv > other.csv
resume="$tools/mamba-train --out m --resume --device cpu"
expect '"sideways" is not a class of the model' $resume --task classification --data other.csv --target trend --features x --output last
expect 'frames of 3 numbers, the model takes 1' $resume --task classification --data walks.csv --target trend --output last
expect 'the model has an output for whole sequences' $resume --task classification --data walks.csv --target trend --features x
expect 'is for classification' $resume --task regression --data walks.csv --target sum --features x
expect 'cannot read m/tokenizer.json' "$tools/mamba-train" --data walks.csv --init m --out n --steps 2 --device cpu
expect 'the data is not the one' $resume --task classification --data walks.csv --target trend --features noise --output last
$tools/mamba-train --task classification --data walks.csv --target trend --features x --output last --init m --out n --steps 2 --device cpu \
  > log.txt 2>&1 || fail "$(cat log.txt)"
rm -rf m n

# npy: every form of Y, windows, sequences cut to a length.
for y in "regression y2.npy" "regression y3.npy" "regression y.npy --output every" "classification last.npy --window 4" \
  "classification every.npy --length 4" "classification every.npy --window 3"; do
  # shellcheck disable=SC2086
  set -- $y
  kind=$1 targets=$2
  shift 2
  "$tools/mamba-train" --task "$kind" --preset tiny --data x.npy --targets "$targets" "$@" --out m --steps 3 --device cpu > log.txt 2>&1 ||
    fail "$y: $(cat log.txt)"
  rm -rf m
done

# ---- Data as others write it ----
# learns WORDS OPTION...: a run succeeds and says so.
learns() {
  words=$1
  shift
  "$tools/mamba-train" --preset tiny --out m --steps 2 --device cpu "$@" > log.txt 2>&1 || fail "$*: $(cat log.txt)"
  grep -q -- "$words" log.txt || fail "\"$words\" is not in: $(cat log.txt)"
  rm -rf m
}
# The table that docs/backbone.md shows.
awk '/^sequence,/ { on = 1 } /^```/ { on = 0 } on' "$here/../../docs/backbone.md" > shown.csv
[ "$(wc -l < shown.csv)" -ge 4 ] || fail "docs/backbone.md shows no table"
learns 'shown.csv: left out: trend (no numbers); --features' --task regression --data shown.csv --target sum
learns '(.* frames of 2 numbers), 1 targets: sum' --task regression --data walks.csv --target sum
# pandas' to_csv: an index without a name, which becomes "Unnamed: 0" when it is written again; quoted fields with commas,
# quotes and line ends; True and False.
{
  echo ',"x, left",on,note,"speed ""v"""'
  awk 'BEGIN { for (i = 0; i < 20; i++) printf "%d,\"%d.5\",%s,\"said \"\"%d, ok\"\"\nand more\",%d\r\n", i, i % 3, i % 2 ? "True" : "False", i, i }'
} > pandas.csv
learns 'pandas.csv: left out: column 1 (no name), note (no numbers); --features' --task regression --data pandas.csv --target 'speed "v"' --length 5
learns '(20 frames of 2 numbers)' --task regression --data pandas.csv --target 'speed "v"' --length 5
learns '(20 frames of 1 numbers)' --task regression --data pandas.csv --target 'speed "v"' --features on --length 5
learns '2 classes: False (10), True (10)' --task classification --data pandas.csv --target on --length 5
sed '1s/^,/Unnamed: 0,/' pandas.csv > again.csv
learns 'left out: column 1 (no name)' --task regression --data again.csv --target 'speed "v"' --length 5
# -100 is no class, as in PyTorch.
awk 'BEGIN { print "x,c"; for (i = 0; i < 20; i++) printf "%d,%d\n", i % 3, i % 4 ? i % 2 : -100 }' > ignored.csv
learns '2 classes: 0 (5), 1 (10)' --task classification --data ignored.csv --target c --length 5
# Every integer type of NumPy, as data and as classes.
numbers 240 2 | npy x_u1.npy '|u1' '20, 6, 2'
numbers 240 2 | npy x_u2.npy '<u2' '20, 6, 2'
numbers 240 2 | npy x_b1.npy '|b1' '20, 6, 2'
numbers 20 2 | npy y_b1.npy '|b1' '20,'
numbers 20 3 | npy y_u1.npy '|u1' '20,'
numbers 20 3 | npy y_u2.npy '<u2' '20,'
for x in x_u1.npy x_u2.npy x_b1.npy; do learns '20 sequences' --task regression --data $x --targets y2.npy; done
learns '2 classes: 0' --task classification --data x.npy --targets y_b1.npy
learns '3 classes: 0' --task classification --data x.npy --targets y_u1.npy
learns '3 classes: 0' --task classification --data x.npy --targets y_u2.npy
# -100 among them.
{ printf '%s\n' -100 -100; numbers 18 2; } | npy y_100.npy '<i4' '20,'
learns '2 classes: 0 (9), 1 (9)' --task classification --data x.npy --targets y_100.npy

# An interrupt saves, and the run goes on to the same bits.
rm log.txt
$csv --out long --steps 1500 --device cpu > log.txt 2>&1 &
pid=$!
while ! grep -qs '^step' log.txt; do sleep 0.05; done
kill -INT $pid
wait $pid || fail "an interrupted run left with status $?"
grep -q 'stopped at step' log.txt || fail "not interrupted: $(tail -n 1 log.txt)"
"$tools/mamba-train" --task regression --data walks.csv --target sum --features x,noise --out long --resume --device cpu > log.txt 2>&1 || fail "$(cat log.txt)"
$csv --out unbroken --steps 1500 --device cpu > log.txt 2>&1 || fail "$(cat log.txt)"
cmp long/model.safetensors unbroken/model.safetensors || fail "an interrupted run differs"
echo "mamba-train --task: all well on$tried"
