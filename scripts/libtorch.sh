#!/usr/bin/env bash
# Puts libtorch into .deps/libtorch (lib/, include/), for the CPU of this machine.
#
# It comes out of the PyPI wheel of torch, because that is the one place which every mirror of Python packages
# has. The wheel is made for CUDA: it is downloaded (about 530 MB), the CPU half is taken out of it, and it is
# deleted. What stays is about 500 MB.
#
# An existing libtorch is used instead when LIBTORCH names one by an absolute path: an unpacked libtorch, or the
# `torch` directory of a Python environment (that is also the way to a GPU):
#
#     LIBTORCH=$(python3 -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent)') make build
set -euo pipefail

readonly VERSION=2.11.0 # what tch 0.24 is made for
readonly CUDA=13.0      # what that wheel was linked against; two small stubs of it are needed even on a CPU
readonly RECIPE=1       # raise it when this script puts something else there than before

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
target=$deps/libtorch
machine=$(uname -m)
stamp="torch $VERSION cpu $machine recipe $RECIPE"

say() { echo "libtorch: $*"; }
fail() { echo "libtorch: $*" >&2; exit 1; }

version_of() { # the version of the libtorch in directory $1, or nothing
  if [[ -r $1/build-version ]]; then
    head -n 1 "$1/build-version"
  elif [[ -r $1/version.py ]]; then
    sed -n "s/^__version__ = '\(.*\)'/\1/p" "$1/version.py"
  fi
}

check_usable() { # fails unless directory $1 holds a libtorch to build with
  local file version
  for file in lib/libtorch.so lib/libtorch_cpu.so lib/libc10.so include/torch/csrc/api/include/torch/torch.h; do
    [[ -e $1/$file ]] || fail "$1 is no complete libtorch: $file is not there"
  done
  version=$(version_of "$1")
  if [[ -n $version && ${version%%+*} != "$VERSION" && -z ${LIBTORCH_BYPASS_VERSION_CHECK:-} ]]; then
    fail "$1 is libtorch $version, and this workspace needs $VERSION (LIBTORCH_BYPASS_VERSION_CHECK=1 tries anyway)"
  fi
}

mkdir -p "$deps"

if [[ -n ${LIBTORCH:-} && ${LIBTORCH%/} != "$target" ]]; then
  [[ $LIBTORCH == /* ]] || fail "LIBTORCH must be an absolute path, not '$LIBTORCH'"
  check_usable "$LIBTORCH"
  if [[ -L $target || ! -e $target ]]; then
    # The link lets a later build, in a shell where LIBTORCH is not set, find the same one.
    ln -sfn "${LIBTORCH%/}" "$target"
  fi
  say "using $LIBTORCH"
  exit 0
fi

ready() {
  if [[ -L $target ]]; then
    [[ -d $target/lib ]] || { rm -f "$target"; return 1; } # what it pointed to is gone
    check_usable "$target"
  else
    [[ -r $target/stamp && $(<"$target/stamp") == "$stamp" ]]
  fi
}

if ready; then
  say "$(readlink -f "$target") is there already"
  exit 0
fi

# Two at once: the second waits, and then finds the work done.
if command -v flock >/dev/null; then
  exec 9>"$deps/.libtorch.lock"
  flock 9
  if ready; then
    say "$target is there already"
    exit 0
  fi
fi

compiler=${CC:-cc}
for tool in "$compiler" readelf ldd python3; do
  command -v "$tool" >/dev/null || fail "$tool is not there: run scripts/system.sh first"
done
case $machine in
  x86_64 | aarch64) ;;
  *) fail "there is no wheel of torch for $machine: set LIBTORCH to a libtorch $VERSION" ;;
esac

began=$SECONDS
work=$(mktemp -d "$deps/libtorch.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "downloading torch $VERSION for $machine (530 MB, from 10 seconds to some minutes)"
"$root/scripts/wheels.sh" "$work/wheels" "torch==$VERSION"
say "downloaded after $((SECONDS - began)) s; taking the CPU libraries and the headers out of it"

# Prints what none of the wheels has.
extract() {
  python3 "$root/scripts/libtorch.py" take --headers "$work/libtorch" "$work/wheels" libtorch_cpu.so libc10.so
}

missing=$(extract)
rm -f "$work"/wheels/*.whl

# The CPU library of a CUDA build names the CUDA runtime and its profiler, and calls neither without a GPU.
packages=()
[[ $missing != *libcudart.so* ]] || packages+=("nvidia-cuda-runtime==$CUDA.*")
[[ $missing != *libcupti.so* ]] || packages+=("nvidia-cuda-cupti==$CUDA.*")
if ((${#packages[@]})); then
  "$root/scripts/wheels.sh" "$work/wheels" "${packages[@]}"
  extract >/dev/null
fi

# torch-sys asks the linker for libtorch.so. In the wheel that only pulls in the CUDA half, so an empty one does.
"$compiler" -shared -x c /dev/null -o "$work/libtorch/lib/libtorch.so" -Wl,-soname,libtorch.so

unresolved=$(LD_LIBRARY_PATH="$work/libtorch/lib" ldd "$work/libtorch/lib/libtorch_cpu.so" 2>&1 | grep -E 'not found' || true)
[[ -z $unresolved ]] || fail "libtorch_cpu.so does not load on this machine:"$'\n'"$unresolved"

echo "$VERSION+cpu" >"$work/libtorch/build-version" # torch-sys checks this one
echo "$stamp" >"$work/libtorch/stamp"
check_usable "$work/libtorch"

rm -rf "$target"
mv -T "$work/libtorch" "$target"
say "$target is ready after $((SECONDS - began)) s, $(du -sh "$target" | cut -f 1)"
