#!/usr/bin/env python3
"""Makes the expected values of worker/tests/regularizers.rs with plain PyTorch.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 numpy
    /tmp/golden/bin/python scripts/golden_regularizers.py

Writes worker/tests/golden/regularizers.json, which is committed. Each value and gradient is computed in float64 from the
formula of its paper, written down here a second time; nothing comes from the engine.
"""

import json
import pathlib

import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "worker" / "tests" / "golden" / "regularizers.json"
torch.manual_seed(20230109)
torch.set_default_dtype(torch.float64)


def flat(tensor):
    return [float(value) for value in tensor.detach().flatten()]


def single(*shape):
    """Random numbers that are exact in float32, so that both sides begin alike."""
    return torch.randn(*shape).float().double()


def multi_head(rows, heads, classes, d):
    """Fu, So, Collier 2023: the mean over heads of the cross-entropy, and over examples that count."""
    features = single(rows, d).requires_grad_()
    weight = single(heads * classes, d).requires_grad_()
    bias = single(heads * classes).requires_grad_()
    labels = torch.randint(classes, (rows,))
    present = torch.tensor([i % 5 != 3 for i in range(rows)])
    loss = 0.0
    for head in range(heads):
        w, b = weight[head * classes :][:classes], bias[head * classes :][:classes]
        loss = loss + torch.nn.functional.cross_entropy((features @ w.T + b)[present], labels[present], reduction="sum")
    loss.backward()
    return dict(
        rows=rows, heads=heads, classes=classes, d=d, features=flat(features), weight=flat(weight), bias=flat(bias),
        labels=labels.tolist(), present=present.tolist(), loss=float(loss.detach()), features_gradient=flat(features.grad),
        weight_gradient=flat(weight.grad), bias_gradient=flat(bias.grad),
        mean_weight=flat(weight.detach().view(heads, classes, d).mean(0)),
    )


def maximal_margin(rows, classes, d):
    """Fu, So, Collier 2023: the mean over pairs of classes of 1 / (1 + |c_a - c_b|)."""
    features = single(rows, d).requires_grad_()
    labels = torch.randint(classes, (rows,))
    present = torch.tensor([i % 6 != 2 for i in range(rows)])
    centres = [
        features[present & (labels == c)].mean(0) for c in range(classes) if bool((present & (labels == c)).any())
    ]
    terms = [
        1 / (1 + torch.linalg.vector_norm(a - b)) for i, a in enumerate(centres) for b in centres[i + 1 :]
    ]
    value = torch.stack(terms).mean()
    value.backward()
    return dict(
        rows=rows, classes=classes, d=d, features=flat(features), labels=labels.tolist(), present=present.tolist(),
        value=float(value.detach()), gradient=flat(features.grad),
    )


def noise_stability(rows, d):
    """Hua et al. 2021: squared distances of features with and without noise."""
    clean, noisy = single(rows, d).requires_grad_(), single(rows, d).requires_grad_()
    weights = torch.tensor([float(i % 4 != 1) for i in range(rows)])
    value = (((noisy - clean) ** 2).sum(1) * weights).sum()
    value.backward()
    return dict(
        rows=rows, d=d, clean=flat(clean), noisy=flat(noisy), weights=flat(weights), value=float(value.detach()),
        gradient=flat(clean.grad),
    )


def pull(size):
    """Li, Grandvalet, Davoine 2018: the gradient of (lambda/2)|w - w0|^2 beside that of a loss."""
    w, w0, loss_gradient, strength = single(size).requires_grad_(), single(size), single(size), 0.37
    (strength / 2 * ((w - w0) ** 2).sum() + (w * loss_gradient).sum()).backward()
    return dict(w=flat(w), w0=flat(w0), loss_gradient=flat(loss_gradient), strength=strength, gradient=flat(w.grad))


def mixout(size, p):
    """Lee, Cho, Kang 2020, eq. 5, for masks that are given (1: the pre-trained value), and its gradient."""
    w, u, upstream = single(size).requires_grad_(), single(size), single(size)
    mask = torch.tensor([float((i * 7) % 10 < 10 * p) for i in range(size)])
    mixed = (mask * u + (1 - mask) * w - p * u) / (1 - p)
    (mixed * upstream).sum().backward()
    return dict(w=flat(w), u=flat(u), mask=flat(mask), p=p, mixed=flat(mixed), upstream=flat(upstream), gradient=flat(w.grad))


def lora(out, inputs, rank, alpha):
    """Hu et al. 2022: W + (alpha/r) B A."""
    w, a, b = single(out, inputs), single(rank, inputs), single(out, rank)
    return dict(out=out, inputs=inputs, rank=rank, alpha=alpha, w=flat(w), a=flat(a), b=flat(b), merged=flat(w + alpha / rank * b @ a))


def main():
    cases = dict(
        multi_head=[multi_head(7, 1, 2, 5), multi_head(11, 4, 3, 6), multi_head(16, 10, 2, 8)],
        maximal_margin=[maximal_margin(12, 2, 5), maximal_margin(20, 4, 6), maximal_margin(9, 3, 3)],
        noise_stability=[noise_stability(6, 5), noise_stability(10, 3)],
        pull=[pull(13)],
        mixout=[mixout(20, 0.3), mixout(20, 0.7)],
        lora=[lora(5, 4, 2, 4.0)],
    )
    OUT.write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
