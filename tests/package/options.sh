#!/bin/sh
# Meson's summary says what a build has and why it lacks the rest; a suite that is asked for by name fails where its tests
# cannot be built.
# usage: options.sh SOURCE_ROOT
set -eu
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

configured() { # NAME OPTION...
  name=$1; shift
  meson setup "$work/$name" "$source" "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }
}
says() { # PART STATE
  sed -n "s/^ *$1 *: *//p" "$work/log" | grep -q -x -F -e "$2" && return
  echo "the summary of $name does not say \"$1: $2\":"; sed -n '/^  Parts/,/^$/p' "$work/log"; exit 1
}
fails() { # SUITE WHY
  if meson test -C "$work/$name" --no-rebuild --suite "$1" --print-errorlogs >"$work/log" 2>&1; then
    echo "--suite $1 passed in $name"; cat "$work/log"; exit 1
  fi
  grep -q -e "$2" "$work/log" || { cat "$work/log"; exit 1; }
}

configured disabled -Dopencl=disabled -Dopenblas=disabled -Dtools=disabled -Dtests=disabled -Ddocs=disabled
says OpenCL 'NO (-Dopencl=disabled)'
says CLBlast 'NO (no OpenCL)'
says OpenBLAS 'NO (-Dopenblas=disabled)'
says tools 'NO (-Dtools=disabled)'
says tests 'NO (-Dtests=disabled)'
says docs 'NO (-Ddocs=disabled)'
fails ops '-Dtests=disabled'

# As if popt, cmocka and CMake were not installed.
mkdir "$work/pc"
for module in jansson libxxhash libpcre2-8 libutf8proc libzip; do
  cp "$(pkg-config --variable=pcfiledir "$module")/$module.pc" "$work/pc"
done
mkdir "$work/bin"
echo "$PATH" | tr : '\n' | while read -r folder; do cp -asn "$folder/." "$work/bin" 2>/dev/null || true; done
rm -f "$work/bin/cmake"
PATH=$work/bin PKG_CONFIG_LIBDIR=$work/pc PKG_CONFIG_PATH='' configured bare -Dopencl=disabled
says OpenBLAS 'NO (openblas was not found)'
says tools 'NO (popt was not found)'
says tests 'NO (cmocka was not found)'
says docs YES
says reference 'NO (-Dreference=disabled)'
says 'CMake package' 'NO (cmake was not found)'
fails ops 'cmocka was not found'
fails grid 'cmocka was not found'
