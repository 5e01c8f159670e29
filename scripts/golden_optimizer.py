#!/usr/bin/env python3
"""Makes the expected values of worker/tests/optimizer.rs with PyTorch and Hugging Face's transformers.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 transformers==5.23.0
    /tmp/golden/bin/python scripts/golden_optimizer.py

Writes worker/tests/golden/optimizer.json, which is committed; it takes a few seconds. Weights and gradients are exact in
float32, the optimisers run in float64: what the test then measures is the rounding of the worker's float32. A case with
a scale or a mask gives PyTorch the scaled and masked gradient.
"""

import json
import pathlib

import torch
import transformers

OUT = pathlib.Path(__file__).resolve().parent.parent / "worker" / "tests" / "golden"
STEPS = 20
SHAPE = [3, 7]


def numbers(tensor):
    return tensor.flatten().tolist()


def draw(generator, low, high):
    """Numbers of both signs that stay away from zero, so that relative errors mean something."""
    size = torch.rand(SHAPE, generator=generator) * (high - low) + low
    sign = torch.randint(0, 2, SHAPE, generator=generator) * 2 - 1
    return (size * sign).float()


def optimizer_cases():
    adamw = {"rule": "adamw", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "learning_rate": 2e-3}
    sgd = {"rule": "sgd", "momentum": 0.0, "learning_rate": 5e-3}
    plain = {"weight_decay": 0.0, "gradient_scale": 1.0, "masked": False}
    for seed, change in enumerate(
        [
            adamw,
            adamw | {"weight_decay": 0.05},
            adamw | {"beta1": 0.85, "beta2": 0.98, "epsilon": 1e-3, "gradient_scale": 0.125, "weight_decay": 0.01},
            adamw | {"masked": True, "weight_decay": 0.01},
            sgd,
            sgd | {"weight_decay": 0.1},
            sgd | {"momentum": 0.9},
            sgd | {"momentum": 0.9, "weight_decay": 0.1, "gradient_scale": 0.5},
            sgd | {"momentum": 0.5, "masked": True},
        ]
    ):
        case = plain | change
        generator = torch.Generator().manual_seed(seed)
        start = draw(generator, 0.5, 1.5)
        mask = torch.ones(SHAPE)
        if case["masked"]:
            mask = (torch.rand(SHAPE, generator=generator) < 0.5).float() * 2
        gradients = [draw(generator, 0.01, 1.0) for _ in range(STEPS)]
        w = torch.nn.Parameter(start.double())
        rates = {"lr": case["learning_rate"], "weight_decay": case["weight_decay"]}
        if case["rule"] == "adamw":
            betas = (case["beta1"], case["beta2"])
            optimizer = torch.optim.AdamW([w], betas=betas, eps=case["epsilon"], **rates)
        else:
            optimizer = torch.optim.SGD([w], momentum=case["momentum"], **rates)
        after = []
        for g in gradients:
            w.grad = g.double() * case["gradient_scale"] * mask.double()
            optimizer.step()
            after.append(numbers(w.detach()))
        yield case | {
            "shape": SHAPE,
            "start": numbers(start),
            "mask": numbers(mask),
            "gradients": [numbers(g) for g in gradients],
            "weights": after,
        }


def schedule_cases():
    make = {
        "constant": lambda o, warmup, total: transformers.get_constant_schedule_with_warmup(o, warmup),
        "linear": transformers.get_linear_schedule_with_warmup,
        "cosine": transformers.get_cosine_schedule_with_warmup,
    }
    for name, schedule in make.items():
        for warmup, total in [(0, 20), (4, 20), (1, 7), (20, 20), (25, 20)]:
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
            scheduler = schedule(optimizer, warmup, total)
            rates = []
            for _ in range(30):
                rates.append(scheduler.get_last_lr()[0])
                optimizer.step()
                scheduler.step()
            yield {"schedule": name, "base": 3e-4, "warmup_steps": warmup, "total": total, "rates": rates}


def clip_cases():
    for seed, max_norm in enumerate([1.0, 0.1, 100.0]):
        generator = torch.Generator().manual_seed(100 + seed)
        parameters = [torch.nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (37, 64, 3)]
        gradients = [torch.randn(len(p), generator=generator) for p in parameters]
        for p, g in zip(parameters, gradients):
            p.grad = g.double()
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
        yield {
            "max_norm": max_norm,
            "gradients": [numbers(g) for g in gradients],
            "norm": norm,
            "clipped": [numbers(p.grad) for p in parameters],
        }


def short(value):
    """Reals with 12 digits: exact for float32 inputs once read as float32."""
    if isinstance(value, dict):
        return {k: short(v) for k, v in value.items()}
    if isinstance(value, list):
        return [short(v) for v in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def main():
    cases = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "optimizers": list(optimizer_cases()),
        "schedules": list(schedule_cases()),
        "clipping": list(clip_cases()),
    }
    path = OUT / "optimizer.json"
    path.write_text(json.dumps(short(cases), separators=(",", ":")) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
