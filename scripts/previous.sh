#!/usr/bin/env bash
# Builds the two programs of an earlier commit (the one before this by default), and prints the folder they are in (and
# nothing else) on standard output: scripts/previous.sh [COMMIT]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { echo "previous: $*" >&2; }

commit=$(git -C "$root" rev-parse --verify --short "${1:-HEAD~1}^{commit}") ||
  { say "'${1:-HEAD~1}' is no commit here: a shallow clone has but one (git fetch --unshallow)"; exit 1; }
place=$root/.deps/previous
tree=$place/$commit
if [[ ! -x $tree/bin/evenkeel-worker ]]; then
  say "building the programs of $commit into .deps/previous/$commit"
  rm -rf "$tree"
  mkdir -p "$tree/source" "$tree/bin"
  git -C "$root" archive "$commit" | tar -x -C "$tree/source"
  [[ ! -d $root/.deps/libtorch ]] || { mkdir -p "$tree/source/.deps"; ln -s "$root/.deps/libtorch" "$tree/source/.deps/libtorch"; }
  # One target directory for all commits: their dependencies are nearly the same.
  CARGO_TARGET_DIR=$place/target make -C "$tree/source" build >&2
  cp "$place/target/release/evenkeel" "$place/target/release/evenkeel-worker" "$tree/bin/"
  rm -rf "$tree/source"
fi
echo "$tree/bin"
