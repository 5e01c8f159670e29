#!/usr/bin/env python3
"""Makes the expected values of the statistics in common/src/stats with scipy and statsmodels.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install scipy==1.17.1 statsmodels==0.15.0
    /tmp/golden/bin/python scripts/golden_statistics.py

Writes common/tests/golden/statistics.json, which is committed; it takes a minute. Edge cases are among the inputs: two values,
ties, zeros, constant values, one class, two blocks, matrices of deficient rank, probabilities of zero.
"""

import fractions
import json
import math
import pathlib

import numpy as np
import scipy
import statsmodels
from scipy import linalg, stats
from scipy.spatial import distance
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


def chi_square():
    cases = [(0.5, 1), (1e-8, 1), (3.84, 1), (2.9, 2), (3.1, 2), (7, 5), (30, 5), (250, 9), (1400, 3), (90, 99), (130, 99), (1e4, 1e4)]
    return [[x, df, stats.chi2.sf(x, df)] for x, df in cases]


def mid_ranks():
    values = [[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [2.0, -1.0, 2.0, 0.0, 2.0, -1.0, 7.0], [5.0], rng.normal(0, 1, 12).round(1).tolist()]
    return [{"v": v, "ranks": stats.rankdata(v).tolist()} for v in values]


def spearman():
    found = []
    pairs = [([1, 2, 3, 4], [10, 20, 25, 99]), ([1, 2, 3], [1, 3, 2]), ([1, 1, 1, 2], [3, 3, 0, 3])]
    for n, slope, digits in [(6, -0.2, 9), (10, -1.0, 9), (40, 0.3, 9), (15, 0.8, 0), (60, 2.0, 1), (200, 0.0, 2)]:
        x = rng.normal(0, 1, n)
        pairs.append((x.round(digits), (slope * x + rng.normal(0, 1, n)).round(digits)))
    for x, y in pairs:
        rho, p = stats.spearmanr(x, y)
        found.append({"x": np.array(x, float).tolist(), "y": np.array(y, float).tolist(), "rho": rho, "p": p})
    return found


def friedman():
    found = []
    for blocks, treatments, digits in [(2, 3, 9), (10, 4, 9), (30, 6, 9), (12, 5, 0), (8, 3, 1), (2, 10, 1)]:
        scores = (rng.normal(0, 1, (blocks, treatments)) + 0.3 * np.arange(treatments)).round(digits)
        statistic, p = stats.friedmanchisquare(*scores.T)
        ranks = stats.rankdata(scores, axis=1).mean(axis=0)
        found.append({"blocks": scores.tolist(), "statistic": statistic, "p": p, "ranks": ranks.tolist()})
    # scipy refuses two treatments: the test is then that of signs, (wins - losses)^2/(wins + losses).
    scores = (rng.normal(0, 1, (9, 2)) + [0.0, 0.5]).round(0)
    signs = np.sign(scores[:, 0] - scores[:, 1])
    statistic = signs.sum() ** 2 / np.abs(signs).sum()
    ranks = stats.rankdata(scores, axis=1).mean(axis=0)
    return found + [{"blocks": scores.tolist(), "statistic": statistic, "p": stats.chi2.sf(statistic, 1), "ranks": ranks.tolist()}]


def nemenyi():
    found = []
    for k, n in [(2, 1), (2, 20), (3, 10), (5, 14), (10, 30), (20, 7), (100, 50)]:
        q = stats.studentized_range.ppf(0.95, k, np.inf)
        found.append([k, n, q / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))])
    return found


def unbiased_hsic(k, l):
    """Nguyen et al. 2021, eq. 3, as it stands there."""
    n = len(k)
    k, l, one = k - np.diag(np.diag(k)), l - np.diag(np.diag(l)), np.full(n, fractions.Fraction(1))
    middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + middle - (one @ k @ l @ one) * 2 / (n - 2)) / (n * (n - 3))


def linear_cka(a, b):
    """With fractions: where features are far from zero, doubles would lose half of their digits."""
    a, b = (np.vectorize(fractions.Fraction, otypes=[object])(x) for x in (a, b))
    k, l = a @ a.T, b @ b.T
    return float(unbiased_hsic(k, l)) / math.sqrt(unbiased_hsic(k, k) * unbiased_hsic(l, l))


def reduced(a):
    """The fewest principal components that hold 99 % of the variance, each with variance 1."""
    a = a - a.mean(axis=0)
    _, s, vt = np.linalg.svd(a, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.99)) + 1
    return a @ vt[:kept].T


def svcca(a, b):
    """Canonical correlations from the eigenvalues of the covariances' quotient (Hotelling 1936)."""
    x, y = reduced(a), reduced(b)
    xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
    quotient = np.linalg.solve(xx, xy) @ np.linalg.solve(yy, xy.T)
    values = np.sort(np.linalg.eigvals(quotient).real)[::-1][: min(x.shape[1], y.shape[1])]
    return float(np.mean(np.sqrt(np.clip(values, 0, 1))))


def procrustes(a, b):
    """The distance itself, after the best rotation."""
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(x - x.mean(axis=0), ((0, 0), (0, width - x.shape[1]))) for x in (a, b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    rotation, _ = linalg.orthogonal_procrustes(b, a)
    return float(np.linalg.norm(a - b @ rotation) ** 2)


def representations():
    normal = lambda *shape: rng.normal(0, 1, shape).round(3)
    rotation = stats.ortho_group.rvs(4, random_state=rng)
    a, wide, low = normal(12, 4), normal(7, 15), normal(10, 2) @ normal(2, 5)
    constant = normal(9, 3)
    constant[:, 1] = 0.1
    pairs = [
        (a, a + 0.3 * normal(12, 4)),
        (a, normal(12, 6)),
        (a, 7.0 * a @ rotation + 2.0),
        (a + 1000.0, a @ normal(4, 4)),
        (wide, wide + 0.5 * normal(7, 15)),
        (wide, normal(7, 3)),
        (low, low @ normal(5, 5) + 0.1 * normal(10, 5)),
        (low, normal(10, 5)),
        (constant, constant + 0.2 * normal(9, 3)),
        (normal(4, 2), normal(4, 2)),
        (normal(30, 8) * 0.5 ** np.arange(8), normal(30, 8) * 0.3 ** np.arange(8)),
    ]
    found = []
    for x, y in pairs:
        entry = {"rows": len(x), "a": x.flatten().tolist(), "b": y.flatten().tolist()}
        found.append(entry | {"cka": linear_cka(x, y), "svcca": svcca(x, y), "procrustes": procrustes(x, y)})
    return found


def jensen_shannon():
    def logarithms(p):
        # JSON has no infinity: null stands for the logarithm of zero.
        return [math.log(x) if x > 0 else None for x in p.flatten()]

    def case(p, q):
        divergence = float(np.mean(distance.jensenshannon(p, q, axis=1) ** 2))
        return {"classes": p.shape[1], "p": logarithms(p), "q": logarithms(q), "divergence": divergence}

    found = [case(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]]))]
    found.append(case(np.array([[0.2, 0.0, 0.8], [1.0, 0.0, 0.0]]), np.array([[0.2, 0.3, 0.5], [0.9, 0.0, 0.1]])))
    for rows, classes, weight in [(6, 2, 1.0), (8, 5, 0.1), (4, 10, 30.0)]:
        found.append(case(*rng.dirichlet(np.full(classes, weight), (2, rows))))
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
    "chi_square": chi_square(),
    "mid_ranks": mid_ranks(),
    "spearman": spearman(),
    "friedman": friedman(),
    "nemenyi": nemenyi(),
    "representations": representations(),
    "jensen_shannon": jensen_shannon(),
}
OUT.write_text(json.dumps(golden, indent=1) + "\n")
print(f"{OUT}: {OUT.stat().st_size} bytes")
