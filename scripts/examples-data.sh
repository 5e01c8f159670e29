#!/usr/bin/env bash
# Puts four small, well-known data sets into .deps/data, as CSV with a header and a last column `target`:
# breast_cancer.csv, digits.csv.gz, iris.csv and wine.csv. They come with scikit-learn, so its wheel is downloaded
# (about 10 MB, some seconds), the files are taken out of it, and it is deleted.
set -euo pipefail

readonly VERSION=1.7.2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/.deps/data

complete=1
for file in breast_cancer.csv digits.csv.gz iris.csv wine.csv; do
  [[ -s $target/$file ]] || complete=0
done
if ((complete)); then
  echo "examples-data: $target is there already"
  exit 0
fi

began=$SECONDS
mkdir -p "$root/.deps"
work=$(mktemp -d "$root/.deps/data.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$root/scripts/wheels.sh" "$work/wheels" "scikit-learn==$VERSION"
python3 "$root/scripts/examples_data.py" "$work"/wheels/scikit_learn-*.whl "$work/data"
mkdir -p "$target"
mv -f "$work"/data/* "$target/"
echo "examples-data: $target is ready after $((SECONDS - began)) s"
