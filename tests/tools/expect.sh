# Sourced by the tests of the tools.
# shellcheck shell=sh

fail() { echo "FAILED: $*"; exit 1; }

# A driver's threads that end while LeakSanitizer stops the process can crash it: it looks at the CPU backend only.
asan_options=${ASAN_OPTIONS:-}
use_device() {
  ASAN_OPTIONS=$asan_options
  [ "$1" = cpu ] || ASAN_OPTIONS=$asan_options:detect_leaks=0
  export ASAN_OPTIONS
}

# expect WORDS COMMAND...: fails with one message that has WORDS in it, and makes no file.
expect() {
  words=$1
  shift
  before=$(find . | sort)
  status=0
  "$@" > out.txt 2> err.txt || status=$?
  [ $status -ne 0 ] && [ $status -lt 100 ] || fail "status $status: $*"
  [ "$(wc -l < err.txt)" -eq 1 ] || fail "not one line: $*: $(cat err.txt)"
  grep -q -- "$words" err.txt || fail "\"$words\" is not in: $(cat err.txt)"
  rm -f out.txt err.txt
  [ "$before" = "$(find . | sort)" ] || fail "files were made: $*"
}
