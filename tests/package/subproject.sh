#!/bin/sh
# A Meson project with this tree as subprojects/clmamba finds it as the dependency "clmamba".
# usage: subproject.sh SOURCE_ROOT
set -eu
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/subprojects"
ln -s "$source" "$work/subprojects/clmamba"
cp "$source/tests/package/consumer/main.c" "$source/tests/package/consumer/meson.build" "$work"
quiet() { "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }; }
quiet meson setup "$work/build" "$work" --wrap-mode=nodownload --buildtype=debug -Ddefault_library=static \
  -Dclmamba:tests=disabled -Dclmamba:tools=disabled -Dclmamba:docs=disabled
quiet ninja -C "$work/build"
"$work/build/consumer"
