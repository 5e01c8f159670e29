#!/usr/bin/env python3
"""Makes the expected values of worker/tests/golden.rs with numpy, scipy and scikit-learn.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install numpy scipy scikit-learn blake3
    /tmp/golden/bin/python scripts/golden.py

Writes worker/tests/golden/{head,margin,classification}.json, which are committed; it takes about a minute. Nothing
here comes from the engine: the generator of random numbers, the data, the training in float64 and the measures are
written a second time, from their definitions. The hard margin of two classes is that of scikit-learn's SVC on the
training set joined with its mirror image (x, y) -> (-x, -y): by symmetry its intercept is 0, so it is the margin of a
separator through the origin. For more classes it is the Crammer-Singer problem, solved by scipy's SLSQP.
"""

import json
import math
import pathlib

import numpy as np
from blake3 import blake3
from scipy.optimize import linprog, minimize
from sklearn.datasets import make_classification
from sklearn.svm import SVC

OUT = pathlib.Path(__file__).resolve().parent.parent / "worker" / "tests" / "golden"
MASK = 0xFFFFFFFF


class Stream:
    """Philox4x32-10 (Salmon et al. 2011), keyed by purpose, seed and position."""

    def __init__(self, key, purpose, seed, position):
        h = blake3(key + purpose.encode() + seed.to_bytes(8, "little") + position.to_bytes(8, "little")).digest()
        words = [int.from_bytes(h[4 * i : 4 * i + 4], "little") for i in range(4)]
        self.key, self.nonce, self.block, self.words, self.spare = words[:2], words[2:], 0, [], None

    def u32(self):
        if not self.words:
            c, k = [self.block & MASK, self.block >> 32, *self.nonce], list(self.key)
            for r in range(10):
                if r:
                    k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
                a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
                c = [(b >> 32) ^ c[1] ^ k[0], b & MASK, (a >> 32) ^ c[3] ^ k[1], a & MASK]
            self.block += 1
            self.words = c
        return self.words.pop(0)

    def u64(self):
        low = self.u32()
        return low | self.u32() << 32

    def uniform(self):
        return (self.u64() >> 11) / 2**53

    def below(self, n):
        threshold = (2**64 - n) % n
        while True:
            wide = self.u64() * n
            if wide % 2**64 >= threshold:
                return wide >> 64

    def normal(self):
        if self.spare is not None:
            value, self.spare = self.spare, None
            return value
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        angle = 2 * math.pi * self.uniform()
        self.spare = radius * math.sin(angle)
        return radius * math.cos(angle)

    def shuffled(self, n):
        items = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def sample(self, n, k):
        items = list(range(n))
        for i in range(k):
            j = i + self.below(n - i)
            items[i], items[j] = items[j], items[i]
        return sorted(items[:k])


def dataset_key(sweep_seed, text):
    return blake3(sweep_seed.to_bytes(8, "little") + text.encode()).digest()


def blobs(config, key):
    """Training and test set, rounded to float32 as the engine's are."""
    d, classes = config["features"], config["classes"]
    structure = Stream(key, "structure", 0, 0)
    box, std = config["center_box"], config["cluster_std"]
    centers = np.array([box * (2 * structure.uniform() - 1) for _ in range(d * classes)]).reshape(classes, d)

    def draw(purpose, rows):
        stream = Stream(key, purpose, 0, 0)
        y = np.arange(rows) % classes
        x = np.array([[centers[c][j] + std * stream.normal() for j in range(d)] for c in y])
        return x.astype(np.float32).astype(np.float64), y

    return *draw("train_samples", config["samples"]), *draw("test_samples", config["test_samples"])


def rows_of(classes):
    return 1 if classes == 2 else classes


def gradient(w, x, y, classes):
    """Mean gradient of the cross-entropy in w [rows, width]."""
    z = x @ w.T
    if classes == 2:
        s = np.where(y == 1, 1.0, -1.0)
        r = (-s / (1 + np.exp(s * z[:, 0])))[:, None]
    else:
        p = np.exp(z - z.max(1, keepdims=True))
        r = p / p.sum(1, keepdims=True) - np.eye(classes)[y]
    return r.T @ x / len(y)


def train(w, x, y, classes, s, divisor, keep_at):
    """Trains one head with the strategy s; its weights at each step of keep_at."""
    w, v, m, kept = w.copy(), np.zeros_like(w), np.zeros_like(w), {0: w.copy()}
    decay = np.full(w.shape[1], s["weight_decay"])
    if s["bias"]:
        decay[-1] = 0.0
    for t in range(1, s["steps"] + 1):
        g = gradient(w, x, y, classes) / divisor + decay * w
        if s["optimizer"] == "gd":
            w -= s["learning_rate"] * g
        elif s["optimizer"] == "momentum":
            v = s["momentum"] * v + g
            w -= s["learning_rate"] * v
        else:
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            w -= s["learning_rate"] * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if t in keep_at:
            kept[t] = w.copy()
    return kept


def losses(w, x, y, classes):
    """Cross-entropy, predicted class and margin of each sample."""
    z = x @ w.T
    if classes == 2:
        margin = np.where(y == 1, 1.0, -1.0) * z[:, 0]
        return np.logaddexp(0, -margin), (z[:, 0] > 0).astype(int), margin
    top = z.max(1)
    loss = np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(y)), y]
    others = np.where(np.eye(classes)[y] == 1, -np.inf, z).max(1)
    return loss, z.argmax(1), z[np.arange(len(y)), y] - others


def hard_margin(x, y, classes):
    """(margin, unit direction), or None when the set is not separable."""
    d = x.shape[1]
    if classes == 2:
        a = x * np.where(y == 1, 1.0, -1.0)[:, None]
    else:
        rows = []
        for xi, yi in zip(x, y):
            for c in range(classes):
                if c != yi:
                    row = np.zeros((classes, d))
                    row[yi] += xi
                    row[c] -= xi
                    rows.append(row.ravel())
        a = np.array(rows)
    # Separable if some w in the unit box has a positive margin t.
    k = a.shape[1]
    box = [(-1, 1)] * k + [(None, None)]
    lp = linprog(np.r_[np.zeros(k), -1.0], A_ub=np.c_[-a, np.ones(len(a))], b_ub=np.zeros(len(a)), bounds=box)
    if -lp.fun < 1e-7:
        return None
    if classes == 2:
        svc = SVC(C=1e9, kernel="linear", tol=1e-10, max_iter=20_000_000)
        svc.fit(np.vstack([a, -a]), np.r_[np.ones(len(a)), -np.ones(len(a))])
        w = svc.coef_[0]
    else:
        start = np.array([x[y == c].mean(0) for c in range(classes)]).ravel()
        found = minimize(
            lambda w: 0.5 * w @ w,
            start,
            jac=lambda w: w,
            constraints={"type": "ineq", "fun": lambda w: a @ w - 1, "jac": lambda w: a},
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 3000},
        )
        w = found.x
    w = w / np.linalg.norm(w)
    return (a @ w).min(), w


def unit(w):
    return w / np.linalg.norm(w)


def measure(case):
    config, s, seed = case["dataset"], case["strategy"], case["seed"]
    classes, n, d = config["classes"], config["samples"], config["features"]
    key = dataset_key(case["sweep_seed"], case["dataset_json"])
    x, y, x_test, y_test = blobs(config, key)
    width = d + s["bias"]
    if s["bias"]:
        x, x_test = np.c_[x, np.ones(n)], np.c_[x_test, np.ones(len(x_test))]
    removed = math.floor(s["data_perturbation"] * n + 0.5)
    kept = np.ones(n, bool)
    if removed:
        kept[Stream(key, "data_perturbation", seed, 0).sample(n, removed)] = False
    order = [i for i in Stream(key, "leave_one_out", 0, 0).shuffled(n) if kept[i]]
    left_out = order[: case["leave_one_out"]]
    steps = sorted({*s["checkpoints"], s["steps"]})
    divisor = s["heads"] if s["reduction"] == "mean" else 1

    def fit(mask):
        heads = []
        for head in range(s["heads"]):
            stream = Stream(key, "head_initialization", seed, head)
            w = np.zeros((rows_of(classes), width))
            w[:, :d] = [[np.float32(s["init_std"] * stream.normal()) for _ in range(d)] for _ in w]
            heads.append(train(w, x[mask], y[mask], classes, s, divisor, steps))
        return {t: np.mean([h[t] for h in heads], 0) for t in {0, *steps}}

    model = fit(kept)
    refits = []
    for i in left_out:
        mask = kept.copy()
        mask[i] = False
        refits.append(fit(mask))
    hard = hard_margin(x, y, classes)
    curve = []
    for t in steps:
        w = model[t]
        loss, predicted, margin = losses(w, x[kept], y[kept], classes)
        test_loss, test_predicted, _ = losses(w, x_test, y_test, classes)
        distances = [np.linalg.norm(unit(w) - unit(r[t])) for r in refits]
        raw = [np.linalg.norm(w - r[t]) for r in refits]
        before = [losses(w, x[[i]], y[[i]], classes) for i in left_out]
        after = [losses(r[t], x[[i]], y[[i]], classes) for i, r in zip(left_out, refits)]
        curve.append(
            {
                "step": t,
                "accuracy": np.mean(test_predicted == y_test),
                "train_accuracy": np.mean(predicted == y[kept]),
                "majority": np.bincount(y_test).max() / len(y_test),
                "train_loss": loss.mean(),
                "eval_loss": test_loss.mean(),
                "margin": hard and hard[0],
                "trained_margin": margin.min() / np.linalg.norm(w),
                "weight_distance": np.linalg.norm(w - model[0]),
                "weight_norm": np.linalg.norm(w),
                "direction_residual": hard and np.linalg.norm(unit(w).ravel() - hard[1]),
                "loo_mean": np.mean(distances),
                "loo_max": np.max(distances),
                "loo_se": np.std(distances, ddof=1) / math.sqrt(len(distances)),
                "loo_raw_mean": np.mean(raw),
                "loo_raw_max": np.max(raw),
                "loo_flip_rate": np.mean([a[1][0] != b[1][0] for a, b in zip(after, before)]),
                "loo_loss_change": np.mean([a[0][0] - b[0][0] for a, b in zip(after, before)]),
                "predictions": test_predicted.tolist(),
            }
        )
    return curve


STRATEGY = {
    "steps": 150,
    "learning_rate": 0.1,
    "optimizer": "gd",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "bias": False,
    "init_std": 0.02,
    "data_perturbation": 0.0,
    "heads": 1,
    "reduction": "mean",
    "checkpoints": [],
}
PRIMAL = {"cluster_std": 1.0, "center_box": 1.0, "samples": 40, "features": 6, "classes": 2, "test_samples": 30}
WIDE = {**PRIMAL, "center_box": 2.5}
THREE = {**PRIMAL, "center_box": 2.5, "classes": 3, "samples": 45}
GRAM = {**PRIMAL, "samples": 24, "features": 30, "center_box": 0.5}
MOMENTUM = {"optimizer": "momentum", "momentum": 0.9, "learning_rate": 0.02}
ADAM = {"optimizer": "adam", "learning_rate": 0.01}
CASES = [
    ("gd", PRIMAL, {"checkpoints": [10, 50]}),
    ("momentum", PRIMAL, MOMENTUM),
    ("adam", WIDE, ADAM),
    ("gd with decay and bias", WIDE, {"weight_decay": 0.1, "bias": True}),
    ("momentum with decay and bias", PRIMAL, {**MOMENTUM, "weight_decay": 0.05, "bias": True}),
    ("adam with decay and bias", PRIMAL, {**ADAM, "weight_decay": 0.05, "bias": True}),
    ("five heads, mean", WIDE, {"heads": 5, "init_std": 0.5}),
    ("five heads, sum", PRIMAL, {"heads": 5, "reduction": "sum", "init_std": 0.5}),
    ("perturbed data", WIDE, {"data_perturbation": 0.1}),
    ("three classes, gd", THREE, {"checkpoints": [75]}),
    ("three classes, adam with decay and bias", THREE, {**ADAM, "weight_decay": 0.05, "bias": True}),
    ("three classes, momentum, three heads", THREE, {**MOMENTUM, "heads": 3, "data_perturbation": 0.2}),
    ("gram, gd with decay", GRAM, {"weight_decay": 0.1, "checkpoints": [20]}),
    ("gram, momentum with decay", GRAM, {**MOMENTUM, "weight_decay": 0.05, "heads": 2}),
    ("gram, gd with bias", GRAM, {"bias": True, "learning_rate": 0.02}),
    ("gram size, decay and bias", GRAM, {"bias": True, "weight_decay": 0.1, "learning_rate": 0.02}),
    ("gram, three classes", {**GRAM, "classes": 3, "samples": 30}, {**MOMENTUM, "weight_decay": 0.02}),
]


def head_cases():
    out = []
    for number, (name, dataset, strategy) in enumerate(CASES):
        config = {"generator": "blobs", **dataset, "instance": number}
        case = {
            "name": name,
            "sweep_seed": 11,
            "seed": 3,
            "leave_one_out": 6,
            "dataset": config,
            "dataset_json": json.dumps(config, separators=(",", ":")),
            "strategy": {**STRATEGY, **strategy},
        }
        case["curve"] = measure(case)
        out.append(case)
    return out


def margin_cases():
    out = []
    for seed, (n, d, classes, gap) in enumerate(
        [(30, 4, 2, 3.0), (60, 10, 2, 2.0), (20, 40, 2, 0.0), (30, 5, 3, 4.0), (24, 30, 3, 0.0), (32, 6, 4, 4.0), (30, 2, 2, 0.0)]
    ):
        rng = np.random.default_rng(seed)
        y = np.arange(n) % classes
        x = np.round(rng.normal(size=(n, d)) + gap * rng.normal(size=(classes, d))[y], 4)
        hard = hard_margin(x, y, classes)
        case = {"d": d, "classes": classes, "x": x.ravel().tolist(), "y": y.tolist()}
        out.append({**case, "margin": hard and hard[0], "direction": hard and hard[1].tolist()})
    return out


def statistics(x, y, cluster, p):
    """What the Rust test computes of its own draws as well."""
    inf, red, rep = p["informative"], p["redundant"], p["repeated"]
    clusters = p["classes"] * p["clusters_per_class"]
    used = inf + red
    means = np.array([x[cluster == k, :inf].mean(0) for k in range(clusters)])
    within = np.mean([x[cluster == k, :inf].var(0, ddof=1).mean() for k in range(clusters)])
    copies = sum(any(np.array_equal(x[:, used + j], x[:, i]) for i in range(used)) for j in range(rep))
    return {
        "classes": np.bincount(y, minlength=p["classes"]).tolist(),
        "flipped": np.mean(y != cluster % p["classes"]),
        "mean_abs_centroid": np.abs(means).mean(),
        "within_variance": within,
        "redundant_square": (x[:, inf:used] ** 2).mean() if red else 0.0,
        "noise_variance": x[:, used + rep :].var(),
        "rank": int(np.linalg.matrix_rank(x[:, :used])),
        "copies": copies,
    }


def classification_cases():
    base = {"informative": 4, "redundant": 3, "repeated": 2, "clusters_per_class": 2, "class_sep": 1.5, "flip_y": 0.1, "hypercube": True}
    out = []
    for change in [{"classes": 2}, {"classes": 3, "flip_y": 0.0}, {"classes": 2, "hypercube": False, "class_sep": 3.0}]:
        p = {**base, "features": 14, "samples": 600, **change}
        draws = []
        for seed in range(300):
            args = {"n_samples": p["samples"], "n_features": p["features"], "n_informative": p["informative"]}
            args |= {"n_redundant": p["redundant"], "n_repeated": p["repeated"], "n_classes": p["classes"]}
            args |= {"n_clusters_per_class": p["clusters_per_class"], "class_sep": p["class_sep"], "hypercube": p["hypercube"]}
            x, y = make_classification(**args, flip_y=p["flip_y"], shuffle=False, random_state=seed)
            # Without shuffling the clusters follow one another, as equal as can be.
            clusters = p["classes"] * p["clusters_per_class"]
            cluster = np.repeat(np.arange(clusters), p["samples"] // clusters)
            draws.append(statistics(x, y, cluster, p))
        names = ["flipped", "mean_abs_centroid", "within_variance", "redundant_square", "noise_variance"]
        out.append(
            {
                "config": p,
                "mean": {k: np.mean([d[k] for d in draws]) for k in names},
                "se": {k: np.std([d[k] for d in draws], ddof=1) / math.sqrt(len(draws)) for k in names},
                "ranks": sorted({d["rank"] for d in draws}),
                "copies": sorted({d["copies"] for d in draws}),
                "class_share_range": [min(min(d["classes"]) for d in draws), max(max(d["classes"]) for d in draws)],
            }
        )
    return out


def plain(value):
    """Numpy's numbers as Python's, reals with 12 digits."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.12g}") if isinstance(value, float) else value


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, cases in [("head", head_cases), ("margin", margin_cases), ("classification", classification_cases)]:
        path = OUT / f"{name}.json"
        path.write_text(json.dumps(plain(cases()), separators=(",", ":")) + "\n")
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
