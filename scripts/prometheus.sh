#!/usr/bin/env bash
# Makes sure there is a Prometheus with its promtool to test against, and prints the path of prometheus (and nothing else) on
# standard output; promtool lies beside it.
#
# In this order: $PROMETHEUS_BIN; `prometheus` on the PATH; one unpacked earlier into .deps/prometheus; the distribution's
# package, unpacked there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unpacked=$root/.deps/prometheus/usr/bin/prometheus

say() { echo "prometheus: $*" >&2; }
fail() { say "$*"; exit 1; }
# shellcheck source=scripts/debian.sh
source "$root/scripts/debian.sh"

if [[ -n ${PROMETHEUS_BIN:-} ]]; then
  found=$(command -v "$PROMETHEUS_BIN") || fail "PROMETHEUS_BIN is '$PROMETHEUS_BIN', which cannot be run"
  readlink -f "$found"
  exit 0
fi
if found=$(command -v prometheus); then
  readlink -f "$found"
  exit 0
fi
if [[ ! -x $unpacked ]]; then
  unpack prometheus prometheus || fail "install Prometheus 2.40 or newer, or set PROMETHEUS_BIN"
  "$unpacked" --version >&2 || fail "the unpacked prometheus does not run on this machine"
fi
echo "$unpacked"
