#!/usr/bin/env python3
"""Makes the expected values of the statistics in common/src/stats with scipy and statsmodels.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install scipy==1.17.1 statsmodels==0.15.0
    /tmp/golden/bin/python scripts/golden_statistics.py

Writes common/tests/golden/statistics.json, which is committed; it takes a minute. Edge cases are among the inputs: two values,
ties, zeros, constant values, one class.
"""

import json
import math
import pathlib

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.multitest import multipletests

OUT = pathlib.Path(__file__).resolve().parent.parent / "common" / "tests" / "golden" / "statistics.json"
rng = np.random.default_rng(20230109)


def normal():
    quantiles = [1e-300, 1e-12, 0.001, 0.025, 0.3, 0.5, 0.7, 0.975, 0.999, 1 - 1e-12]
    values = [-37.0, -8.0, -1.96, -0.3, 0.0, 0.5, 2.5, 7.0]
    return {
        "quantile": [[p, stats.norm.ppf(p)] for p in quantiles],
        "cdf": [[z, stats.norm.cdf(z)] for z in values],
    }


def brown_forsythe():
    cases = [(5, 5, 1, 1), (10, 10, 1, 3), (10, 7, 0.2, 1), (3, 3, 1, 1), (30, 30, 1, 1.2), (3, 20, 5, 1)]
    found = []
    for n, m, a, b in cases:
        x, y = rng.normal(0, a, n), rng.normal(1, b, m)
        f, p = stats.levene(x, y, center="median")
        found.append({"a": x.tolist(), "b": y.tolist(), "f": f, "p": p})
    x, y = [0.8, 0.8, 0.9, 0.9, 0.8], [0.5, 0.5, 0.5, 0.5, 0.6]
    f, p = stats.levene(x, y, center="median")
    return found + [{"a": x, "b": y, "f": f, "p": p}]


def signed_rank():
    found = []
    for n, shift in [(3, 0), (6, 1), (11, 0.4), (25, 0.2), (50, 0.3), (60, 0.1), (200, 0.1)]:
        d = rng.normal(shift, 1, n)
        method = "exact" if n <= 50 else "asymptotic"
        w, p = stats.wilcoxon(d, method=method, correction=False)
        found.append({"d": d.tolist(), "w": w, "p": p, "exact": n <= 50})
    for d in [[1.0, -1.0, 2.0, 2.0, 3.0, 0.0, -2.0, 4.0], [0.5, 0.5, 0.5, 0.5], [1.0, 2.0, -2.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 9.0]]:
        w, p = stats.wilcoxon(d, method="asymptotic", correction=False, zero_method="wilcox")
        found.append({"d": d, "w": w, "p": p, "exact": False})
    return found


def holm():
    found = []
    for p in [[0.01, 0.04, 0.03, 0.005], [0.5, 0.6], [0.02], [0.04, 0.04, 0.04], [0.9, 0.001, 0.2, 0.2, 0.03]]:
        found.append({"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()})
    return found


def agreement():
    found = []
    for runs, items, classes, noise in [(2, 5, 2, 0.3), (10, 40, 3, 0.2), (7, 100, 5, 0.9), (4, 30, 2, 0.0)]:
        truth = rng.integers(0, classes, items)
        flip = rng.random((runs, items)) < noise
        votes = np.where(flip, rng.integers(0, classes, (runs, items)), truth)
        pairs = [(i, j) for i in range(runs) for j in range(i)]
        disagreement = float(np.mean([np.mean(votes[i] != votes[j]) for i, j in pairs]))
        table, _ = aggregate_raters(votes.T)
        found.append({"votes": votes.tolist(), "disagreement": disagreement, "kappa": float(fleiss_kappa(table, method="fleiss"))})
    found.append({"votes": [[1, 1, 1], [1, 1, 1]], "disagreement": 0.0, "kappa": None})
    return found


def bootstrap():
    """BCa of the ratio of variances, by scipy; many resamples, so that what is left is the noise of the 2,000 of ours."""
    found = []

    def ratio(a, b, axis=-1):
        return np.var(a, axis=axis, ddof=1) / np.var(b, axis=axis, ddof=1)

    for n, a, b, shared in [(10, 1.0, 1.0, 0.0), (10, 0.3, 1.0, 0.5), (20, 2.0, 1.0, 0.8), (50, 1.0, 1.5, 0.2)]:
        common = rng.normal(0, 1, n)
        x = 0.8 + 0.02 * a * (shared * common + math.sqrt(1 - shared**2) * rng.normal(0, 1, n))
        y = 0.8 + 0.02 * b * (shared * common + math.sqrt(1 - shared**2) * rng.normal(0, 1, n))
        result = stats.bootstrap((x, y), ratio, paired=True, n_resamples=200_000, method="BCa", batch=10_000, rng=rng)
        interval = result.confidence_interval
        found.append({"a": x.tolist(), "b": y.tolist(), "ratio": float(ratio(x, y)), "low": interval.low, "high": interval.high})
    return found


def expected_max():
    found = []
    for n, k in [(5, 1), (5, 3), (20, 10), (3, 50)]:
        v = rng.normal(0, 1, n)
        cdf = np.array([np.mean(v <= x) for x in np.sort(v)])
        mass = np.diff(np.concatenate([[0.0], cdf**k]))
        found.append({"v": v.tolist(), "k": k, "expected": float(np.sum(np.sort(v) * mass))})
    return found


golden = {
    "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
    "normal": normal(),
    "brown_forsythe": brown_forsythe(),
    "signed_rank": signed_rank(),
    "holm": holm(),
    "agreement": agreement(),
    "bootstrap": bootstrap(),
    "expected_max": expected_max(),
}
OUT.write_text(json.dumps(golden, indent=1) + "\n")
print(f"{OUT}: {OUT.stat().st_size} bytes")
