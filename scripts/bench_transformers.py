"""Prints the rate of fine-tuning a BERT with PyTorch and Hugging Face transformers on one thread, as JSON.

Usage: bench_transformers.py FOLDER SAMPLES STEPS

A rival for `make bench`, on the texts and with the settings of `evenkeel-worker bench-finetune`: SAMPLES rows of FOLDER/movies.csv
from all of it, the encoder in FOLDER/minilm, 16 examples a step in random order padded to the longest of the step,
AdamW with weight decay 0.01, linear warm-up over a tenth of the steps and decay, clipping at 1, the model's own dropout.
"""

import csv
import json
import pathlib
import resource
import statistics
import sys
import time

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

WARM_UP = 5


def main():
    folder, samples, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with open(folder / "movies.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(1, len(rows) // samples)][:samples]
    texts = [row["text"] for row in rows]
    labels = torch.tensor([int(row["label"] == "positive") for row in rows])
    tokenizer = AutoTokenizer.from_pretrained(folder / "minilm")
    encoded = [tokenizer(text, truncation=True, max_length=128) for text in texts]
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "minilm", num_labels=2, attn_implementation="sdpa"
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    spent, losses, order = [], [], []
    for step in range(steps):
        if len(order) < 16:
            order = torch.randperm(len(rows)).tolist()
        chosen, order = order[:16], order[16:]
        began = time.perf_counter()
        batch = tokenizer.pad([encoded[i] for i in chosen], return_tensors="pt")
        loss = model(**batch, labels=labels[chosen]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step >= WARM_UP:
            spent.append(time.perf_counter() - began)
    rate = len(spent) / sum(spent)
    result = {
        "steps_per_s": rate,
        "examples_per_s": 16 * rate,
        "median_step_s": statistics.median(spent),
        "loss": statistics.mean(losses[steps // 2 :]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
