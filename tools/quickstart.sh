#!/bin/sh
# Installs what is missing, builds, trains a small character model for about two minutes, generates from it, and prints
# a short benchmark of the devices found.
#
#   sh tools/quickstart.sh [FILE [MINUTES]]     FILE: text to train on; default: the licence texts of this system
#
# Works from any folder. Everything it makes is in build-quickstart/.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
. "$here/setup.sh"

case ${1-} in
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
  -*) die "unknown option \"$1\"" ;;
esac
[ $# -le 2 ] || die "too many arguments (see --help)"
minutes=${2-2}
out=$root/build-quickstart
text=$out/licences.txt
if [ $# -gt 0 ]; then
  [ -f "$1" ] || die "there is no file $1"
  text=$(cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
fi
mkdir -p "$out"
cd -- "$out"

say "== packages"
install_missing "$packages_build"

say "== build"
if [ ! -f build/build.ninja ]; then
  rm -rf build
  meson setup build "$root" -Dtests=disabled -Ddocs=disabled -Dtools=enabled >setup.log 2>&1 || { cat setup.log; die "meson setup failed"; }
fi
ninja -C build >build.log 2>&1 || { tail -n 40 build.log; die "the build failed"; }
tools=$out/build/tools

if [ $# -eq 0 ]; then
  : >"$text"
  for file in /usr/share/common-licenses/*; do
    if [ -f "$file" ] && [ ! -L "$file" ]; then cat "$file" >>"$text"; fi
  done
  [ -s "$text" ] || die "there are no licence texts in /usr/share/common-licenses: give a file"
fi

say "== train for $minutes minutes on $text"
rm -rf model
"$tools/mamba-train" --data "$text" --out model --minutes "$minutes"

# A word of the text to begin with.
prompt='The '
[ $# -eq 0 ] || prompt=$(head -c 20000 "$text" | tr -s '[:space:]' '\n' | grep -m 1 '[[:alpha:]]' || true)
say "== generate 400 characters after \"$prompt\""
"$tools/mamba-generate" --model model --prompt "$prompt" -n 400 --temperature 0.8 --seed 1
say ''

say "== devices"
"$tools/mamba-info" --brief >devices.txt
tab=$(printf '\t')
: >bench.txt
while IFS=$tab read -r device name; do
  say "$device: $name"
  for op in scan conv gemm; do
    # A device that cannot do it has said so; the others go on.
    if timeout 120 "$tools/mamba-bench" "$op" --device "$device" --length 512 --m 512 --n 512 --k 512 --repeat 5 \
      </dev/null >row.txt 2>row.err
    then
      [ "$op" != scan ] || sed -n '/^op /p' row.txt
      tail -n 1 row.txt
      cat row.txt >>bench.txt
    else
      sed 's/^/  /' row.err
    fi
  done
done <devices.txt
rm -f row.txt row.err

say "== results are in $out: model/ (the model, train.csv, loss.svg), bench.txt"
