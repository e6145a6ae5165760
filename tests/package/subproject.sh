#!/bin/sh
# A Meson project that is built for debugging, with this tree as subprojects/clmamba and the .wrap of packaging/, finds
# the dependency "clmamba", shared and static, with optimised kernels and without tools, tests and documents; its
# installation into an empty prefix has a library that an outside program finds.
# usage: subproject.sh SOURCE_ROOT CC
set -eu
source=$1 cc=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/subprojects"
ln -s "$source" "$work/subprojects/clmamba"
cp "$source/packaging/clmamba.wrap" "$work/subprojects"
cp "$source/tests/package/consumer/main.c" "$source/tests/package/consumer/meson.build" "$work"
quiet() { "$@" >"$work/log" 2>&1 || { echo "failed: $*"; tail -n 40 "$work/log"; exit 1; }; }
quiet meson setup "$work/build" "$work" --wrap-mode=nodownload --buildtype=debug --prefix="$work/prefix"

ninja -C "$work/build" -t commands >"$work/commands"
for unwanted in mamba-info example_ test_; do
  ! grep -q "$unwanted" "$work/commands" || { echo "$unwanted... is built in a subproject"; exit 1; }
done
# The last of several -O counts.
grep -- '-DSIMD_SUFFIX=' "$work/commands" >"$work/kernels" || { echo "no kernels in the build"; exit 1; }
sed 's/.* -O\([^ ]*\).*/\1/' "$work/kernels" | grep -v -x '[23]' >"$work/slow" &&
  { echo "$(wc -l <"$work/slow") of $(wc -l <"$work/kernels") kernel files are built without optimisation"; exit 1; }

quiet ninja -C "$work/build"
"$work/build/consumer"

quiet meson install -C "$work/build" --no-rebuild
flags=$(PKG_CONFIG_LIBDIR=$(dirname "$(find "$work/prefix" -name clmamba.pc)") pkg-config --cflags --libs clmamba)
# shellcheck disable=SC2086
quiet $cc "$source/docs/examples/scan.c" $flags -o "$work/scan"
"$work/scan"
echo
"$work/prefix/bin/consumer"

if ldd "$work/build/consumer_static" | grep -q libclmamba; then echo "consumer_static needs the shared library"; exit 1; fi
"$work/build/consumer_static"

# A project that asks for static libraries when it is set up has the archive as the dependency.
quiet meson setup "$work/static" "$work" --wrap-mode=nodownload --buildtype=debug -Dclmamba:default_library=static
ninja -C "$work/static" -t commands consumer >"$work/commands"
grep -q 'libclmamba\.a' "$work/commands" || { echo "default_library=static has no libclmamba.a"; exit 1; }
! grep -q 'libclmamba\.so' "$work/commands" || { echo "default_library=static builds a shared library"; exit 1; }
