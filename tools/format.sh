#!/bin/sh
# Formats the C files of the tree by .clang-format.
#
#   sh tools/format.sh           rewrites what is not formatted
#   sh tools/format.sh --check   names it, changes nothing, and fails; also names commits of this branch whose subject
#                                is not "area: what changes" in at most 60 characters, which is not a failure
#
# Needs clang-format 14, as Debian 12 has it: other versions lay some lines out differently. Without it the exit status
# is 77, which Meson counts as skipped. The kernels (cl/*.cl) are laid out by hand.
set -eu
cd -- "$(dirname -- "$0")/.."

case ${1-} in
  '' | --check) ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
esac

if [ "${1-}" = --check ] && git rev-parse --verify -q '@{upstream}' >/dev/null 2>&1; then
  git log --no-merges --format=%s '@{upstream}..HEAD' | while IFS= read -r subject; do
    case $subject in
      *:\ *) [ ${#subject} -gt 60 ] || continue ;;
    esac
    printf 'note: a subject is "area: what changes" in at most 60 characters: %s\n' "$subject"
  done
fi

format=
for name in clang-format-14 clang-format; do
  command -v "$name" >/dev/null 2>&1 && "$name" --version | grep -q 'version 14\.' && format=$name && break
done
[ -n "$format" ] || { echo "clang-format 14 is not here"; exit 77; }

files() { find docs include src tests tools -name '*.[ch]' -print0; }
if [ "${1-}" = --check ]; then files | xargs -0 "$format" --dry-run --Werror
else files | xargs -0 "$format" -i
fi
