#!/bin/sh
# The shared library exports clm_ names and nothing else.
# usage: symbols.sh NM LIBRARY
set -u
symbols=$("$1" -D --defined-only "$2" | awk '{print $NF}') || exit 1
[ -n "$symbols" ] || { echo "$2 exports nothing"; exit 1; }
foreign=$(printf '%s\n' "$symbols" | grep -v '^clm_')
[ -z "$foreign" ] || { printf 'exported without the prefix clm_:\n%s\n' "$foreign"; exit 1; }
printf '%s\n' "$symbols" | grep -q '^clm_context_create$' || { echo "clm_context_create is missing"; exit 1; }
