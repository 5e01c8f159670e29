#!/usr/bin/env bash
# Makes sure there is an etcd to test against, and prints its path (and nothing else) on standard output.
#
# In this order: $ETCD_BIN; `etcd` on the PATH; one unpacked earlier into .deps/etcd; the distribution's package,
# unpacked into .deps/etcd. It is unpacked and not installed: that needs no root and starts no service.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unpacked=$root/.deps/etcd/usr/bin/etcd

say() { echo "etcd: $*" >&2; }
fail() { say "$*"; exit 1; }

if [[ -n ${ETCD_BIN:-} ]]; then
  found=$(command -v "$ETCD_BIN") || fail "ETCD_BIN is '$ETCD_BIN', which cannot be run"
  readlink -f "$found"
  exit 0
fi
if found=$(command -v etcd); then
  echo "$found"
  exit 0
fi
if [[ -x $unpacked ]]; then
  echo "$unpacked"
  exit 0
fi

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || fail "none here, and no $tool: install etcd 3.4 or newer, or set ETCD_BIN"
done

mkdir -p "$root/.deps"
work=$(mktemp -d "$root/.deps/etcd.XXXXXX")
trap 'rm -rf "$work"' EXIT

fetch() { (cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download etcd-server >&2); }

say "taking etcd out of the package etcd-server (some 10 MB)"
if ! fetch 2>/dev/null; then
  say "the package lists are missing or old: refreshing them"
  if ((EUID == 0)); then
    apt-get -qq update >&2
  elif command -v sudo >/dev/null; then
    sudo apt-get -qq update >&2
  else
    fail "cannot refresh the package lists without root or sudo: set ETCD_BIN"
  fi
  fetch || fail "no package etcd-server: install etcd 3.4 or newer, or set ETCD_BIN"
fi
dpkg-deb -x "$work"/etcd-server_*.deb "$work/root"
"$work/root/usr/bin/etcd" --version >&2 || fail "the unpacked etcd does not run on this machine"
rm -rf "$root/.deps/etcd"
mv -T "$work/root" "$root/.deps/etcd"
echo "$unpacked"
