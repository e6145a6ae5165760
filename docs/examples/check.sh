#!/bin/sh
# The example of the README runs and prints what it says, the README shows the very same program and installs the
# packages that tools/setup.sh does, and docs/api.md has a line for every public function.
# usage: check.sh EXAMPLE SOURCE_ROOT
set -eu
got=$("$1")
[ "$got" = "1 1.5 1.75 1.875 1.9375 1.96875 1.98438 1.99219 " ] ||
  [ "$got" = "1 1.5 1.75 1.875 1.9375 1.96875 1.98438 1.99219" ] || { echo "the example printed: $got"; exit 1; }
shown=$(awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$2/README.md")
[ "$shown" = "$(cat "$2/docs/examples/scan.c")" ] || { echo "README.md shows another program than docs/examples/scan.c"; exit 1; }
(. "$2/tools/setup.sh"; printf '%s' "$packages_build$packages_test" | sed -n 's/|.*//p' | sort) >packages.setup
sed -n 's/^sudo apt install //p' "$2/README.md" | tr ' ' '\n' | sort >packages.readme
diff packages.setup packages.readme || { echo "README.md installs other packages than tools/setup.sh"; exit 1; }
missing=0
for name in $(sed -n 's/^CLM_API .*[ *]\(clm_[a-z0-9_]*\)(.*/\1/p' "$2"/include/clmamba/*.h); do
  grep -q "\`$name\`" "$2/docs/api.md" || { echo "docs/api.md does not mention $name"; missing=1; }
done
exit $missing
