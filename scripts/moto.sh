#!/usr/bin/env bash
# Makes sure there is an S3 server to test against, and prints its path (and nothing else) on standard output.
#
# In this order: $MOTO_BIN; one installed earlier into .deps/moto; moto from PyPI with the two packages that its server
# needs, into a virtual environment in .deps/moto. It keeps objects in memory and is no server for anything but tests.
set -euo pipefail

# `moto[server]` would bring the servers of all other services along, three times the size.
requirements=('moto[s3]==5.2.5' 'flask==3.1.3' 'flask-cors==6.0.5')

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.deps/moto
installed=$venv/installed

say() { echo "moto: $*" >&2; }
fail() { say "$*"; exit 1; }

if [[ -n ${MOTO_BIN:-} ]]; then
  found=$(command -v "$MOTO_BIN") || fail "MOTO_BIN is '$MOTO_BIN', which cannot be run"
  readlink -f "$found"
  exit 0
fi
if [[ -f $installed && $(<"$installed") == "${requirements[*]}" ]] && "$venv/bin/moto_server" --help >/dev/null 2>&1; then
  echo "$venv/bin/moto_server"
  exit 0
fi

# Its scripts hold the folder's path: it is made where it stays, and counts once it is whole.
say "installing ${requirements[*]} into .deps/moto (140 MB)"
rm -rf "$venv"
mkdir -p "$root/.deps"
python3 -m venv "$venv" >&2 || fail "python3 cannot make a virtual environment: run scripts/system.sh first"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}" >&2 ||
  fail "pip could not install it: is the package index reachable? Or set MOTO_BIN to a moto_server"
"$venv/bin/moto_server" --help >/dev/null || fail "the installed moto_server does not run on this machine"
echo "${requirements[*]}" >"$installed"
echo "$venv/bin/moto_server"
