#!/bin/sh
# Installs what is missing, builds with warnings as errors and runs the tests.
#
#   sh tools/test.sh         gcc build, every test on every backend and OpenCL platform of this machine
#   sh tools/test.sh --clang also a clang build and its tests on the CPU
#   sh tools/test.sh --all   every fourth test on OpenCL, and more: clang, builds without the optional parts,
#                           sanitizers, the kernels under oclgrind, 64-bit ARM under qemu
#
# Works from any folder; builds under build-test/. Exit status 0 only if everything passed.
set -u
here=$(cd -- "$(dirname -- "$0")" && pwd) || exit 1
root=$(dirname -- "$here")
. "$here/setup.sh"

all=no clang=no
for argument; do
  case $argument in
    --all) all=yes clang=yes ;;
    --clang) clang=yes ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    *) die "unknown option \"$argument\" (there are --all and --clang)" ;;
  esac
done

cd -- "$root" || exit 1
started=$(date +%s)
passed=0 failed=0 skipped=0 table=

row() { # NAME PASSED FAILED SKIPPED SECONDS
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
  table="$table$(printf '%-28s %4d passed %4d failed %4d skipped %5d s' "$@")
"
}

count() { # LOG LABEL... -> sum of the numbers after "Label:" in meson's summary
  log=$1; shift; sum=0
  for label; do
    n=$(sed -n "s/^$label: *\\([0-9][0-9]*\\) *\$/\\1/p" "$log" | tail -n 1)
    sum=$((sum + ${n:-0}))
  done
  printf '%s' "$sum"
}

configure() { # NAME MESON_OPTION...
  name=$1; shift
  dir=build-test/$name
  mkdir -p build-test
  if [ -f "$dir/build.ninja" ]; then meson setup --reconfigure "$dir" "$@"
  else rm -rf "$dir"; meson setup "$dir" -Dwerror=true -Dtests=enabled "$@"
  fi >"build-test/$name.setup.log" 2>&1 || { tail -n 30 "build-test/$name.setup.log"; return 1; }
}

build() { # NAME
  ninja -C "build-test/$1" >"build-test/$1.build.log" 2>&1 ||
    { grep -E -A 12 'FAILED|error' "build-test/$1.build.log" | head -n 60; return 1; }
}

# Configures, builds and tests; a failed build counts as one failure.
suite() { # NAME "MESON_OPTIONS" "TEST_OPTIONS"
  name=$1; begun=$(date +%s)
  say "== $name"
  # shellcheck disable=SC2086
  if ! configure "$name" $2 || ! build "$name"; then
    row "$name" 0 1 0 $(($(date +%s) - begun)); return
  fi
  tests "$name" "$name" "$3" "$begun"
}

# Runs tests of the build BUILD.
tests() { # NAME BUILD "TEST_OPTIONS" BEGUN [WRAPPER]
  log=build-test/$1.test.log
  # shellcheck disable=SC2086
  meson test -C "build-test/$2" --print-errorlogs --logbase "testlog-$1" $3 ${5:+--wrapper "$5"} >"$log" 2>&1
  status=$?
  ok=$(count "$log" Ok 'Expected Fail') bad=$(count "$log" Fail 'Unexpected Pass' Timeout)
  if [ "$bad" -gt 0 ] || [ $status -ne 0 ]; then grep -v -E '^ *[0-9]+/[0-9]+ .* OK ' "$log" | tail -n 150; fi
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ]; then say "no test ran"; bad=1; fi
  row "$1" "$ok" "$bad" "$(count "$log" Skipped)" $(($(date +%s) - $4))
}

# A platform that is installed here must be tested: a driver that shows no device then is a failure, not a skip.
platforms() {
  list=
  for name in pocl rusticl; do [ ! -e "/etc/OpenCL/vendors/$name.icd" ] || list="$list${list:+,}$name"; done
  printf '%s' "$list"
}

if [ $clang = yes ]; then install_missing "$packages_build" "$packages_test" "$packages_all"
else install_missing "$packages_build" "$packages_test"
fi
CLM_REQUIRE_PLATFORMS=${CLM_REQUIRE_PLATFORMS-$(platforms)}
export CLM_REQUIRE_PLATFORMS
say "required OpenCL platforms: ${CLM_REQUIRE_PLATFORMS:-none}"

begun=$(date +%s)
sh "$here/format.sh" --check
case $? in
  0) row format 1 0 0 $(($(date +%s) - begun)) ;;
  77) row format 0 0 1 $(($(date +%s) - begun)) ;;
  *) row format 0 1 0 $(($(date +%s) - begun)) ;;
esac

# Of the tests on OpenCL devices, most of which is compiling, --all takes every fourth.
[ $all = no ] || export CLM_TEST_EVERY=1,4
suite gcc '-Dtools=enabled' ''
unset CLM_TEST_EVERY
[ $clang = no ] || . "$here/test-clang.sh"
[ $all = no ] || . "$here/test-all.sh"

say ''
printf '%s' "$table"
say "$passed passed, $failed failed, $skipped skipped in $(($(date +%s) - started)) s"
[ $failed -eq 0 ]
