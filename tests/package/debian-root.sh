#!/bin/sh
# The README by hand, from nothing: two fresh Debian systems in folders (debootstrap), as a newcomer and a user of the
# Debian packages have them. Not part of the suite: it needs root, debootstrap, git and this machine's package sources,
# and takes as long as a build. docs/testing.md has what it said, and when.
#
#   sh tests/package/debian-root.sh FOLDER
#
# In the first system: the README's apt line, build and installation into /usr/local, its example; another prefix; the
# package suite (pkg-config, CMake, subproject, static); the Debian packages and lintian. In the second, only the
# packages: tools, manual pages, and programs through pkg-config and CMake, shared and static. FOLDER/base is kept, so
# that a second run need not fetch it again; where CCACHE_DIR is set, the first system uses that cache.
# shellcheck disable=SC2016
set -eu
[ $# -eq 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "debian-root.sh needs root" >&2; exit 2; }
source=$(cd -- "$(dirname -- "$0")/../.." && pwd)
mkdir -p -- "$1"
cd -- "$1"
folder=$(pwd)
# What a killed run left mounted would be removed with the old system.
for place in $(awk -v folder="$folder/" 'index($2, folder) == 1 { print $2 }' /proc/self/mounts); do umount "$place"; done
mounted=
leave() { for place in $mounted; do umount "$place" 2>/dev/null || umount -l "$place"; done; }
trap leave EXIT
trap 'exit 1' INT TERM

attach() { # WHAT WHERE
  mkdir -p "$2"
  mount --bind "$1" "$2"
  mounted="$2 $mounted"
}
new_system() { # NAME
  rm -rf "${folder:?}/$1"
  cp -a "$folder/base" "$folder/$1"
  for place in /dev /proc /sys; do attach $place "$folder/$1$place"; done
}
inside() { # NAME COMMAND: by a shell in the system's folder of sources
  system=$1; shift
  chroot "$folder/$system" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
    LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive ${CCACHE_DIR:+CCACHE_DIR=/ccache CCACHE_NOHASHDIR=1} \
    sh -ec "cd /usr/src/clmamba 2>/dev/null || cd /usr/src; $*"
}
step() { # TITLE SYSTEM COMMAND
  title=$1 system=$2; shift 2
  begun=$(date +%s)
  if inside "$system" "$*" >"$folder/step.log" 2>&1; then result=ok; else result=FAILED; fi
  { echo "== $title: $result"; cat "$folder/step.log"; } >>"$folder/log"
  printf '%-60s %6s %5d s\n' "$title" $result $(($(date +%s) - begun))
  [ $result = ok ] || { tail -n 40 "$folder/step.log"; exit 1; }
}
readme() { # COMMAND: as it stands in the README, or the README has changed and this script must
  grep -q -F -x -e "$1" -e "sudo $1" "$source/README.md" || { echo "README.md has no line \"$1\"" >&2; exit 1; }
  printf '%s' "$1"
}
cc_line=$(readme 'cc scan.c $(pkg-config --cflags --libs clmamba) -o scan')
build_line=$(readme 'meson setup build && ninja -C build')
install_line=$(readme 'meson install -C build')

: >"$folder/log"
if [ ! -e base/complete ]; then
  # shellcheck disable=SC2046
  set -- $(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | head -n 1)
  rm -rf base
  debootstrap --variant=minbase "$2" base "$1" >"$folder/log" 2>&1 || { tail "$folder/log"; exit 1; }
  # Where this machine gets its packages from, and how.
  cp -a /etc/apt/. base/etc/apt/
  : >base/complete
fi
cp -L /etc/resolv.conf /etc/hosts base/etc/

new_system builder
[ -z "${CCACHE_DIR-}" ] || attach "$CCACHE_DIR" "$folder/builder/ccache"
git -C "$source" archive --prefix=clmamba/ HEAD | tar -x -C builder/usr/src
apt_line=$(sed -n 's/^sudo \(apt install .*\)/\1/p' "$source/README.md")
step 'README: apt install' builder "apt-get update; $apt_line --yes"
[ -z "${CCACHE_DIR-}" ] || step 'ccache' builder 'apt-get install -y ccache; ln -s ../../bin/ccache /usr/local/bin/cc'
step 'README: build' builder "$build_line"
step 'README: install into /usr/local' builder "$install_line"
step 'tools start' builder 'cd /; for tool in info train generate eval bench; do mamba-$tool --version; done'
step 'README: example' builder "cp docs/examples/scan.c /root; cd /root; $cc_line; ./scan"
step 'README: two tools' builder 'cd /root; cat /usr/share/common-licenses/* >book.txt
  mamba-train --data book.txt --out model --preset char-small --steps 3
  mamba-generate --model model --prompt "It was" -n 20; mamba-eval --model model --score book.txt >/dev/null'
step 'another prefix' builder 'ninja -C build uninstall; ldconfig; meson configure build --prefix /opt/clmamba; meson install -C build
  for tool in info train generate eval bench; do /opt/clmamba/bin/mamba-$tool --version; done
  export PKG_CONFIG_PATH=$(dirname $(find /opt/clmamba -name clmamba.pc))
  cc docs/examples/scan.c $(pkg-config --cflags --libs clmamba) -o scan; ./scan; rm -r scan /opt/clmamba'
step 'package suite: pkg-config, CMake, subproject, static' builder 'apt-get install -y cmake; meson setup --reconfigure build
  meson test -C build --suite package --suite docs --print-errorlogs'
step 'without cmocka --suite ops fails' builder 'apt-get remove -y libcmocka-dev; meson setup bare
  ! meson test -C bare --no-rebuild --suite ops; rm -r bare'
step 'Debian packages' builder 'apt-get install -y dpkg-dev debhelper git lintian libcmocka-dev
  git init -q; git add -A; git -c user.name=a -c user.email=a@b commit -q -m tree
  DEB_BUILD_OPTIONS=nocheck sh packaging/debian.sh /usr/src/packages'
step 'lintian' builder 'cd /usr/src/packages; lintian --allow-root --fail-on error --info --display-info *.changes'

new_system user
mkdir user/usr/src/packages
cp builder/usr/src/packages/*.deb user/usr/src/packages
step 'install the packages' user 'apt-get update; apt-get install -y ./packages/libclmamba*.deb ./packages/clmamba-tools*.deb man-db gcc pkgconf'
step 'tools start; man mamba-train' user 'for tool in info train generate eval bench; do mamba-$tool --version; done
  mamba-info; man mamba-train >/dev/null; man clmamba >/dev/null'
step 'a program, pkg-config' user 'cp /usr/share/doc/libclmamba-dev/examples/scan.c .
  cc scan.c $(pkg-config --cflags --libs clmamba) -o scan; ./scan'
mkdir user/usr/src/consumer
cp "$source"/tests/package/consumer/* user/usr/src/consumer
step 'programs, CMake and static' user 'apt-get install -y cmake make libclblast-dev libjansson-dev libpcre2-dev \
    libutf8proc-dev libxxhash-dev libzip-dev ocl-icd-opencl-dev
  cc consumer/main.c -l:libclmamba.a $(pkg-config --static --libs clmamba | sed s/-lclmamba//) -o static; ./static
  cmake -S consumer -B out -DWANTED=0.2; cmake --build out; out/shared; out/static'
step 'removal leaves nothing' user 'apt-get purge -y libclmamba0.2 libclmamba-dev clmamba-tools; ! find /usr -path "*clmamba*" -not -path "/usr/src/*" | grep .'
du -shx builder user | sed 's/^/size: /'
