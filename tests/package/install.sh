#!/bin/sh
# Installs into an empty folder. There every tool starts, every link of the documents holds, and an outside program is
# built and run through pkg-config, with the shared and with the static library.
# usage: install.sh CC NM SOURCE_ROOT BUILD_ROOT INSIDE_ARCHIVE TOOL...
set -eu
cc=$1 nm=$2 source=$3 build=$4 inside=$5
shift 5
. "$source/tests/package/installed.sh"
[ -e "$lib/libclmamba.so" ] && [ -e "$lib/libclmamba.a" ] || { echo "a library is missing in $lib"; ls "$lib"; exit 1; }
unset LD_LIBRARY_PATH

for tool; do
  "$dest/bin/$tool" --version >"$work/log" 2>&1 || { echo "$tool does not start:"; cat "$work/log"; exit 1; }
done

# [text](path) of every page, relative to the page, without what follows "#".
doc=$dest/share/doc/clmamba
for page in LICENSE README.md CHANGELOG.md SECURITY.md docs/api.md examples/scan.c; do
  [ -e "$doc/$page" ] || { echo "$page was not installed in $doc"; exit 1; }
done
find "$doc" -name '*.md' | while read -r page; do
  grep -o ']([^)]*)' "$page" | sed 's/^](//; s/)$//; s/#.*//' | grep -v '^[a-z]*:' | while read -r link; do
    [ -z "$link" ] || [ -e "$(dirname "$page")/$link" ] || { echo "${page#"$doc/"} links to $link, which was not installed"; exit 1; }
  done
done

# The prefix as it would be, had the folder been the file system. pkg-config sees no other library: a program that is
# linked with the shared one needs nothing of what clmamba is built with.
mkdir "$work/pc"
sed "s|^prefix=.*|prefix=$dest|" "$pc" >"$work/pc/clmamba.pc"
PKG_CONFIG_LIBDIR=$work/pc
export PKG_CONFIG_LIBDIR
cp "$source/tests/package/consumer/main.c" "$source/docs/examples/scan.c" "$work"

# Every name that the library uses inside, as if the program used it, too.
"$nm" -g --defined-only "$inside" | awk 'NF == 3 && $3 !~ /^clm_/ { print "char " $3 ";" }' | sort -u >"$work/names.c"
[ "$(wc -l <"$work/names.c")" -gt 100 ] || { echo "only $(wc -l <"$work/names.c") inner names in $inside"; exit 1; }

compile() { # OUTPUT SOURCE FLAGS...
  output=$1; shift
  # shellcheck disable=SC2086
  quiet $cc -std=c11 -Wall -Wextra -Werror -fno-builtin "$@" -o "$output"
}
cd "$work"
# As the README has it; run without a word about where the library is.
# shellcheck disable=SC2046,SC2086
quiet $cc scan.c $(pkg-config --cflags --libs clmamba) -o scan
./scan
echo
# shellcheck disable=SC2046
compile shared main.c names.c $(pkg-config --cflags --libs clmamba)
./shared

rm -f "$lib"/libclmamba.so*
# shellcheck disable=SC2046
compile static main.c names.c $(pkg-config --static --cflags --libs clmamba)
./static
