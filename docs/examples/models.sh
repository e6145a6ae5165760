#!/bin/sh
# The examples that need a model, on one that the first of them makes.
# usage: models.sh WORK NEW_MODEL GENERATE LOGITS FORK
set -eu
work=$1
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }
new_model=$(absolute "$2") generate=$(absolute "$3") logits=$(absolute "$4") fork=$(absolute "$5")
rm -rf "$work"
mkdir -p "$work"
cd "$work"
fail() { echo "FAILED: $*"; exit 1; }

"$new_model" . || fail "new_model"
for file in config.json model.safetensors tokenizer.json; do [ -s "$file" ] || fail "new_model left no $file"; done
[ "$("$generate" . "the fox" | wc -m)" -gt 107 ] || fail "generate: not 7 + 100 characters"
"$generate" . "the fox" | grep -q '^the fox' || fail "generate does not begin with its prompt"
"$generate" nowhere x 2> error.txt > out.txt && fail "generate found a model nowhere"
grep -q 'nowhere' error.txt || fail "$(cat error.txt)"
"$logits" . "the fox" > out.txt || fail "logits"
[ "$(grep -c '^token [0-9]*, ln p -[0-9.]*$' out.txt)" -eq 3 ] || fail "$(cat out.txt)"
[ "$(tail -n 1 out.txt | wc -w)" -eq 32 ] || fail "the embedding has not 32 numbers: $(tail -n 1 out.txt)"
"$fork" . "the fox" state > out.txt || fail "fork"
[ -s state ] || fail "fork saved no state"
[ "$(tr -cd '[' < out.txt | wc -c)" -eq 60 ] || fail "fork: not 3 times 20 tokens: $(cat out.txt)"
echo "examples: all well"
