#!/bin/sh
# Builds the Debian packages of this tree, as it is committed, into a folder: libclmamba0.2, libclmamba-dev,
# clmamba-tools. Needs dpkg-dev, debhelper and the packages that packaging/debian/control names under Build-Depends.
#
#   sh packaging/debian.sh FOLDER [DPKG_BUILDPACKAGE_OPTION...]
set -eu
[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2; }
root=$(cd -- "$(dirname -- "$0")/.." && pwd)
mkdir -p -- "$1"
folder=$(cd -- "$1" && pwd)
shift
version=$(sed -n '1s/.*(\(.*\)-[^-]*).*/\1/p' "$root/packaging/debian/changelog")
tree=clmamba-$version

cd -- "$folder"
rm -rf "$tree"
git -C "$root" archive --prefix="$tree/" HEAD | gzip -n9 >"clmamba_$version.orig.tar.gz"
tar -xzf "clmamba_$version.orig.tar.gz"
cp -r "$tree/packaging/debian" "$tree/debian"
cd "$tree"
dpkg-buildpackage -us -uc "$@"
