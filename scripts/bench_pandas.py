"""The statistics of a sweep by pandas, scipy and statsmodels: the rival of `make bench aggregation`.

    python bench_pandas.py OUTPUT_DIRECTORY [PAIRS]

Reads `results.parquet` and computes what `stability.parquet` and `comparisons.parquet` hold of the score: statistics of each group
with their t intervals, failed-run rates, and for each strategy beside the baseline, paired on dataset and seed, the mean difference
with its interval, the variance ratio with a BCa bootstrap interval (2,000 resamples), the Brown-Forsythe test, and Wilcoxon's test
over datasets with Holm's correction. Bootstraps of all pairs would take minutes, so PAIRS of them are made and
the time of the others is extrapolated; everything else is done in full. Prints one JSON object.
"""

import json
import resource
import sys
import time

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

RESAMPLES = 2000


def variance_ratio(a, b, axis):
    return a.var(axis=axis, ddof=1) / b.var(axis=axis, ddof=1)


def main():
    folder, some = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
    began = time.perf_counter()
    columns = ["dataset_config", "model", "strategy", "strategy_config", "seed", "status", "score", "accuracy", "majority"]
    trials = pd.read_parquet(f"{folder}/results.parquet", columns=columns)
    trials["failed_run"] = trials["accuracy"] <= trials["majority"]
    keys = ["dataset_config", "model", "strategy", "strategy_config"]
    groups = trials[trials["status"] == "completed"].groupby(keys, observed=True)
    scores = groups["score"]
    table = scores.agg(["count", "mean", "std", "min", "median", "max"])
    quartiles = scores.quantile([0.25, 0.75]).unstack()
    table["q1"], table["q3"] = quartiles[0.25], quartiles[0.75]
    table["se"] = table["std"] / np.sqrt(table["count"])
    half = stats.t.ppf(0.975, table["count"] - 1) * table["se"]
    table["ci_low"], table["ci_high"] = table["mean"] - half, table["mean"] + half
    table["iqr"], table["cv"] = table["q3"] - table["q1"], table["std"] / table["mean"].abs()
    table["failed_run_rate"] = groups["failed_run"].mean()

    wide = trials.pivot_table(index=["dataset_config", "model", "seed"], columns="strategy", values="score", observed=True)
    baseline = wide.columns[0]
    rows, p_values, bootstraps, bootstrap_seconds, pairs = [], [], 0, 0.0, 0
    random = np.random.default_rng(0)
    for strategy in wide.columns[1:]:
        spreads = []
        for dataset, block in wide[[baseline, strategy]].dropna().groupby(level=[0, 1], observed=True):
            theirs, ours = block[baseline].to_numpy(), block[strategy].to_numpy()
            pairs += 1
            difference = ours - theirs
            interval = stats.t.interval(0.95, len(ours) - 1, difference.mean(), stats.sem(difference))
            levene = stats.levene(ours, theirs, center="median").pvalue
            row = [dataset, strategy, difference.mean(), *interval, ours.var(ddof=1) / theirs.var(ddof=1), levene]
            if bootstraps < some:
                before = time.perf_counter()
                found = stats.bootstrap(
                    (ours, theirs), variance_ratio, paired=True, n_resamples=RESAMPLES, method="BCa", rng=random, vectorized=True
                )
                row += [found.confidence_interval.low, found.confidence_interval.high]
                bootstrap_seconds += time.perf_counter() - before
                bootstraps += 1
            rows.append(row)
            spreads.append(ours.std(ddof=1) - theirs.std(ddof=1))
        p_values.append(stats.wilcoxon(spreads).pvalue)
    multipletests(p_values, method="holm")
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "trials": len(trials),
                "pairs": pairs,
                "seconds_without_bootstrap": seconds - bootstrap_seconds,
                "bootstrap_seconds_each": bootstrap_seconds / max(bootstraps, 1),
                "seconds": seconds - bootstrap_seconds + bootstrap_seconds / max(bootstraps, 1) * pairs,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
