#!/usr/bin/env bash
# Makes sure there is a Chromium to look at reports with, and prints its path (and nothing else) on standard output.
#
# In this order: $CHROMIUM; one on the PATH; the distribution's package, installed. Prints an empty line where there is none to
# be had: tests that need it skip then, and say so.
set -euo pipefail

say() { echo "chromium: $*" >&2; }

if [[ -n ${CHROMIUM:-} ]]; then
  found=$(command -v "$CHROMIUM") || { say "CHROMIUM is '$CHROMIUM', which cannot be run"; exit 1; }
  echo "$found"
  exit 0
fi
for name in chromium chromium-browser google-chrome; do
  if found=$(command -v "$name"); then
    echo "$found"
    exit 0
  fi
done
as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null && as_root=(sudo)
fi
if command -v apt-get >/dev/null && { ((EUID == 0)) || ((${#as_root[@]})); }; then
  say "installing the package chromium (some 100 MB)"
  install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get -qq install -y --no-install-recommends chromium >&2; }
  if install 2>/dev/null || { "${as_root[@]}" apt-get -qq update >&2 && install; }; then
    command -v chromium && exit 0
  fi
fi
say "none here and none to be had: reports are not looked at in a browser"
echo
