#!/bin/sh
# mamba-train around the training itself: options that are 0, folders, disks that are full, signals, closed streams, time
# limits, the model that is kept. $1: folder of the programs, $2: folder to work in.
set -eu
. "$(dirname -- "$0")/expect.sh"
tools=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"
use_device cpu

awk 'BEGIN { srand(1); split("KING:;QUEEN:;the;crown;is;not;my;lord", w, ";");
  for (i = 0; i < 900; i++) printf "%s%s", w[int(i * 7 % 11 % 8) + 1], i % 9 == 8 ? "\n" : " " }' > text.txt
awk 'BEGIN { print "x,y"; for (i = 0; i < 60; i++) printf "%d,%d\n", i % 3, i % 5 }' > table.csv
awk 'BEGIN { print "sequence,x,y"; for (i = 0; i < 60; i++) printf "%d,%d,%d\n", i / 10, i % 3, i % 5 }' > walks.csv

tiny="$tools/mamba-train --preset tiny --data text.txt --device cpu"
frames="$tools/mamba-train --task regression --preset tiny --data table.csv --target y --device cpu"
run() { "$@" > log.txt 2>&1 || fail "status $?: $*: $(cat log.txt)"; }
score() { "$tools/mamba-eval" --model "$1" --score "$2" --device cpu | sed 's/.*tokens, \([0-9.]*\) nats.*/\1/'; }
close_to() { awk "BEGIN { d = $1 - $2; exit !(d < 1e-4 && d > -1e-4) }"; }

# ---- The layers of a preset ----
run "$tools/mamba-train" --preset char-mamba2 --data text.txt --device cpu --out kind --steps 1
grep -q '"model_type": "mamba2"' kind/config.json || fail "the preset's layers: $(cat kind/config.json)"
run "$tools/mamba-generate" --model kind --device cpu -n 5
rm -rf kind

run "$tools/mamba-train" --preset hybrid-small --data text.txt --device cpu --out kind --steps 1 --batch 2 --length 32
grep -q '"model_type": "bamba"' kind/config.json || fail "the preset's layers: $(cat kind/config.json)"
run "$tools/mamba-generate" --model kind --device cpu -n 5
run "$tools/mamba-train" --data text.txt --device cpu --out kind --resume --steps 2
score kind text.txt > log.txt
rm -rf kind

# ---- The layers of the command line ----
run $tiny --out kind --steps 1 --layers 'mamba2 mlp(width=128)' --head-dim 8 --n-groups 2
for part in '"layer": "Mamba2"' '"d_intermediate": 128' '"headdim": 8' '"ngroups": 2'; do
  grep -q "$part" kind/config.json || fail "no $part: $(cat kind/config.json)"
done
! grep -q norm_epsilon kind/config.json || fail "the package has no norm_epsilon: $(cat kind/config.json)"
run "$tools/mamba-generate" --model kind --device cpu -n 5
run "$tools/mamba-train" --data text.txt --device cpu --out kind --resume --steps 2
rm -rf kind
run $frames --length 9 --out kind --steps 1 --layers mamba2 --head-dim 4 --n-groups 2
for part in '"layers": "mamba2"' '"head_dim": 4' '"n_groups": 2'; do
  grep -q "$part" kind/config.json || fail "no $part: $(cat kind/config.json)"
done
run "$tools/mamba-train" --task regression --data table.csv --target y --device cpu --out kind --resume --steps 2
rm -rf kind

# ---- 0 and "not given" differ ----
expect '--batch is 0, expected 1 to 1048576' $tiny --out m --steps 2 --batch 0
expect '--length is 0, expected 1 to' $tiny --out m --steps 2 --length 0
expect '--accumulate is 0, expected 1 to' $tiny --out m --steps 2 --accumulate 0
expect '--lr is 0, expected a number above 0, at most 10' $tiny --out m --steps 2 --lr 0
expect '--lr is -1, expected a number above 0' $tiny --out m --steps 2 --lr -1
expect '--clip is -1, expected 0 or more' $tiny --out m --steps 2 --clip -1
expect '--dropout is -0.5, expected 0 to 0.99' $tiny --out m --steps 2 --dropout -0.5
expect '--steps is 0, expected 1 or more' $tiny --out m --steps 0
expect '--minutes is 0, expected a number above 0' $tiny --out m --minutes 0
expect '--steps is 0' "$tools/mamba-train" --data text.txt --out m --steps 0 --resume
expect '--stop-at is -5, expected 0 or more' $tiny --out m --steps 2 --stop-at -5
expect '--d-model is 0, expected 1 or more' $tiny --out m --steps 2 --d-model 0
expect '--validations is 0, expected 1 or more' $tiny --out m --steps 2 --validations 0
expect '--validation-tokens is -1, expected 0 or more' $tiny --out m --steps 2 --validation-tokens -1
expect '--window is only for --task' $tiny --out m --steps 2 --window 0
expect '--window is -1, expected 0 or more' $frames --out m --steps 2 --length 9 --window -1
expect '--keep is "all", expected best or last' $tiny --out m --steps 2 --keep all
expect '--steps is "abc", expected a whole number' $tiny --out m --steps abc
expect '--lr is "x", expected a number' $tiny --out m --steps 2 --lr x
expect '--batch cannot be given with --resume' "$tools/mamba-train" --data text.txt --out m --resume --batch 0
expect '--dtype cannot be given with --resume' "$tools/mamba-train" --data text.txt --out m --resume --dtype bf16

# same A B, differ A B: the models of two runs, given as the options of each; a preset without dropout, one with 0.1.
shape="--data text.txt --device cpu --steps 3 --d-model 8 --n-layer 1 --d-state 4 --batch 2 --length 16 --lr 0.01"
model_of() { rm -rf m; run "$tools/mamba-train" $shape --out m "$@"; cksum < m/model.safetensors; }
quick=$(model_of --preset char-quick)
[ "$(model_of --preset char-medium --dropout 0)" = "$quick" ] || fail "--dropout 0 is not heeded"
[ "$(model_of --preset char-medium)" != "$quick" ] || fail "the preset has no dropout"
[ "$(model_of --preset char-quick --clip 0)" = "$(model_of --preset char-quick --clip 1e30)" ] || fail "--clip 0 is not heeded"
[ "$(model_of --preset char-quick --clip 1e-3)" != "$(model_of --preset char-quick --clip 0)" ] || fail "--clip does nothing"
[ "$(model_of --preset char-quick --seed 1)" = "$quick" ] || fail "the default of --seed is not 1"
[ "$(model_of --preset char-quick --seed -1)" != "$quick" ] || fail "--seed -1 is not heeded"
[ "$(model_of --preset char-quick --seed 0)" != "$quick" ] || fail "--seed 0 is not heeded"
# Of a backbone's model that brings its own dropout too, and when the run goes on.
rm -rf m
for options in "--preset base" "--preset base --dropout 0" "--preset tiny"; do
  run "$tools/mamba-train" --task regression --data table.csv --target y --device cpu --length 9 --d-model 8 --n-layer 1 --d-state 4 \
    $options --steps 4 --stop-at 2 --out m
  run "$tools/mamba-train" --task regression --data table.csv --target y --device cpu --out m --resume
  cksum < m/model.safetensors >> sums.txt
  run "$tools/mamba-train" --task regression --data table.csv --target y --device cpu --length 9 --init m --dropout 0 --steps 4 --out n
  cksum < n/model.safetensors >> sums.txt
  rm -rf m n
done
[ "$(sed -n 3p sums.txt)" = "$(sed -n 5p sums.txt)" ] || fail "--dropout 0 of a backbone is not heeded"
[ "$(sed -n 1p sums.txt)" != "$(sed -n 5p sums.txt)" ] || fail "the preset base has no dropout"
# No window, whole sequences.
for options in "" "--window 0" "--length 0"; do
  run $frames $options --data walks.csv --output last --steps 2 --out m
  cksum < m/model.safetensors >> whole.txt
  rm -rf m
done
[ "$(sort -u whole.txt | wc -l)" -eq 1 ] || fail "--window 0 or --length 0 of a backbone"
run $tiny --steps 5 --stop-at 0 --out m
grep -q 'stopped at step 0, 0 tokens' log.txt || fail "--stop-at 0: $(cat log.txt)"
rm -rf m

# ---- Folders, disks ----
mkdir m
run $tiny --steps 6 --out m
expect 'm exists and is not empty' $tiny --steps 6 --out m
mkdir empty
expect 'token 8 in 10\|too short' "$tools/mamba-train" --preset tiny --data table.csv --device cpu --out empty --steps 2 --length 10000
[ -d empty ] || fail "an empty folder that was there is gone"
# A model that fits, a trainer that does not: about 40 KB and 120 KB.
model=$(wc -c < m/model.safetensors) trainer=$(wc -c < m/trainer.safetensors)
blocks=$(((model + trainer) / 2 / 512))
status=0
(ulimit -f $blocks; exec $tiny --steps 6 --out small) > log.txt 2>&1 || status=$?
[ $status -eq 1 ] || fail "status $status where the trainer does not fit"
tail -n 1 log.txt | grep -q 'trainer.safetensors could not be written: the model is whole' || fail "$(cat log.txt)"
cmp m/model.safetensors small/model.safetensors || fail "the model is not there without its trainer"
[ ! -e small/trainer.safetensors ] && [ -z "$(find small -name '*.partial')" ] || fail "$(ls small)"
[ "$(cut -d, -f1,5,6 small/train.csv)" = "$(cut -d, -f1,5,6 m/train.csv)" ] || fail "train.csv without a trainer"
# Neither fits: all that was there stays, and of a new run nothing.
run $tiny --steps 12 --stop-at 6 --out old
cp -r old before
status=0
(ulimit -f 8; exec "$tools/mamba-train" --data text.txt --device cpu --out old --resume) > log.txt 2>&1 || status=$?
[ $status -eq 1 ] && grep -q 'cannot write old/.*: File too large' log.txt || fail "status $status: $(cat log.txt)"
cmp old/model.safetensors before/model.safetensors && cmp old/trainer.safetensors before/trainer.safetensors || fail "a full disk lost a file"
status=0
(ulimit -f 8; exec $tiny --steps 6 --out none) > log.txt 2>&1 || status=$?
[ $status -eq 1 ] && [ ! -e none ] || fail "status $status, $(ls none)"
# A damaged log is not thrown away; what a killed run has left is.
run "$tools/mamba-train" --data text.txt --device cpu --out old --resume
cp -r before damaged
{ head -n 4 before/train.csv; echo '4,512,rubbish'; tail -n 2 before/train.csv; } > damaged/train.csv
cp damaged/train.csv damaged.csv
echo rest > damaged/model.safetensors.99-1.partial
run "$tools/mamba-train" --data text.txt --device cpu --out damaged --resume
grep -q 'train.csv: line 5 is damaged; the file is kept as damaged/train.csv.damaged-1' log.txt || fail "$(cat log.txt)"
cmp damaged.csv damaged/train.csv.damaged-1 || fail "the damaged log was changed"
[ "$(cut -d, -f1 damaged/train.csv | tr '\n' ' ')" = 'step 1 2 3 7 8 9 10 11 12 ' ] || fail "$(cat damaged/train.csv)"
cmp damaged/model.safetensors old/model.safetensors || fail "a damaged log changed the model"
[ ! -e damaged/model.safetensors.99-1.partial ] || fail "partial files of a killed run stay"
# Two runs in one folder. (The tests themselves may run under nohup.)
env --default-signal=HUP $tiny --steps 100000 --out busy > busy.txt 2>&1 &
pid=$!
while ! grep -qs '^step' busy.txt; do sleep 0.05; done
kill -HUP $pid # as SIGTERM: it saves
wait $pid || fail "SIGHUP: status $?"
grep -q 'stopped at step' busy.txt || fail "SIGHUP: $(cat busy.txt)"
"$tools/mamba-train" --data text.txt --device cpu --out busy --resume > again.txt 2>&1 &
pid=$!
while ! grep -qs '^step' again.txt; do sleep 0.05; done
expect 'another mamba-train is at work in busy' "$tools/mamba-train" --data text.txt --device cpu --out busy --resume
kill -TERM $pid
wait $pid || fail "SIGTERM: status $?"
# Under nohup SIGHUP is nothing.
(trap '' HUP; exec $tiny --steps 300 --out deaf) > deaf.txt 2>&1 &
pid=$!
while ! grep -qs 'on ' deaf.txt; do sleep 0.05; done
kill -HUP $pid
wait $pid || fail "nohup: status $?"
grep -q 'trained to step 300' deaf.txt || fail "nohup: $(tail -n 1 deaf.txt)"
rm -rf busy deaf old before damaged small

# ---- Streams ----
for streams in '>&-' '2>&-' '>&- 2>&-' '<&- >&- 2>&-'; do
  eval "$tiny --steps 6 --out closed $streams" > said.txt 2>&1 || fail "status $? with $streams"
  for file in model.safetensors train.csv trainer.safetensors config.json; do
    [ "$file" = train.csv ] || [ "$file" = trainer.safetensors ] || cmp m/$file closed/$file || fail "$file with $streams"
    [ -s closed/$file ] || fail "$file with $streams"
  done
  rm -rf closed
done
$tiny --steps 300 --out closed 2>&1 | head -n 1 > said.txt
tail -n 1 closed/train.csv | grep -q '^300,' || fail "a reader that went away ended the run"
rm -rf closed
for stream in 1 2; do
  status=0
  eval "$tiny --steps 6 --out closed $stream>/dev/full" > said.txt 2>&1 || status=$?
  [ $status -eq 1 ] || fail "status $status with /dev/full as stream $stream"
  cmp m/model.safetensors closed/model.safetensors || fail "/dev/full lost the model"
  rm -rf closed
done

# ---- Time ----
# A text whose last tenth would take minutes: a part of it is validated on, and the run ends on time.
awk 'BEGIN { srand(3); for (i = 0; i < 300000; i++) printf "%s%s", substr("the quick brown fox jumps over the lazy dog", 1 + int(rand() * 30), 12), i % 5 == 4 ? "\n" : " " }' > large.txt
before=$(date +%s)
run "$tools/mamba-train" --preset char-quick --data large.txt --device cpu --minutes 0.2 --validation-tokens 5000 --out timed
seconds=$(($(date +%s) - before))
[ $seconds -ge 8 ] && [ $seconds -le 18 ] || fail "a run of 12 seconds took $seconds"
bytes=$(wc -c < large.txt)
tail -c $((bytes - bytes * 9 / 10)) large.txt | head -c 5000 > first.txt
close_to "$(score timed first.txt)" "$(cut -d, -f6 timed/train.csv | sort -n | sed -n '/^[0-9]/{p;q}')" || fail "--validation-tokens: $(score timed first.txt)"
rm -rf timed large.txt

# ---- The model that is kept ----
# Too few letters to learn anything but by heart: the validation loss falls, then rises.
awk 'BEGIN { srand(5); for (i = 0; i < 400; i++) printf "%c", 97 + int(6 * rand()) }' > heart.txt
tail -c 40 heart.txt > heart_last.txt
heart="$tools/mamba-train --preset tiny --data heart.txt --device cpu --lr 0.03 --steps 400 --validations 8"
run $heart --out best
grep -q 'best validation loss was .* at step .* overfits. The model of that step is kept' log.txt || fail "$(cat log.txt)"
lowest() { cut -d, -f6 "$1/train.csv" | grep '^[0-9]' | sort -n | head -n 1; }
close_to "$(score best heart_last.txt)" "$(lowest best)" || fail "kept $(score best heart_last.txt), best $(lowest best)"
last=$(tail -n 1 best/train.csv | cut -d, -f6)
awk "BEGIN { exit !($last > $(lowest best) + 0.01) }" || fail "no overfitting: $last after $(lowest best)"
run $heart --out last --keep last
grep -q 'The model of the last step is kept' log.txt || fail "$(cat log.txt)"
close_to "$(score last heart_last.txt)" "$last" || fail "--keep last: $(score last heart_last.txt), $last"
cmp -s best/model.safetensors last/model.safetensors && fail "--keep makes no difference"
# In parts: the same model, wherever it was interrupted; what an interrupt leaves is the best so far.
for stop in 20 49 50 77 130 222; do
  run $heart --out parts --stop-at $stop
  close_to "$(score parts heart_last.txt)" "$(lowest parts)" || fail "interrupted at $stop: $(score parts heart_last.txt), best $(lowest parts)"
  run "$tools/mamba-train" --data heart.txt --device cpu --out parts --resume
  cmp best/model.safetensors parts/model.safetensors || fail "interrupted at $stop: another model"
  [ ! -e parts/scheduled.safetensors ] || fail "scheduled.safetensors stays"
  rm -rf parts
done
# The last one is there for --resume: more steps begin where the run ended.
run "$tools/mamba-train" --data heart.txt --device cpu --out best --resume --steps 410
grep -q 'trained to step 410' log.txt || fail "$(cat log.txt)"
close_to "$(score best heart_last.txt)" "$(lowest best)" || fail "a longer run lost the best model"
echo "training: all well"
