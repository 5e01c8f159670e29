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
# shellcheck source=scripts/debian.sh
source "$root/scripts/debian.sh"

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

unpack etcd etcd-server || fail "install etcd 3.4 or newer, or set ETCD_BIN"
"$unpacked" --version >&2 || fail "the unpacked etcd does not run on this machine"
echo "$unpacked"
