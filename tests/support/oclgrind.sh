#!/bin/sh
# Runs a test program under oclgrind, on its device alone, and fails if that saw a race, an access out of bounds or a
# read of nothing: its exit status does not tell. Used by tools/test.sh --all as meson's --wrapper.
set -u
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
CLM_TEST_DEVICES=oclgrind CLM_REQUIRE_PLATFORMS=oclgrind CLM_PROGRAM_CACHE=0
export CLM_TEST_DEVICES CLM_REQUIRE_PLATFORMS CLM_PROGRAM_CACHE
oclgrind --data-races --max-errors 20 --build-options -O0 --log "$log" "$@"
status=$?
if [ -s "$log" ]; then
  echo "oclgrind found:"
  cat "$log"
  exit 1
fi
exit $status
