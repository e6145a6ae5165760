#!/bin/sh
# Makes FOLDER ready for a build for 64-bit ARM and its tests under qemu: the libraries of Debian's arm64 packages,
# unpacked, not installed, and a Meson cross file. Needs a cross compiler, qemu-user-static and the package lists of
# this machine's apt. Used by tools/test.sh --all.
#
#   sh tests/support/arm64.sh FOLDER && meson setup BUILD --cross-file FOLDER/arm64.ini -Dopencl=disabled \
#     -Dopenblas=disabled -Dtools=disabled && meson test -C BUILD
set -eu
[ $# -eq 1 ] || { echo "usage: arm64.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd -- "$1" && pwd)
packages='libc6-dev linux-libc-dev libcmocka-dev libjansson-dev libxxhash-dev libpcre2-dev libutf8proc-dev libzip-dev uthash-dev libpopt-dev libcsv-dev'

# An apt of its own: another architecture, nothing installed.
state=$folder/apt
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
apt() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User="$(id -un)" \
    -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" "$@"
}
if [ ! -e "$folder/root/complete" ]; then
  apt update
  # shellcheck disable=SC2086
  apt install -y --no-install-recommends --download-only $packages >/dev/null
  rm -rf "$folder/root"
  mkdir -p "$folder/root"
  for package in "$state"/cache/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
  # A link from / would leave the root: libm.so does, and the linker would take libm.a, which lacks functions of libc.a.
  find "$folder/root" -type l -lname '/*' | while read -r link; do
    ln -sf "$folder/root$(readlink "$link")" "$link"
  done
  : >"$folder/root/complete"
fi

cat >"$folder/arm64.ini" <<END
[binaries]
c = 'aarch64-linux-gnu-gcc'
cpp = 'aarch64-linux-gnu-g++'
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
objcopy = 'aarch64-linux-gnu-objcopy'
pkgconfig = 'pkg-config'
exe_wrapper = ['qemu-aarch64-static', '-L', '$folder/root']

[built-in options]
c_args = ['--sysroot=$folder/root']
c_link_args = ['--sysroot=$folder/root']

[properties]
sys_root = '$folder/root'
pkg_config_libdir = '$folder/root/usr/lib/aarch64-linux-gnu/pkgconfig'

[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
END
