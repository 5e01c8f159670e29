"""Takes four data sets out of a wheel of scikit-learn and gives them a header.

Usage: examples_data.py WHEEL DIRECTORY

scikit-learn's own files begin with a line of counts and class names (or with nothing, digits), which no other reader
of CSV understands. Written are breast_cancer.csv, digits.csv.gz, iris.csv and wine.csv: one named column a feature, and
last `target`, the class as an integer from 0.
"""

import csv
import gzip
import io
import pathlib
import sys
import zipfile

CELL_MEASURES = (
    "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension".split()
)
BREAST_CANCER = [f"{kind}_{measure}" for kind in ("mean", "error", "worst") for measure in CELL_MEASURES]
DIGITS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
IRIS = "sepal_length sepal_width petal_length petal_width".split()
WINE = (
    "alcohol malic_acid ash alcalinity_of_ash magnesium total_phenols flavanoids nonflavanoid_phenols proanthocyanins "
    "color_intensity hue od280_od315 proline"
).split()

# source, result, features, rows, whether the source begins with a line of counts
FILES = [
    ("breast_cancer.csv", "breast_cancer.csv", BREAST_CANCER, 569, True),
    ("digits.csv.gz", "digits.csv.gz", DIGITS, 1797, False),
    ("iris.csv", "iris.csv", IRIS, 150, True),
    ("wine_data.csv", "wine.csv", WINE, 178, True),
]


def convert(source: bytes, features: list[str], count: int, counted: bool) -> bytes:
    rows = list(csv.reader(io.StringIO(source.decode("ascii"))))
    if counted:
        rows = rows[1:]
    if len(rows) != count or any(len(row) != len(features) + 1 for row in rows):
        raise ValueError(f"expected {count} rows of {len(features)} features and a target")
    result = io.StringIO()
    writer = csv.writer(result, lineterminator="\n")
    writer.writerow([*features, "target"])
    for *values, target in rows:
        writer.writerow([*values, int(float(target))])
    return result.getvalue().encode("ascii")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: examples_data.py WHEEL DIRECTORY")
    directory = pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for source, result, features, count, counted in FILES:
            data = wheel.read(f"sklearn/datasets/data/{source}")
            packed = source.endswith(".gz")
            try:
                data = convert(gzip.decompress(data) if packed else data, features, count, counted)
            except ValueError as error:
                sys.exit(f"examples_data: {source}: {error}")
            # No time stamp in the header: the same bytes on every machine.
            (directory / result).write_bytes(gzip.compress(data, mtime=0) if packed else data)


if __name__ == "__main__":
    main()
