#!/bin/sh
# Every public header compiles alone as C11 and as C++17 without a warning; all but <clmamba/opencl.h> do so where
# there are no OpenCL headers.
# usage: headers.sh CC CXX INCLUDE_DIR HEADER...
set -u
cc=$1 cxx=$2 include=$3
shift 3
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/CL"
echo '#error "the OpenCL headers are asked for"' >"$work/CL/cl.h"
failed=0

compiles() { # COMPILER STANDARD LANGUAGE HEADER EXTRA...
  compiler=$1 standard=$2 language=$3 header=$4
  shift 4
  printf '#include <%s>\n#include <%s>\nint main(void) { return 0; }\n' "$header" "$header" |
    $compiler "-std=$standard" -Wall -Wextra -Wpedantic -Werror -fsyntax-only "$@" "-I$include" -x "$language" - || {
    echo "$header does not compile alone as $standard"
    failed=1
  }
}

for header; do
  header=clmamba/${header##*/clmamba/}
  case $header in
    clmamba/opencl.h) set -- ;;
    *) set -- "-I$work" ;;
  esac
  compiles "$cc" c11 c "$header" "$@"
  compiles "$cxx" c++17 c++ "$header" "$@"
done
exit $failed
