#!/bin/sh
# The backbone's example learns what it says it does. usage: backbone.sh EXAMPLE
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" "$work/model"
[ -s "$work/model/config.json" ] && [ -s "$work/model/model.safetensors" ]
