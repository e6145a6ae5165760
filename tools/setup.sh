# Sourced by test.sh and quickstart.sh: where the tree is, and what a fresh Debian or Ubuntu machine lacks.
# shellcheck shell=sh

LC_ALL=C.UTF-8
export LC_ALL

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# package|what shows that it is here: cmd NAME, pc NAME (pkg-config), file PATH
# Only what is missing is installed, so that a hand-made Meson or another BLAS is left alone.
packages_build='
gcc|cmd cc
g++|cmd c++
libc6-dev|file /usr/include/stdlib.h
meson|cmd meson
ninja-build|cmd ninja
pkg-config|cmd pkg-config
ocl-icd-opencl-dev|pc OpenCL
opencl-headers|file /usr/include/CL/cl.h
libclblast-dev|pc clblast
libopenblas-pthread-dev|pc openblas
libjansson-dev|pc jansson
libxxhash-dev|pc libxxhash
libpcre2-dev|pc libpcre2-8
libutf8proc-dev|pc libutf8proc
libzip-dev|pc libzip
uthash-dev|file /usr/include/uthash.h
libpopt-dev|pc popt
libcsv-dev|file /usr/include/csv.h
'
packages_test='
libcmocka-dev|pc cmocka
pocl-opencl-icd|file /etc/OpenCL/vendors/pocl.icd
mesa-opencl-icd|file /etc/OpenCL/vendors/mesa.icd
'
packages_all='
doxygen|cmd doxygen
clang|cmd clang
clang-format|cmd clang-format
oclgrind|cmd oclgrind
clang-15|cmd clang-15
llvm-spirv-15|cmd llvm-spirv-15
spirv-tools|cmd spirv-val
rocm-device-libs|file /usr/lib/x86_64-linux-gnu/amdgcn/bitcode
gcc-aarch64-linux-gnu|cmd aarch64-linux-gnu-gcc
qemu-user-static|cmd qemu-aarch64-static
'

is_here() { # cmd|pc|file NAME
  case $1 in
    cmd) command -v "$2" >/dev/null 2>&1 ;;
    pc) pkg-config --exists "$2" 2>/dev/null ;;
    file) [ -e "$2" ] ;;
  esac
}

missing_packages() { # LIST
  printf '%s\n' "$1" | while IFS='|' read -r package check; do
    [ -n "$package" ] || continue
    # shellcheck disable=SC2086
    is_here $check || printf '%s ' "$package"
  done
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else return 127
  fi
}

# Installs what is missing of the lists; touches nothing, and needs no rights, where all is here.
install_missing() { # LIST...
  lists=$(printf '%s' "$@")
  missing=$(missing_packages "$lists")
  [ -n "$missing" ] || return 0
  say "missing packages: $missing"
  command -v apt-get >/dev/null 2>&1 || die "no apt-get here: install the packages above by hand"
  [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1 || die "installing packages needs root or sudo"
  as_root apt-get update -qq || say "apt-get update failed; trying with the lists there are"
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    die "apt-get could not install: $missing"
  missing=$(missing_packages "$lists")
  [ -z "$missing" ] || die "still missing after the installation: $missing"
}

# Mesa's OpenCL on the processor shows its device only when asked to.
RUSTICL_ENABLE=${RUSTICL_ENABLE-llvmpipe}
export RUSTICL_ENABLE
