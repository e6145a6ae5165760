#!/bin/sh
# Installs into an empty folder and builds a small outside program against it through pkg-config, with the shared and
# with the static library.
# usage: install.sh CC SOURCE_ROOT BUILD_ROOT
set -eu
cc=$1 source=$2 build=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DESTDIR=$work/dest meson install -C "$build" --no-rebuild >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

pc=$(find "$work/dest" -name clmamba.pc)
[ -n "$pc" ] || { echo "no clmamba.pc was installed"; exit 1; }
lib=$(dirname "$(dirname "$pc")")
[ -e "$lib/libclmamba.so" ] && [ -e "$lib/libclmamba.a" ] || { echo "a library is missing in $lib"; ls "$lib"; exit 1; }

# The prefix as it would be, had the folder been the file system; pkg-config escapes the spaces of a path.
mkdir "$work/pc"
prefix=$(sed -n 's/^prefix=//p' "$pc")
sed "s|^prefix=.*|prefix=$work/dest$prefix|" "$pc" >"$work/pc/clmamba.pc"
PKG_CONFIG_PATH=$work/pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export PKG_CONFIG_PATH
cp "$source/tests/package/consumer/main.c" "$work/main.c"

compile() { # OUTPUT FLAGS...
  output=$1; shift
  # shellcheck disable=SC2086
  $cc -std=c11 -Wall -Wextra -Werror $(pkg-config --cflags clmamba) -o "$output" "$work/main.c" "$@"
}
# shellcheck disable=SC2046
compile "$work/shared" $(pkg-config --libs clmamba)
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$work/shared"

rm -f "$lib"/libclmamba.so*
# shellcheck disable=SC2046
compile "$work/static" $(pkg-config --static --libs clmamba)
"$work/static"
