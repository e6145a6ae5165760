#!/bin/sh
# After an installation into a folder that the system's loader searches, tells the loader that there is a new library.
# usage: ldconfig.sh LIBDIR
set -eu
PATH=$PATH:/usr/sbin:/sbin
if [ -n "${DESTDIR-}" ] || [ "$(id -u)" -ne 0 ] || ! command -v ldconfig >/dev/null; then exit 0; fi
# -N -X -v: only lists the folders. Those with a list of files end in a colon.
if ldconfig -N -X -v 2>/dev/null | grep -q "^$1:"; then ldconfig; fi
