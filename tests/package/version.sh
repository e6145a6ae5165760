#!/bin/sh
# The version stands in several files; it is the same in all.
# usage: version.sh SOURCE_ROOT VERSION SHARED_LIBRARY
set -u
source=$1 version=$2 library=$3
failed=0
same() { # WHERE GOT
  [ "$2" = "$version" ] || { echo "$1 has version \"$2\", meson.build $version"; failed=1; }
}
part() { sed -n "s/^#define CLM_VERSION_$1 //p" "$source/include/clmamba/version.h"; }
same include/clmamba/version.h "$(part MAJOR).$(part MINOR).$(part PATCH)"
same CHANGELOG.md "$(sed -n 's/^## \([0-9.]*\).*/\1/p' "$source/CHANGELOG.md" | head -n 1)"
same packaging/clmamba.wrap "$(sed -n 's/^revision = v//p' "$source/packaging/clmamba.wrap")"
same packaging/debian/changelog "$(sed -n '1s/.*(\(.*\)-[^-]*).*/\1/p' "$source/packaging/debian/changelog")"
series=${version%.*}
for package in $(sed -n 's/^Package: \(libclmamba[0-9].*\)/\1/p' "$source/packaging/debian/control"); do
  [ "$package" = "libclmamba$series" ] || { echo "the package is $package, not libclmamba$series"; failed=1; }
done
soname=$(readelf -d "$library" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ "$soname" = "libclmamba.so.$series" ] || { echo "the soname is $soname, not libclmamba.so.$series"; failed=1; }
exit $failed
