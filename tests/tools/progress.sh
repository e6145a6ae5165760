#!/bin/sh
# Progress on a terminal, on a dumb one, and on none. $1: the program of progress.c, $2: folder to work in.
set -eu
. "$(dirname -- "$0")/expect.sh"
program=$(realpath -- "$1")
rm -rf "$2"
mkdir -p "$2"
cd "$2"
command -v script > log.txt || { echo "passed over: there is no script(1) to make a terminal"; exit 0; }

# on TERM COLUMNS: what the terminal gets, a line for each time that the cursor goes back.
on() {
  TERM=$1 script -qec "stty cols $2; $program" all.txt < /dev/null > log.txt || fail "script: $(cat log.txt)"
  sed -e '/^Script /d' all.txt | tr '\r' '\n' | sed "s/$(printf '\033')\[K//g" | sed '/^$/d' > lines.txt
}

"$program" > out.txt 2> plain.txt
[ "$(cat plain.txt)" = 'a line that stays' ] && [ ! -s out.txt ] || fail "without a terminal: $(cat plain.txt)"

for columns in 80 60; do
  on xterm $columns
  awk -v most=$((columns - 1)) 'length > most { bad = 1 } END { exit bad }' lines.txt || fail "wider than $columns: $(cat lines.txt)"
  grep -q '^compiling the kernels' lines.txt || fail "a task that says nothing is not shown: $(cat lines.txt)"
  grep -Eq '^a note  [3-9] s$' lines.txt || fail "a note is not shown: $(cat lines.txt)"
  grep -qx 'a line that stays' lines.txt || fail "the line: $(cat lines.txt)"
  grep -Eq '^\[#+\.+\]  50%  half$' lines.txt || fail "the bar: $(cat lines.txt)"
  grep -q quick lines.txt && fail "a task of 0.2 s is shown: $(cat lines.txt)"
done

on dumb 80
grep -q "$(printf '\033')" all.txt && fail "a dumb terminal gets escapes"
grep -q '^compiling the kernels' lines.txt || fail "a dumb terminal does not show a task: $(cat lines.txt)"
[ "$(wc -l < lines.txt)" -le 4 ] || fail "a dumb terminal gets many lines: $(cat lines.txt)"
echo "progress: all well"
