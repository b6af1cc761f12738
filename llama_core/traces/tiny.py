"""The small reference: a model of a stated seed, its trace and its weights, the same bits wherever it is written.

Nothing is shipped but the seed: weights and ids are drawn by ``checkpoints.random_bits``. Activations are those of this
machine in float64, stored as float32.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch

from llama_core.checkpoints.cases import Stream, make_weights
from llama_core.config import LlamaConfig
from llama_core.model import Llama
from llama_core.names import activation_names
from llama_core.traces.noise import write_noise
from llama_core.traces.read import Trace
from llama_core.traces.recorder import Plan, manifest_of, plan_prompt, run_plan
from llama_core.traces.write import TraceWriter

#: K < H, D other than E / H, an odd number of layers: symmetry would hide mistakes.
TINY = LlamaConfig(
    vocab_size=101,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    dtype="float32",
)
_SEED, _LENGTH, _STEPS = 1_100, 12, 3


def tiny_model(dtype: str = "float32") -> Llama:
    """The model of ``--golden tiny``."""
    weights = make_weights(TINY, Stream(_SEED))
    model = Llama(TINY.replace(dtype=dtype))
    tensors = {name: torch.from_numpy(x).to(getattr(torch, dtype)) for name, x in weights.items()}
    model.load_state_dict(tensors, assign=True)
    return model


def tiny_plan() -> Plan:
    """Its prompt, the begin id first, and a few greedy steps."""
    ids = Stream(_SEED + 1).ids(1, _LENGTH, below=TINY.vocab_size)
    ids[:, 0] = TINY.bos_token_id
    return plan_prompt(np.asarray(ids), steps=_STEPS)


def write_tiny(folder: str | PathLike[str], noise: tuple[str, ...] = ("float32", "bfloat16")) -> Trace:
    """Write the small trace, and its model in the folder ``model`` inside; whole or not at all."""
    model, wanted = tiny_model(), activation_names(TINY.num_hidden_layers)
    manifest = manifest_of(model, "float32", compute_dtype="float64")
    with TraceWriter(folder, manifest) as writer:
        run_plan(tiny_model("float64"), tiny_plan(), writer, wanted)
        write_noise(writer.staged, writer, model, wanted, noise)
        model.save_pretrained(writer.staged / "model")
    return Trace.open(folder)
