#!/bin/sh
# What every tool says of itself: help, manual, completion, errors of the command line. $1: folder of the programs,
# $2: folder to work in.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
. "$here/expect.sh"
tools=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"

# usage OPTION... is a wrong command line: status 2, one line.
usage() {
  words=$1
  shift
  expect "$words" "$@"
  [ "$status" -eq 2 ] || fail "status $status for a wrong command line: $*"
}

for tool in info train generate eval bench; do
  program=$tools/mamba-$tool
  # Help fits the terminal, is the same in both forms, and has every part.
  for columns in 40 60 80 100; do
    COLUMNS=$columns "$program" --help > help.txt 2> said.txt || fail "mamba-$tool --help"
    [ ! -s said.txt ] || fail "mamba-$tool --help: $(cat said.txt)"
    awk -v most="$columns" 'length > most { print; bad = 1 } END { exit bad }' help.txt || fail "mamba-$tool --help is wider than $columns"
  done
  COLUMNS=100 "$program" -h | cmp - help.txt || fail "mamba-$tool -h differs from --help"
  (unset COLUMNS; "$program" --help) | awk 'length > 80 { bad = 1 } END { exit bad }' || fail "mamba-$tool --help is wider than 80"
  for part in "^Usage: mamba-$tool \[OPTION...\]" '^Options:' '^Common:' '^Exit status:' '  -h, --help ' '^  2 .*command line'; do
    grep -q -e "$part" help.txt || fail "mamba-$tool --help has no \"$part\""
  done
  "$program" --version | grep -qx "mamba-$tool [0-9.]*" || fail "mamba-$tool --version"

  # The manual has every option of the help, and tools that check pages find nothing.
  SOURCE_DATE_EPOCH=86400 "$program" --print-man > "mamba-$tool.1"
  grep -q '^.TH MAMBA-.* 1 1970-01-02 "clmamba' "mamba-$tool.1" || fail "heading of the manual of mamba-$tool"
  sed -n 's/^ *\(-[a-z], \)*--\([a-z0-9-]*\).*/\2/p' help.txt | while read -r option; do
    grep -q "\\\\-\\\\-$(echo "$option" | sed 's/-/\\\\-/g')\\\\fR" "mamba-$tool.1" || fail "the manual of mamba-$tool has no --$option"
  done
  if command -v mandoc > log.txt; then mandoc -T lint -W all "mamba-$tool.1" > log.txt || fail "$(cat log.txt)"; fi
  if command -v groff > log.txt; then
    groff -man -Tutf8 -ww -z "mamba-$tool.1" 2> log.txt && [ ! -s log.txt ] || fail "groff: mamba-$tool: $(cat log.txt)"
  fi

  usage '--nonsense: unknown option' "$program" --nonsense
  "$program" --help > /dev/full 2> said.txt && fail "mamba-$tool --help to a full disk"
  grep -q 'cannot write to the standard output' said.txt || fail "$(cat said.txt)"
done
rm -f said.txt log.txt

# The overview: every tool, every variable that the code looks at, the exit statuses as the tools have them.
overview=$here/../../tools/man/clmamba.7.in
for word in mamba-info mamba-train mamba-generate mamba-eval mamba-bench \
  $(grep -rhoE 'getenv\("[A-Z_]+"\)' "$here/../../src" "$here/../../tools" | cut -d'"' -f2 | sort -u | grep -vx 'HOME\|SOURCE_DATE_EPOCH'); do
  tr -d '\\' < "$overview" | grep -q -e "$word" || fail "clmamba(7) has no $word"
done
statuses() { sed -n "/^.SH EXIT STATUS/,/^\.SH [^E]/s/^\([a-z].*\)/\1/p" "$1" | tr -d '\\' | tr '\n' ' '; }
case $(statuses "$overview") in
  "$(statuses mamba-train.1)"*) ;;
  *) fail "exit statuses of clmamba(7): $(statuses "$overview"), of mamba-train(1): $(statuses mamba-train.1)" ;;
esac
if command -v mandoc > log.txt; then mandoc -T lint -W warning "$overview" > log.txt || fail "$(cat log.txt)"; fi

# Numbers: what is wrong with one names its option; a number that is given is not the default.
usage '--threads is "two", expected a whole number' "$tools/mamba-generate" --model m --threads two
usage '--threads is "", expected a whole number' "$tools/mamba-generate" --model m --threads=
usage '--threads is 99999999999, expected -2147483648 to' "$tools/mamba-generate" --model m --threads 99999999999
usage '--seed is 99999999999999999999, which is too large' "$tools/mamba-generate" --model m --seed 99999999999999999999
usage '--temperature is "warm", expected a number' "$tools/mamba-generate" --model m --temperature warm
usage '--top-p is nan, expected a finite number' "$tools/mamba-generate" --model m --top-p nan
usage '-n is "1x", expected a whole number' "$tools/mamba-generate" --model m -n 1x
usage '-n: missing argument' "$tools/mamba-generate" --model m -n
usage '--length is 0, expected 1 to' "$tools/mamba-bench" scan --length 0
usage '--repeat is 0, expected 1 to' "$tools/mamba-bench" scan --repeat 0
usage '--threads is -1, expected 0 or more' "$tools/mamba-eval" --model m --score s --threads -1
usage '--data FILE is missing' "$tools/mamba-train" --out m
usage 'there is no model "huge"' "$tools/mamba-bench" lm-decode --model huge
usage 'unexpected argument "conv"' "$tools/mamba-bench" scan conv

# Help lists what can be named.
for word in scan-bwd lm-decode limits all 2.8b; do
  "$tools/mamba-bench" --help | grep -q "^  $word " || fail "mamba-bench --help does not list $word"
done
"$tools/mamba-train" --help | grep -q '^  tiny ' || fail "mamba-train --help does not list its presets"
"$tools/mamba-train" --presets | grep -q '^  char-small ' || fail "mamba-train --presets"

# Completion: what bash would offer for a command line (the last word is the one to complete).
if command -v bash > log.txt; then
  cat > complete.bash << 'EOF'
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { :; } # only within a completion
"_${1//-/_}"
printf '%s\n' "${COMPREPLY[@]}"
EOF
  offers() { # WANTED WORDS...
    wanted=$1
    shift
    "$tools/$1" --print-completion > script.bash
    bash complete.bash ./script.bash "$@" > offered.txt 2> said.txt || fail "completion of $*: $(cat said.txt)"
    grep -qx -e "$wanted" offered.txt || fail "completion of \"$*\" has no $wanted: $(cat offered.txt)"
  }
  touch 'a file.txt'
  mkdir -p 'a folder'
  offers --model mamba-generate --mo
  offers --help mamba-info -
  offers bf16 mamba-generate --model m --weights b
  offers bf16 mamba-generate --weights = ''
  offers scan-bwd mamba-bench scan-
  offers 130m mamba-bench lm-decode --model 1
  offers char-small mamba-train --preset c
  offers 'a file.txt' mamba-generate --model m --prompts a
  offers 'a folder' mamba-train --out a
  ! grep -q 'a file' offered.txt || fail "--out offers a file"
fi
echo "help, manual, completion, numbers: all well"
