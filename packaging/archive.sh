#!/bin/sh
# Makes the archive that is installed: one object in which only the public names (clm_...) are global, so that a program
# may have a function called file_read, or anything else that the library uses inside.
# usage: archive.sh OBJCOPY AR INSIDE OUTPUT COMPILER...
set -eu
objcopy=$1 ar=$2 inside=$3 output=$4
shift 4
object=$output.o
trap 'rm -f "$object"' EXIT
# Link-time optimisation, where the build has it, ends here: the archive is for any linker.
"$@" -r -nostdlib -Wl,--whole-archive "$inside" -Wl,--no-whole-archive -o "$object"
"$objcopy" --localize-hidden "$object"
rm -f "$output"
"$ar" rcs "$output" "$object"
