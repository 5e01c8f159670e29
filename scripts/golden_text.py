#!/usr/bin/env python3
"""Makes the expected values of the scores in common/src/text/metric.rs with scikit-learn.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install scikit-learn==1.7.2
    /tmp/golden/bin/python scripts/golden_text.py

Writes common/tests/golden/text_metrics.json, which is committed; it takes a second. F1 is that of class 1, macro F1 the
mean over classes that occur or are predicted (scikit-learn's default), both with zero_division=0. The exact match of
MultiRC, which scikit-learn lacks, is written from its definition: the share of groups with every row right.
"""

import json
import pathlib

import numpy as np
import sklearn
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

OUT = pathlib.Path(__file__).resolve().parent.parent / "common" / "tests" / "golden" / "text_metrics.json"
SEED = 20230109


def exact_match(truth, predicted, groups):
    wrong = {g for t, p, g in zip(truth, predicted, groups) if t != p}
    return 1 - len(wrong) / len(set(groups))


def case(what, classes, truth, predicted, groups):
    truth, predicted, groups = ([int(v) for v in values] for values in (truth, predicted, groups))
    accuracy = accuracy_score(truth, predicted)
    f1 = f1_score(truth, predicted, labels=[1], average="macro", zero_division=0)
    macro = f1_score(truth, predicted, average="macro", zero_division=0)
    exact = exact_match(truth, predicted, groups)
    scores = {
        "accuracy": accuracy,
        "f1": f1,
        "f1_accuracy": (f1 + accuracy) / 2,
        "matthews": matthews_corrcoef(truth, predicted),
        "accuracy_macro_f1": (accuracy + macro) / 2,
        "f1a_exact_match": (f1 + exact) / 2,
        "macro_f1": macro,
    }
    return {
        "what": what,
        "classes": classes,
        "truth": truth,
        "predicted": predicted,
        "groups": groups,
        "exact_match": exact,
        "scores": {name: float(value) for name, value in scores.items()},
    }


def random_case(rng, what, classes, rows, right, weights=None):
    """Truth by class weights; a share `right` of the predictions copies it, the others are uniform."""
    truth = rng.choice(classes, rows, p=weights)
    predicted = np.where(rng.random(rows) < right, truth, rng.integers(0, classes, rows))
    return case(what, classes, truth, predicted, np.sort(rng.integers(0, max(1, rows // 4), rows)))


def cases():
    rng = np.random.default_rng(SEED)
    yield random_case(rng, "two classes, a good model", 2, 40, 0.8)
    yield random_case(rng, "two classes, a guessing model", 2, 40, 0.0)
    yield random_case(rng, "two classes, few of class 1", 2, 60, 0.6, [0.9, 0.1])
    yield random_case(rng, "two classes, few of class 0", 2, 60, 0.6, [0.1, 0.9])
    yield random_case(rng, "three classes", 3, 50, 0.5)
    yield random_case(rng, "three classes, as unequal as CB's", 3, 56, 0.7, [0.46, 0.48, 0.06])
    yield random_case(rng, "six classes", 6, 80, 0.4)
    yield random_case(rng, "ten classes, of which not all occur", 10, 12, 0.3)
    yield case("a failed run that predicts class 0 only", 2, [0, 1, 1, 0, 1], [0] * 5, [0, 0, 1, 1, 2])
    yield case("a failed run that predicts class 1 only", 2, [0, 1, 1, 0, 1], [1] * 5, [0, 0, 1, 1, 2])
    yield case("one class only, all right", 2, [0, 0, 0], [0, 0, 0], [0, 1, 1])
    yield case("every row wrong", 2, [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 1])
    yield case("class 1 of three neither occurs nor is predicted", 3, [0, 2, 2, 0], [0, 2, 0, 0], [3, 3, 7, 7])
    yield case("one row", 3, [2], [1], [0])


def main():
    assert sklearn.__version__ == "1.7.2", sklearn.__version__
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in cases())
    OUT.write_text(f"[\n{lines}\n]\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
