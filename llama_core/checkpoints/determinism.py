"""What is the same bits and what is only near: measured, with the tolerances that hold.

``python -m llama_core.checkpoints.determinism`` measures on this machine and prints a table; ``--write FOLDER`` also
writes ``determinism.json`` and ``determinism.md`` there.

Same machine, same shapes, same path: same bits. Two right computations that differ in shape or path each lie within one
tolerance of the reference, so they lie within two of each other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from llama_core.cache import KVCache
from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.cases import Stream, make_weights
from llama_core.checkpoints.compare import error
from llama_core.checkpoints.environment import environment
from llama_core.checkpoints.noise import DTYPES, FACTOR, measure_values
from llama_core.checkpoints.procedures import model as model_procedure
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import checkpoint
from llama_core.config import LlamaConfig
from llama_core.model import Llama

#: Large enough that kernels split their work among threads, small enough for the float64 reference.
CONFIG = LlamaConfig(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
ROWS, LENGTH, SEED = 8, 32, 8_800


@dataclass(frozen=True)
class Measurement:
    """Two ways to compute the same logits.

    Attributes:
        what: the two ways. dtype: of the model.
        same_bits: whether all bits are equal.
        error: max |a - b| / rms(b).
        tolerance: what it is held to: 0 where the same bits are promised.
    """

    what: str
    dtype: str
    same_bits: bool
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance


def random_model(dtype: str, device: str = "cpu") -> tuple[Llama, Tensor]:
    """A model of ``CONFIG`` and ids [8, 32], the same bits everywhere."""
    stream = Stream(SEED)
    ids = torch.tensor(stream.ids(ROWS, LENGTH, below=CONFIG.vocab_size), device=device)
    model = Llama(CONFIG)
    weights = make_weights(CONFIG, stream)
    model.load_state_dict(
        {name: torch.tensor(w, dtype=getattr(torch, dtype), device=device) for name, w in weights.items()}, assign=True
    )
    return model.to(device).eval(), ids


@torch.no_grad()
def in_chunks(model: Llama, ids: Tensor, *sizes: int) -> Tensor:
    """Logits from a cache that is fed so many tokens at a time, the last size over and over."""
    cache = KVCache(model.config, ids.shape[0], ids.shape[1], model.dtype, model.device)
    parts, begin = [], 0
    for n in range(ids.shape[1]):
        end = min(begin + sizes[min(n, len(sizes) - 1)], ids.shape[1])
        parts.append(model(ids[:, begin:end], cache=cache))
        begin = end
        if begin == ids.shape[1]:
            break
    return torch.cat(parts, dim=1)


@torch.no_grad()
def measure(dtype: str, device: str = "cpu") -> list[Measurement]:
    """All comparisons in one type."""
    model, ids = random_model(dtype, device)
    whole = model(ids)
    near = 2 * _tolerance(dtype)
    found = []

    def compare(what: str, first: Tensor, second: Tensor, tolerance: float) -> None:
        a, b = (x.double().cpu().numpy() for x in (first, second))
        found.append(Measurement(what, dtype, torch.equal(first, second), error(a, b), tolerance))

    for n in (2, 3):
        compare(f"the same pass, time {n} against time 1", model(ids), whole, 0.0)
    found.append(_in_new_process(dtype, device, whole))
    if torch.device(device).type == "cpu":
        compare("2 threads against 1", _with_threads(2, model, ids), _with_threads(1, model, ids), near)
    compare("batch of 8 against single rows", whole, torch.cat([model(row[None]) for row in ids]), near)
    compare("cached, one token at a time, against uncached", in_chunks(model, ids, 1), whole, near)
    compare("cached twice, one token at a time", in_chunks(model, ids, 1), in_chunks(model, ids, 1), 0.0)
    compare("prefill of 16 and single tokens against uncached", in_chunks(model, ids, 16, 1), whole, near)
    compare("chunks of 8 against uncached", in_chunks(model, ids, 8), whole, near)
    compare("left padding of 5 against none", _padded(model, ids, 5), whole, near)
    model.attention = "eager"
    compare("eager against fused attention", model(ids), whole, near)
    return found


def _padded(model: Llama, ids: Tensor, count: int) -> Tensor:
    padding = torch.zeros(len(ids), count, dtype=ids.dtype, device=ids.device)
    mask = torch.cat([padding, torch.ones_like(ids)], dim=1)
    return model(torch.cat([padding, ids], dim=1), attention_mask=mask)[:, count:]


def _with_threads(count: int, model: Llama, ids: Tensor) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return model(ids)
    finally:
        torch.set_num_threads(before)


def digest(x: Tensor) -> str:
    """sha256 of a tensor's bytes."""
    return hashlib.sha256(x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _in_new_process(dtype: str, device: str, expected: Tensor) -> Measurement:
    code = (
        "import torch, llama_core.checkpoints.determinism as d\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"model, ids = d.random_model({dtype!r}, {device!r})\n"
        "with torch.no_grad(): print(d.digest(model(ids)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    same = found == digest(expected)
    return Measurement("in a new process", dtype, same, 0.0 if same else float("inf"), 0.0)


def _tolerance(dtype: str) -> float:
    """Of this model's logits, measured on the spot like that of any case that does not ship (on one row)."""
    stream = Stream(SEED)
    ids = stream.ids(ROWS, LENGTH, below=CONFIG.vocab_size)[:1]
    inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1}
    weights = {name: round_to(w.astype("f8"), dtype) for name, w in make_weights(CONFIG, stream).items()}
    reference = run_procedure(model_procedure, inputs, weights, CONFIG)
    return FACTOR * measure_values(checkpoint("7"), inputs, weights, CONFIG, reference, dtype)["logits"]


def as_markdown(measurements: list[Measurement], facts: dict) -> str:
    """The table, with what it was measured on."""
    lines = [
        "# What is the same bits, and what is near",
        "",
        "Logits of a random model (E 256, 2 layers, 8 rows of 32 tokens); errors are max |a - b| / rms(b). A tolerance "
        "of 0 promises the same bits; the others are twice that of a right implementation, measured on the same model. "
        "Written by `python -m llama_core.checkpoints.determinism --write benchmarks/results`.",
        "",
        ", ".join(f"{key} {value}" for key, value in facts.items()) + ".",
        "",
        "| two ways | dtype | same bits | error | tolerance |",
        "|---|---|---|---|---|",
    ]
    for m in measurements:
        same = "yes" if m.same_bits else "no"
        lines.append(f"| {m.what} | {m.dtype} | {same} | {m.error:.2g} | {m.tolerance:.2g} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure which ways to compute the same logits give the same bits, and how near the others are."""
    parser = argparse.ArgumentParser(prog="python -m llama_core.checkpoints.determinism", description=main.__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", metavar="FOLDER", type=Path)
    args = parser.parse_args()
    facts = environment(args.device)
    measurements = [m for dtype in DTYPES for m in measure(dtype, args.device)]
    text = as_markdown(measurements, facts)
    print(text)
    if args.write:
        name = "determinism" if args.device == "cpu" else f"determinism_{torch.device(args.device).type}"
        document = {"environment": facts, "measurements": [asdict(m) for m in measurements]}
        (args.write / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (args.write / f"{name}.md").write_text(text)
    return 0 if all(m.holds for m in measurements) else 1


if __name__ == "__main__":
    sys.exit(main())
