#!/usr/bin/env python3
"""Makes the expected values of worker/tests/models.rs with PyTorch and transformers.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors numpy
    /tmp/golden/bin/python scripts/golden_models.py

Writes worker/tests/golden/models/, which is committed; it takes a few seconds. For each family there is FAMILY.json, the
encoder's configuration as transformers writes it, and FAMILY.safetensors with weights (random, under the names that
files of the hub use), a batch with padding, and under `golden.` what transformers computes from them in float64: hidden
states, pooled vectors, scores of the masked language model, and the gradient of a fixed loss for every parameter.

With the files of all-MiniLM-L6-v2 (config.json, model.safetensors, tokenizer.json) in .deps/data/minilm it also writes
minilm.safetensors: the tokens of a few sentences, and what the encoder makes of them.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    ElectraConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "worker" / "tests" / "golden" / "models"
MINILM = ROOT / ".deps" / "data" / "minilm"

SIZES = dict(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=16,
)
LENGTHS = [9, 4, 7]
# Rows of the batch's tokens that the masked language model scores.
SCORED = [1, 5, 11, 17]
SENTENCES = [
    "Fine-tuning is unstable.",
    "The same recipe, started from another seed, may end at another accuracy.",
    "Why?",
    "A sentence with rarer words: heteroscedasticity, Evenkeel, naïve.",
]

# What each family's file is like: whether names have the prefix, and which names LayerNorm's parameters have.
FAMILIES = {
    "bert": (BertConfig(**SIZES, layer_norm_eps=1e-12, pad_token_id=0), True, ("gamma", "beta")),
    "roberta": (
        RobertaConfig(**SIZES, layer_norm_eps=1e-5, pad_token_id=1, type_vocab_size=1, hidden_act="relu"),
        True,
        ("weight", "bias"),
    ),
    "electra": (ElectraConfig(**SIZES, embedding_size=24), True, ("weight", "bias")),
    "albert": (
        AlbertConfig(**SIZES, embedding_size=24, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
        False,
        ("weight", "bias"),
    ),
}


def randomize(model, generator):
    """Gives every parameter values that matter: by default LayerNorm is the identity and biases are 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1.0)


def family(name, config, prefixed, norm):
    generator = torch.Generator().manual_seed(20)
    base, mlm = AutoModel.from_config(config), AutoModelForMaskedLM.from_config(config)
    randomize(base, generator)
    randomize(mlm, generator)
    # One encoder for both: the second one's has no pooler.
    setattr(mlm, mlm.base_model_prefix, base)
    mlm.tie_weights()
    mlm.eval()

    pad = config.pad_token_id
    length = max(LENGTHS)
    mask = torch.arange(length)[None] < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(2, config.vocab_size, mask.shape, generator=generator).where(mask, torch.tensor(pad))
    types = torch.randint(0, config.type_vocab_size, mask.shape, generator=generator).where(mask, torch.tensor(0))

    stored = {}
    for key, tensor in mlm.state_dict().items():
        if "decoder" in key or key == "generator_lm_head.weight" or "position_ids" in key:
            continue
        if not prefixed:
            key = key.removeprefix(mlm.base_model_prefix + ".")
        key = key.replace("LayerNorm.weight", "LayerNorm." + norm[0]).replace("LayerNorm.bias", "LayerNorm." + norm[1])
        stored[key] = tensor.clone()

    mlm.double()
    out = base(input_ids=ids, attention_mask=mask.long(), token_type_ids=types, output_hidden_states=True)
    last, real = out.last_hidden_state, mask[..., None].double()
    mean = (last * real).sum(1) / real.sum(1)
    pooled = getattr(out, "pooler_output", None)
    logits = mlm(input_ids=ids, attention_mask=mask.long(), token_type_ids=types).logits[mask][SCORED]

    golden = {f"hidden.{i}": hidden * real for i, hidden in enumerate(out.hidden_states)}
    golden |= {"mean": mean, "logits": logits}
    # Each factor of the loss is a tensor that the test multiplies the same output with.
    outputs = {"last": last[mask], "mean": mean, "logits": logits}
    if pooled is not None:
        golden["pooled"] = pooled
        outputs["pooled"] = pooled
    loss = 0.0
    for key, output in outputs.items():
        factor = torch.randn(output.shape, generator=generator) / output.numel() ** 0.5
        golden[f"factor.{key}"] = factor
        loss = loss + (output * factor.double()).sum()
    loss.backward()
    golden["loss"] = loss.reshape(1)
    for key, parameter in mlm.named_parameters():
        golden["gradient." + key.removeprefix(mlm.base_model_prefix + ".")] = parameter.grad

    stored |= {"golden." + key: value.detach().float().contiguous() for key, value in golden.items()}
    stored |= {"golden.ids": ids, "golden.types": types, "golden.mask": mask, "golden.scored": torch.tensor(SCORED)}
    save_file(stored, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(json.dumps(config.to_dict(), indent=1, sort_keys=True) + "\n")


def minilm():
    model = AutoModel.from_pretrained(MINILM).double().eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(MINILM / "tokenizer.json"), pad_token="[PAD]")
    tokenizer._tokenizer.no_truncation()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    # The tokenizer's file may ask for padding to a fixed length.
    length = int(mask.sum(1).max())
    ids, mask = ids[:, :length].contiguous(), mask[:, :length].contiguous()
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))
    real = mask[..., None].double()
    last = out.last_hidden_state
    stored = {
        "ids": ids,
        "mask": mask.bool(),
        "first": last[:, 0].float().contiguous(),
        "mean": ((last * real).sum(1) / real.sum(1)).float(),
        "pooled": out.pooler_output.float(),
    }
    save_file(stored, OUT / "minilm.safetensors")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (config, prefixed, norm) in FAMILIES.items():
        family(name, config, prefixed, norm)
    if (MINILM / "model.safetensors").exists():
        minilm()
