#!/bin/sh
# A CMake project finds an installed copy by find_package(clmamba), and asks for the versions that it can use.
# usage: cmake.sh SOURCE_ROOT BUILD_ROOT VERSION
set -eu
source=$1 build=$2 version=$3
. "$source/tests/package/installed.sh"
unset LD_LIBRARY_PATH
mkdir "$work/consumer"
cp "$source/tests/package/consumer/main.c" "$source/tests/package/consumer/CMakeLists.txt" "$work/consumer"

configure() { # FOLDER CMAKE_OPTION...
  folder=$1; shift
  cmake -S "$work/consumer" -B "$work/$folder" -DCMAKE_PREFIX_PATH="$dest" "$@"
}
series=${version%.*}
quiet configure build -DWANTED="$series"
quiet cmake --build "$work/build"
"$work/build/shared"
"$work/build/static"

# Before 1.0 another minor version is another interface.
for wanted in "$series.99" 0.1 "0.$((${series#*.} + 1))" 1; do
  if configure "not-$wanted" -DWANTED="$wanted" >"$work/log" 2>&1; then
    echo "find_package(clmamba $wanted) took version $version"; exit 1
  fi
done

# Where only the archive is, clmamba::clmamba is that one; where only the shared library is, there is no other.
mkdir "$work/away"
mv "$lib"/libclmamba.so* "$work/away"
quiet configure archive -DWANTED="$series"
quiet cmake --build "$work/archive"
"$work/archive/shared"
mv "$work/away"/* "$lib"
rm "$lib/libclmamba.a"
if configure no-archive -DWANTED="$series" >"$work/log" 2>&1; then echo "found a static library that is not there"; exit 1; fi
grep -q 'no component static' "$work/log" || { cat "$work/log"; exit 1; }
