#!/bin/sh
# The shared library and the installed archive export the names of a list, and nothing else.
# usage: symbols.sh NM SHARED ARCHIVE LIST [HEADER...]     HEADER: its functions are not in this build
set -u
nm=$1 shared=$2 archive=$3 list=$4
shift 4
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
absent=
for header; do absent="$absent $(grep -o 'clm_[a-z0-9_]*(' "$header" | tr -d '(')"; done
printf '%s\n' $absent | sort -u >"$work/absent"
LC_ALL=C sort "$list" | grep -v -x -F -f "$work/absent" >"$work/wanted"
failed=0

same() { # LIBRARY NM_OPTION...
  library=$1; shift
  "$nm" "$@" --defined-only "$library" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort >"$work/got"
  [ -s "$work/got" ] || { echo "$library exports nothing"; failed=1; return; }
  diff "$work/wanted" "$work/got" >"$work/diff" && return
  failed=1
  echo "$library does not export what $list has:"
  sed -n 's/^< \(.*\)/  missing: \1/p; s/^> \(.*\)/  not in the list: \1/p' "$work/diff"
}
same "$shared" -D
same "$archive" -g
[ $failed -eq 0 ] || echo "A new public function needs its line in $list; one that is gone breaks programs (docs/api.md, \"Versions\")."
exit $failed
