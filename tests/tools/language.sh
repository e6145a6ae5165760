#!/bin/sh
# The language-model tools as a user runs them. $1: folder of the programs, $2: folder to work in, $3...: devices.
# Every failure must be one message on stderr, a non-zero status, and no files must remain.
set -eu
. "$(dirname -- "$0")/expect.sh"
tools=$1 work=$2
shift 2
rm -rf "$work"
mkdir -p "$work"
cd "$work"

# A text with some structure, the same everywhere.
awk 'BEGIN { srand(1); split("KING:;QUEEN:;the;crown;is;not;my;lord", w, ";");
  for (i = 0; i < 900; i++) printf "%s%s", w[int(i * 7 % 11 % 8) + 1], i % 9 == 8 ? "\n" : " " }' > text.txt
bytes=$(wc -c < text.txt)

train="$tools/mamba-train --preset tiny --data text.txt"

: > empty.txt
printf x > one.txt
mkdir exists
printf 'a\377b' > binary.txt
expect 'cannot read nowhere.txt: No such file' "$tools/mamba-train" --preset tiny --data nowhere.txt --out m --steps 5 --device cpu
expect 'empty.txt is empty' "$tools/mamba-train" --preset tiny --data empty.txt --out m --steps 5 --device cpu
expect 'too short: 1 token' "$tools/mamba-train" --preset tiny --data one.txt --out m --steps 5 --device cpu
expect 'not UTF-8 at byte 1' "$tools/mamba-train" --preset tiny --data binary.txt --out m --steps 5 --device cpu
expect 'cannot read exists: Is a directory' "$tools/mamba-train" --preset tiny --data exists --out m --steps 5 --device cpu
expect 'cannot create /proc/m:' $train --out /proc/m --steps 5 --device cpu
expect 'cannot create no/parent: No such file' $train --out no/parent --steps 5 --device cpu
touch exists/file
expect 'exists exists and is not empty' $train --out exists --steps 5 --device cpu
expect 'no run to resume' "$tools/mamba-train" --data text.txt --out m --resume --device cpu
expect 'cannot read exists/trainer.safetensors' "$tools/mamba-train" --data text.txt --out exists --resume --device cpu
expect '--nonsense: unknown option' $train --out m --steps 5 --nonsense
expect 'unexpected argument "more"' $train --out m --steps 5 more
expect 'there is no preset "huge"' "$tools/mamba-train" --preset huge --data text.txt --out m --steps 5 --device cpu
expect 'opencl:9' $train --out m --steps 5 --device opencl:9
expect 'is not auto, cpu, opencl' $train --out m --steps 5 --device gpu
expect '--data FILE is missing' "$tools/mamba-train" --out m --steps 5
expect '--minutes M or --steps N' $train --out m
expect 'exclude each other' $train --out m --steps 5 --minutes 1
expect 'batch is -1' $train --out m --steps 5 --batch -1 --device cpu
expect '--dtype is "f64", expected f32, bf16 or f16' $train --out m --steps 5 --dtype f64 --device cpu
expect '--activations is "f64"' "$tools/mamba-generate" --model nowhere --activations f64 --device cpu
expect 'cannot read nowhere/config.json' "$tools/mamba-generate" --model nowhere --device cpu
expect 'nothing to do' "$tools/mamba-eval" --model exists --device cpu

# A machine without OpenCL devices is no failure of the tools (CLM_REQUIRE_PLATFORMS is for the other tests).
present() {
  [ "$1" = cpu ] || ! "$tools/mamba-generate" --model nowhere --device "$1" 2>&1 | grep -q 'no usable OpenCL device'
}

tried=
for device in "$@"; do
  use_device "$device"
  present "$device" || { echo "passed over, no such device: $device"; continue; }
  tried="$tried $device"
  out=$(echo "m-$device" | tr : _)
  # Train, twice in parts: the same bits, in the model and in everything that a further part would read.
  $train --out "$out" --steps 40 --device "$device" > log.txt 2>&1 || fail "training on $device: $(cat log.txt)"
  for file in config.json model.safetensors tokenizer.json tokenizer_config.json train.csv loss.svg trainer.safetensors; do
    [ -s "$out/$file" ] || fail "$out/$file is missing"
  done
  [ -z "$(find . -name '*.partial')" ] || fail "partial files are left"
  $train --out parts --steps 40 --stop-at 17 --device "$device" > log.txt 2>&1 || fail "$(cat log.txt)"
  "$tools/mamba-train" --data text.txt --out parts --resume --device "$device" > log.txt 2>&1 || fail "$(cat log.txt)"
  cmp "$out/model.safetensors" parts/model.safetensors || fail "17 + 23 steps differ from 40 on $device"
  # A run that is complete can be resumed too: nothing changes.
  cp parts/train.csv before.csv
  "$tools/mamba-train" --data text.txt --out parts --resume --device "$device" > log.txt 2>&1 || fail "$(cat log.txt)"
  cmp parts/train.csv before.csv || fail "resuming a complete run changed train.csv"
  cmp "$out/model.safetensors" parts/model.safetensors || fail "resuming a complete run changed the model"
  rm -rf parts

  # train.csv: its header, one row for each step here, a validation loss in the last.
  head -n 1 "$out/train.csv" | grep -qx 'step,tokens,seconds,learning_rate,train_loss,val_loss' || fail "header"
  tail -n 1 "$out/train.csv" | grep -Eqx '40,5120,[0-9.]+,[0-9.e-]+,[0-9.]+,[0-9.]+' || fail "$(tail -n 1 "$out/train.csv")"
  [ "$(wc -l < "$out/train.csv")" -eq 41 ] || fail "rows of train.csv"
  grep -q 'nats per token' "$out/loss.svg" || fail "loss.svg has no unit"

  # The last tenth, cut off as any user can, has the validation loss of the last row.
  tail -c $((bytes - bytes * 9 / 10)) text.txt > last.txt
  score=$("$tools/mamba-eval" --model "$out" --score last.txt --device "$device" | sed 's/.*tokens, \([0-9.]*\) nats.*/\1/')
  loss=$(tail -n 1 "$out/train.csv" | cut -d, -f6)
  awk "BEGIN { exit !($score - $loss < 1e-4 && $loss - $score < 1e-4) }" || fail "score $score, validation $loss"

  # Held in fewer bytes, the matrices cost next to nothing: perplexity within 1% of f32's.
  for type in bf16 int8; do
    other=$("$tools/mamba-eval" --model "$out" --weights $type --score last.txt --device "$device" | sed 's/.*tokens, \([0-9.]*\) nats.*/\1/')
    awk "BEGIN { d = $other - $score; exit !(d < 0.01 && d > -0.01) }" || fail "$type: $other nats per token, f32 $score"
  done

  # The same seed, the same text; another seed, another.
  "$tools/mamba-generate" --model "$out" -n 60 --seed 4 --prompt 'the ' --device "$device" > a.txt
  "$tools/mamba-generate" --model "$out" -n 60 --seed 4 --prompt 'the ' --device "$device" --stats > b.txt 2> stats.txt
  "$tools/mamba-generate" --model "$out" -n 60 --seed 5 --prompt 'the ' --device "$device" > c.txt
  cmp a.txt b.txt || fail "the same seed gives another text"
  cmp -s a.txt c.txt && fail "another seed gives the same text"
  [ "$(wc -c < a.txt)" -eq 65 ] || fail "4 + 60 characters and a newline are not $(wc -c < a.txt)"
  grep -q 'generated: 60 tokens' stats.txt || fail "$(cat stats.txt)"

  # A text in two parts, the state saved between them, is the text in one.
  generate="$tools/mamba-generate --model $out --temperature 0 --device $device"
  $generate -n 20 --prompt 'my lord' > a.txt
  { $generate -n 8 --prompt 'my lord' --save-state half.state | tr -d '\n' && $generate -n 12 --load-state half.state; } > b.txt
  [ "$(tr -d '\n' < a.txt)" = "$(tr -d '\n' < b.txt)" ] || fail "in two parts: $(cat b.txt), in one: $(cat a.txt)"
done
use_device cpu

out=$(echo "m-$1" | tr : _)
# Start from another model.
"$tools/mamba-train" --data text.txt --init "$out" --preset tiny --out init --steps 3 --device cpu > log.txt 2>&1 || fail "$(cat log.txt)"
cmp -s "$out/tokenizer.json" init/tokenizer.json || fail "--init did not take the tokenizer"
expect 'cannot be given with --init' $train --init "$out" --out m --steps 3 --vocab byte
expect '--lr cannot be given with --resume' "$tools/mamba-train" --data text.txt --out init --resume --lr 1
expect 'not the one that the run' "$tools/mamba-train" --data last.txt --out init --resume --device cpu

# Batches, stops, log-probabilities.
generate="$tools/mamba-generate --model $out --temperature 0 --device cpu"
printf 'the\nmy lord\nQUEEN\n' > prompts.txt
$generate -n 15 --prompts prompts.txt > a.txt
for prompt in the 'my lord' QUEEN; do $generate -n 15 --prompt "$prompt"; echo; done | sed '$d' > b.txt
cmp a.txt b.txt || fail "a batch differs from its prompts alone"
$generate -n 15 --prompt the --prompt 'my lord' --prompt QUEEN > b.txt
cmp a.txt b.txt || fail "--prompt three times differs from --prompts"
$generate -n 15 --prompt 'my lord' > a.txt
stop=$(cut -c 12-14 a.txt)
$generate -n 15 --prompt 'my lord' --stop "$stop" > b.txt
[ "$(head -c $(($(wc -c < b.txt) - 1)) b.txt)$stop" = "$(head -c $(($(wc -c < b.txt) + 2)) a.txt)" ] || fail "--stop: $(cat b.txt)"
$generate -n 15 --prompt 'my lord' --logprobs 2 > b.txt
[ "$(grep -Ec '^\{"sequence":0,"id":[0-9]+,"logprob":-[0-9.e-]+,"text":".*","top":\[\{.*\},\{.*\}\]' b.txt)" -eq 15 ] || fail "$(cat b.txt)"
tail -n 1 b.txt | grep -q '"end":"count"' || fail "$(tail -n 1 b.txt)"

# Prompts from files and the standard input, to their last byte; the prompt left out; a line of JSON for each.
$generate -n 9 -p 'my lord' > a.txt
printf 'my lord' > prompt.txt
$generate -n 9 -f prompt.txt | cmp - a.txt || fail "--prompt-file"
$generate -n 9 --prompt-file - < prompt.txt | cmp - a.txt || fail "--prompt-file -"
$generate -n 9 --prompts - < prompt.txt | cmp - a.txt || fail "--prompts -"
[ "my lord$($generate -n 9 -f prompt.txt --no-echo)" = "$(cat a.txt)" ] || fail "--no-echo"
"$tools/mamba-generate" -m "$out" --device cpu --temperature 0 -n 9 -p 'my lord' | cmp - a.txt || fail "-m"
$generate -n 9 -p the -p 'my lord' --format json > b.txt
[ "$(wc -l < b.txt)" -eq 2 ] || fail "--format json: $(cat b.txt)"
grep -Eq '^\{"sequence":0,"text":".*","tokens":9,"end":"count","prompt":"the"\}$' b.txt || fail "--format json: $(cat b.txt)"
[ "my lord$(sed -n '2s/.*"text":"\([^"]*\)".*/\1/p' b.txt | sed 's/\\n/\n/g')" = "$(cat a.txt)" ] || fail "--format json: $(cat b.txt)"
$generate -n 9 -p the --format json --no-echo | grep -Eq '"end":"count"\}$' || fail "--format json --no-echo"

# Stop tokens: the one that comes fifth ends the text, and is not shown.
id=$($generate -n 9 -p 'my lord' --logprobs 0 | sed -n '5s/.*"id":\([0-9]*\).*/\1/p')
$generate -n 9 -p 'my lord' --stop-id 9999 --stop-id "$id" --format json > b.txt
grep -q '"end":"stop id"' b.txt || fail "--stop-id: $(cat b.txt)"
first=$($generate -n 9 -p 'my lord' --logprobs 0 | grep -n "\"id\":$id," | head -n 1 | cut -d: -f1)
grep -q "\"tokens\":$first," b.txt || fail "--stop-id: $(cat b.txt)"

# What cannot be is said before the model is loaded: there is none here.
for wrong in '--temperature -1' '--top-k -5' '--top-p 1.5' '--min-p -0.1' '--repetition-penalty 0' '--logprobs -1' '-n -1' '--stop-id -3'; do
  # shellcheck disable=SC2086
  expect "${wrong% *} is ${wrong#* }, expected" "$tools/mamba-generate" --model nowhere $wrong
done
expect '--format must be text or json' "$tools/mamba-generate" --model nowhere --format xml
expect 'exclude each other' "$tools/mamba-generate" --model nowhere -p a -f prompt.txt
expect '--window is 0, expected 1' "$tools/mamba-eval" --model nowhere --score last.txt --window 0
expect '--stride is -2, expected 1' "$tools/mamba-eval" --model nowhere --score last.txt --stride -2
# --top-p 0 is not its absence: the most likely token always.
[ "$("$tools/mamba-generate" -m "$out" --device cpu -n 9 -p 'my lord' --top-p 0)" = "$(cat a.txt)" ] || fail "--top-p 0"

# Logits that are no numbers (the last weight is NaN) are an error, never a short text.
cp -r "$out" nan
printf '\000\000\300\177' | dd of=nan/model.safetensors bs=1 seek=$(($(wc -c < nan/model.safetensors) - 4)) conv=notrunc 2> log.txt
for how in '' '--logprobs 1' '--temperature 1' '--format json'; do
  # shellcheck disable=SC2086
  "$tools/mamba-generate" -m nan -p the -n 6 --temperature 0 $how --device cpu > b.txt 2> log.txt && fail "NaN logits: $how: $(cat b.txt)"
  [ ! -s b.txt ] || fail "a text of NaN logits: $(cat b.txt)"
  grep -q 'the logits are not finite numbers' log.txt || fail "NaN logits: $how: $(cat log.txt)"
done
"$tools/mamba-eval" -m nan --score last.txt --device cpu > b.txt 2> log.txt && fail "score of NaN logits: $(cat b.txt)"
grep -q 'prediction 0 has no finite number of nats' log.txt || fail "score of NaN logits: $(cat log.txt)"
rm -rf nan

# An interrupt ends the text, and what there is of it is saved; in a prompt, or while the model is read, it leaves nothing. Text so far: the longest
# that the same command without an interrupt begins with.
rm -f cut.state
$generate -n 100000000 -p 'my lord' --save-state cut.state > b.txt 2> log.txt &
pid=$!
while [ "$(wc -c < b.txt)" -lt 50 ]; do sleep 0.05; done
kill -INT $pid
wait $pid || fail "an interrupted text left with status $?: $(cat log.txt)"
[ -s cut.state ] || fail "an interrupt lost the state"
made=$(($(wc -c < b.txt) - 8))
[ "$(cat b.txt; $generate -n 20 --load-state cut.state)" = "$(cat b.txt; $generate -n $((made + 20)) -p 'my lord' --no-echo | tail -c 21)" ] ||
  fail "the state of an interrupted text is another one"
awk 'BEGIN { for (i = 0; i < 400000; i++) printf "my lord the crown is not " }' > long.txt
$generate -f long.txt -n 1 --save-state lost.state > b.txt 2> log.txt &
pid=$!
sleep 1.5
kill -INT $pid
status=0
wait $pid || status=$?
[ $status -eq 1 ] || fail "an interrupted prompt left with status $status"
grep -q 'was stopped' log.txt || fail "an interrupted prompt: $(cat log.txt)"
[ ! -e lost.state ] && [ ! -s b.txt ] || fail "an interrupted prompt left something"
rm -f long.txt b.txt

# Tokens to and from files.
eval="$tools/mamba-eval --model $out --device cpu"
$eval --encode 'the crown is' --tokens-out ids.npy
printf 'the crown is' > crown.txt
[ "$($eval --encode-file crown.txt)" = "$($eval --encode 'the crown is')" ] || fail "--encode-file"
[ "$($eval --encode-file - < crown.txt)" = "$($eval --encode 'the crown is')" ] || fail "--encode-file -"
[ "$($eval --score - < last.txt)" = "$($eval --score last.txt)" ] || fail "--score -"
expect 'standard input is empty' $eval --encode-file - < /dev/null
[ "$($eval --decode ids.npy)" = 'the crown is' ] || fail "--decode: $($eval --decode ids.npy)"
[ "$($eval --encode 'the crown is' | wc -w)" -eq 12 ] || fail "--encode"
$generate --tokens ids.npy -n 9 --tokens-out more.npy
[ "$($eval --decode more.npy)" = "$($generate -n 9 --prompt 'the crown is')" ] || fail "--tokens-out: $($eval --decode more.npy)"
vocab=$(sed -n 's/.*"vocab_size": \([0-9]*\).*/\1/p' "$out/config.json") d_model=$(sed -n 's/.*"hidden_size": \([0-9]*\).*/\1/p' "$out/config.json")
layers=$(sed -n 's/.*"num_hidden_layers": \([0-9]*\).*/\1/p' "$out/config.json")
$eval --tokens ids.npy --logits logits.npy --hidden hidden.npy
[ "$(wc -c < logits.npy)" -eq $((128 + 4 * 12 * vocab)) ] || fail "logits.npy has $(wc -c < logits.npy) bytes"
[ "$(wc -c < hidden.npy)" -eq $((128 + 4 * 12 * d_model * (layers + 1))) ] || fail "hidden.npy has $(wc -c < hidden.npy) bytes"
for how in last mean; do
  $eval --texts prompts.txt --embed $how --output vectors.csv
  [ "$(wc -l < vectors.csv)" -eq 3 ] && [ "$(head -n 1 vectors.csv | tr , '\n' | wc -l)" -eq "$d_model" ] || fail "vectors.csv"
  $eval --tokens ids.npy --embed $how --output vectors.raw
  [ "$(wc -c < vectors.raw)" -eq $((4 * d_model)) ] || fail "vectors.raw has $(wc -c < vectors.raw) bytes"
done
tail -c $((4 * d_model)) hidden.npy > last.raw # the final norm's output at the last position
$eval --tokens ids.npy --embed last --output vectors.raw
cmp last.raw vectors.raw || fail "--embed last is not the end of --hidden"

# Scores: more context, no more nats for a model that has learnt something; choices.
for how in '--window 16' '--stride 8 --window 16' '--carry'; do
  $eval --score last.txt $how | grep -Eq '^[0-9]+ tokens, [0-9.]+ nats per token, perplexity [0-9.]+$' || fail "--score $how"
done
{ echo '{"context": "the crown is", "choices": [" not", "qqqq"], "answer": 0}'; echo; echo '{"context": "my", "choices": [" lord"]}'; } |
  sed 's/q/K/g' > choices.jsonl
$eval --choices choices.jsonl > a.txt
[ "$(cut -f 1,2,6 a.txt | tr '\t\n' ',;')" = '1,0,4;1,1,4;3,0,5;accuracy of 1: 1.0000 sum, 1.0000 per token, 1.0000 per byte;' ] || fail "--choices: $(cat a.txt)"

# What does not fit, or cannot be written.
"$tools/mamba-eval" --model "$out" --encode 'the crown' --tokens-out foreign.npy --device cpu
printf '\377' | dd of=foreign.npy bs=1 seek=136 conv=notrunc 2> log.txt
expect 'foreign.npy: token 2 is [0-9]*, the model knows 0 to' $eval --tokens foreign.npy --logits l.npy
printf 'no array' > bad.npy
expect 'bad.npy is not a valid .npy file' $eval --tokens bad.npy --logits l.npy
expect 'bad.npy is not a valid .npy file' $generate --tokens bad.npy --tokens-out l.npy
expect 'cannot write no/where.npy' $eval --tokens ids.npy --logits no/where.npy
expect 'cannot write no/where.npy' $eval --tokens ids.npy --logits l.npy --hidden no/where.npy
expect 'cannot write no/where.npy' $generate --tokens ids.npy -n 1 --tokens-out no/where.npy
expect 'cannot write no/where.state' $generate -n 0 --prompt the --save-state no/where.state
expect 'is the state of another model' "$tools/mamba-generate" --model init --load-state half.state --device cpu
expect 'is the state of another model' $generate --load-state half.state --weights bf16
expect '--weights is "f12", expected f32' $generate --weights f12
expect 'cannot read nowhere.state' $generate --load-state nowhere.state
expect '--nonsense: unknown option' $eval --nonsense
# Both files or neither: the first is not in its place before the second is on the disk.
echo old > l.npy
ln -s /dev/full full # a link, so that a defect costs no device
expect 'cannot write full: No space left' $eval --tokens ids.npy --logits l.npy --hidden full
[ "$(cat l.npy)" = old ] || fail "--logits was replaced, though --hidden failed"
# A limit on the size of files; a FIFO and a link are written into.
expect 'cannot write l.npy: File too large' sh -c "ulimit -f 1; exec $eval --tokens ids.npy --logits l.npy"
[ "$(cat l.npy)" = old ] || fail "--logits was replaced, though there was no room"
ln -s l.npy link
mkfifo fifo
cat fifo > piped.state &
$generate -n 0 --prompt the --save-state fifo > out.txt
wait
[ -p fifo ] && [ -s piped.state ] || fail "--save-state to a FIFO"
$generate -n 0 --prompt the --save-state link > out.txt
[ -L link ] && cmp l.npy piped.state || fail "--save-state to a link"
rm -f l.npy link full fifo piped.state out.txt
expect 'exclude each other' $eval --score last.txt --choices choices.jsonl
expect '--carry has no windows' $eval --score last.txt --carry --window 5
expect 'stride is 9' $eval --score last.txt --window 5 --stride 9
expect '--hidden are for --tokens' $eval --score last.txt --logits l.npy
expect 'array of 3 dimensions' $eval --tokens ids.npy --hidden hidden.csv
sed 's/: 0}/: 7}/' choices.jsonl > bad.jsonl
expect 'bad.jsonl: line 1: "answer" must be' $eval --choices bad.jsonl

# An interrupt saves, and the run goes on to the same bits.
rm log.txt
$train --out long --steps 4000 --device cpu > log.txt 2>&1 &
pid=$!
while ! grep -qs '^step' log.txt; do sleep 0.05; done
kill -INT $pid
wait $pid || fail "an interrupted run left with status $?"
grep -q 'stopped at step' log.txt || fail "not interrupted: $(tail -n 1 log.txt)"
"$tools/mamba-train" --data text.txt --out long --resume --device cpu > log.txt 2>&1 || fail "$(cat log.txt)"
$train --out unbroken --steps 4000 --device cpu > log.txt 2>&1 || fail "$(cat log.txt)"
cmp long/model.safetensors unbroken/model.safetensors || fail "an interrupted run differs"

# Damaged and foreign models.
cp -r "$out" damaged
size=$(wc -c < "$out/model.safetensors")
head -c $((size - 100)) "$out/model.safetensors" > damaged/model.safetensors
expect 'damaged/model.safetensors is not a valid safetensors file.*truncated' "$tools/mamba-generate" --model damaged --device cpu
expect 'truncated' "$tools/mamba-eval" --model damaged --score last.txt --device cpu
expect 'truncated' $train --init damaged --out m --steps 3 --device cpu
sed 's/"model_type": "mamba"/"model_type": "gpt2"/' "$out/config.json" > damaged/config.json
expect 'model_type is "gpt2", expected "mamba"' "$tools/mamba-generate" --model damaged --device cpu
printf 'the ~ crown' > unknown.txt
expect 'unknown.txt: character U+007E at byte 4' "$tools/mamba-eval" --model "$out" --score unknown.txt --device cpu
expect 'U+007E' "$tools/mamba-generate" --model "$out" --prompt '~' --device cpu
expect 'temperature is -1' "$tools/mamba-generate" --model "$out" --temperature -1 --device cpu
printf t > unknown.txt
expect 'at least 2 are needed' "$tools/mamba-eval" --model "$out" --score unknown.txt --device cpu
echo "language tools: all well on$tried"
