#!/bin/sh
# run.sh BUILD SECONDS [NAME...]: builds the fuzzers of file readers in BUILD with clang and runs each (or those named) so
# long. Seeds and what is found interesting lie in BUILD/corpus, a failing input in BUILD/failures.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1 seconds=$2
shift 2
[ -f "$build/build.ninja" ] ||
  CC=${FUZZ_CC:-clang} meson setup "$build" "$here/../../.." -Dfuzzers=true -Db_sanitize=address,undefined \
    -Db_lundef=false --buildtype=debug -Doptimization=1 -Dopencl=disabled -Dtools=disabled -Ddocs=disabled
names=${*:-$(sed -n "s/.*foreach name : \[\(.*\)\].*/\1/p" "$here/meson.build" | tr -d "',")}
for name in $names; do ninja -C "$build" "tests/fuzz/loaders/fuzz_$name" >/dev/null; done
python3 "$here/seeds.py" "$here/../../fixtures/models" "$build/seeds"
mkdir -p "$build/failures"
for name in $names; do
  mkdir -p "$build/corpus/$name"
  echo "== $name"
  "$build/tests/fuzz/loaders/fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=10 \
    -max_len=65536 -artifact_prefix="$build/failures/$name-" -print_final_stats=1 -verbosity=0 \
    "$build/corpus/$name" "$build/seeds/$name"
done
