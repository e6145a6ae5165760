# Sourced by the tests of an installed copy, which set "build" first: installs that into an empty folder. Sets work, dest
# (the prefix in that folder) and lib.
# shellcheck shell=sh disable=SC2034,SC2154
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quiet() { "$@" >"$work/log" 2>&1 || { echo "failed: $*"; tail -n 40 "$work/log"; exit 1; }; }
DESTDIR=$work/dest quiet meson install -C "$build" --no-rebuild

pc=$(find "$work/dest" -name clmamba.pc)
[ -n "$pc" ] || { echo "no clmamba.pc was installed"; exit 1; }
lib=$(dirname "$(dirname "$pc")")
prefix=$(sed -n 's/^prefix=//p' "$pc")
dest=$work/dest$prefix
