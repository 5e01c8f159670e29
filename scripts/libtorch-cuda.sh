#!/usr/bin/env bash
# Usage: scripts/libtorch-cuda.sh DIR
#
# Puts the CUDA half of libtorch into DIR (lib/, packages/): the libraries that have to lie beside those of .deps/libtorch so
# that the worker, which opens libtorch_cuda.so where it finds it, runs on GPUs. For images: on a machine with a Python
# environment LIBTORCH is the shorter way.
#
# They come out of the PyPI wheels of torch and of the packages of NVIDIA that it names, 2.5 GB to download (x86_64).
set -euo pipefail

(($# == 1)) || { sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
target=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cpu=$root/.deps/libtorch

say() { echo "libtorch-cuda: $*"; }
fail() { echo "libtorch-cuda: $*" >&2; exit 1; }

# What is reached by its NEEDED entries follows from libtorch_cuda.so. These are opened by their names while it runs: torch's
# linear algebra and its compiler of small kernels with NVRTC, and the parts of cuDNN.
opened=(libtorch_cuda_linalg.so libcaffe2_nvrtc.so)
parts_of_nvrtc='libnvrtc-builtins\.so\.'
parts_of_cudnn='libcudnn_[a-z_]+\.so\.'
# Of the machine that it runs on: the driver's, and those of Debian's libc6, libgcc-s1, libstdc++6 and zlib1g (cuDNN's).
readonly OF_THE_MACHINE='^(libcuda\.so\.1|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+|z)\.so\.[0-9]+|ld-linux.*)$'

version=$(sed -n 's/^readonly VERSION=\([^ ]*\).*/\1/p' "$root/scripts/libtorch.sh")
[[ -n $version ]] || fail "scripts/libtorch.sh names no version"
[[ -e $cpu/lib/libtorch_cpu.so ]] || fail "$cpu is not there: run scripts/libtorch.sh first"
[[ ! -e $cpu/lib/libtorch_cuda.so ]] || fail "$cpu has CUDA already"
[[ ! -e $target ]] || fail "$target is there already: delete it first"

began=$SECONDS
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "downloading torch $version and what it needs of NVIDIA's packages (2.5 GB, from half a minute to many)"
"$root/scripts/wheels.sh" "$work/wheels" "torch==$version"
for _ in meta-package packages; do
  mapfile -t packages < <(python3 "$root/scripts/libtorch.py" requirements "$work/wheels")
  ((${#packages[@]})) || fail "nothing is left to download, although torch needs NVIDIA's packages"
  "$root/scripts/wheels.sh" "$work/wheels" "${packages[@]}"
done
left=$(python3 "$root/scripts/libtorch.py" requirements "$work/wheels")
[[ -z $left ]] || fail "not downloaded: $left"
say "downloaded after $((SECONDS - began)) s; taking the libraries out of them"

list() { python3 -c 'import pathlib, sys, zipfile
for wheel in pathlib.Path(sys.argv[1]).glob("*.whl"):
    for name in zipfile.ZipFile(wheel).namelist(): print(name.rsplit("/")[-1])' "$work/wheels"; }
mapfile -t parts < <(list | grep -E "^($parts_of_nvrtc|$parts_of_cudnn)" | grep -v '\.alt\.' | sort -u)
for part in "$parts_of_nvrtc" "$parts_of_cudnn"; do
  printf '%s\n' "${parts[@]}" | grep -qE "^$part" || fail "no library in the wheels is called $part: this script needs a look"
done

missing=$(python3 "$root/scripts/libtorch.py" take --beside "$cpu/lib" "$work/cuda" "$work/wheels" \
  libtorch_cuda.so "${opened[@]}" "${parts[@]}" | grep -vE "$OF_THE_MACHINE" || true)
[[ -z $missing ]] || fail "no wheel holds: $missing"
rm -rf "$work/wheels"

# Side by side in one folder, as they will lie in the image, everything has to be found.
mkdir "$work/together"
ln -s "$cpu"/lib/*.so* "$work"/cuda/lib/* "$work/together/"
unresolved=$(LD_LIBRARY_PATH="$work/together" ldd "$work"/together/libtorch_cuda*.so 2>&1 | grep -E 'not found' || true)
[[ -z $unresolved ]] || fail "libtorch_cuda.so does not load on this machine:"$'\n'"$unresolved"
rm -rf "$work/together"

mv -T "$work/cuda" "$target"
say "$target is ready after $((SECONDS - began)) s, $(du -sh "$target" | cut -f 1)"
