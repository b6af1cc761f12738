"""A small random model with grouped heads, and traces of it."""

import json

import torch

from llama_core import Llama, LlamaConfig
from llama_core.traces import record

CONFIG = LlamaConfig(
    vocab_size=53,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
)
NOISE = ("float32", "bfloat16")


def model(seed=1, dtype="float32", **changes):
    return Llama.random(CONFIG.replace(**changes), seed=seed, dtype=dtype)


def ids(rows=1, length=7, seed=0):
    return torch.randint(0, CONFIG.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def golden(folder, made=None, rows=1, steps=2, noise=NOISE, **options):
    return record(made or model(), ids(rows), folder, steps=steps, noise=noise, **options)


def edit_manifest(folder, change):
    """Rewrite the manifest of a trace after ``change`` has been called on its JSON."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
