#!/usr/bin/env bash
# Checks the tools that everything else here needs, and installs those that a Debian machine lacks: a C++ compiler with
# its linker, make, and a Python with pip. Rust is only checked: whoever works in Rust has an opinion on how it is
# installed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "system: $*"; }
fail() { echo "system: $*" >&2; exit 1; }
has() { command -v "$1" >/dev/null; }

packages=()
{ has g++ || has c++; } && { has cc || has gcc; } && has readelf || packages+=(g++)
has make || packages+=(make)
if ! has python3; then
  packages+=(python3 python3-pip python3-venv)
elif ! python3 -m pip --version >/dev/null 2>&1 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  packages+=(python3-pip python3-venv)
fi

if ((${#packages[@]})); then
  has apt-get || fail "please install: ${packages[*]} (these are Debian's names)"
  as_root=()
  if ((EUID != 0)); then
    has sudo || fail "not root, and no sudo. Please install: ${packages[*]}"
    as_root=(sudo)
  fi
  say "installing ${packages[*]}"
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${packages[@]}"
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
  fail "$(python3 --version) is too old: Python 3.9 or newer is needed, for the set-up only"

needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
advice="install Rust with rustup (https://rustup.rs), then open a new shell or run: . ~/.cargo/env"
for tool in cargo rustc; do
  has "$tool" || fail "$tool is not there: $advice"
done
present=$(rustc --version | cut -d ' ' -f 2)
if [[ $(printf '%s\n' "$needed" "${present%%-*}" | sort -V | head -n 1) != "$needed" ]]; then
  fail "rustc $present is too old, $needed or newer is needed: $advice, or with rustup there already: rustup update"
fi
say "C++ compiler, make, $(python3 --version) and rustc $present are there"
