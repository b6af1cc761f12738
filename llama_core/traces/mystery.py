"""A small engine with one hidden mistake in one hidden layer, to be found with ``llama-core compare``.

The text of the seed decides which; nothing in the files says so. The engine is the table of steps in float32.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from llama_core.checkpoints.arithmetic import Arithmetic
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes import CATALOGUE, Mistake
from llama_core.checkpoints.steps import evaluate_model
from llama_core.errors import TraceError
from llama_core.names import activation_names
from llama_core.traces.read import Trace
from llama_core.traces.tiny import TINY, tiny_model, write_tiny
from llama_core.traces.write import TraceWriter

#: Mistakes of a layer's steps that always make a difference.
ELIGIBLE: tuple[Mistake, ...] = tuple(
    m
    for m in CATALOGUE.values()
    if m.checkpoint in ("1", "1B", "2", "3", "4", "5", "6")
    and m.changes.steps
    and m.changes.config is None
    and m.changes.weights is None
    and not m.equivalent
)


@dataclass(frozen=True)
class Solution:
    """The mistake and the layer that a seed stands for."""

    mistake: Mistake
    layer: int


@dataclass(frozen=True)
class Grade:
    """What is right about an answer."""

    layer: bool
    mistake: bool

    @property
    def passed(self) -> bool:
        return self.layer and self.mistake

    def __str__(self) -> str:
        if self.passed:
            return "Right: the layer and the mistake."
        if self.layer:
            return "The layer is right, the mistake is not."
        return (
            "The mistake is right, the layer is not." if self.mistake else "Neither the layer nor the mistake is right."
        )


def solution(seed: str) -> Solution:
    """What a seed hides. Never layer 0, where whatever is wrong looks like the input."""
    number = int.from_bytes(hashlib.sha256(f"mystery {seed}".encode()).digest()[:8], "little")
    return Solution(ELIGIBLE[number % len(ELIGIBLE)], 1 + number // len(ELIGIBLE) % (TINY.num_hidden_layers - 1))


def write_mystery(seed: str, folder: str | PathLike[str]) -> Trace:
    """Write ``FOLDER/golden`` (the trace and ``golden/model``) and ``FOLDER/mystery``, the engine's trace."""
    place = Path(folder).expanduser()
    golden = write_tiny(place / "golden", noise=("float32",))
    hidden = solution(seed)
    manifest = dataclasses.replace(
        golden.manifest,
        producer={"name": "mystery"},
        compute_dtype="float32",
        weights_sha256="",
        calls=[],
        tensors=[],
    )
    weights = {name: p.detach().double().numpy() for name, p in tiny_model().state_dict().items()}
    changes = hidden.mistake.changes.on_layers(hidden.layer)
    arithmetic = Arithmetic("float32", wide="float32", order="blocked", float32_tables=True)
    past: dict[str, np.ndarray] = {}
    with TraceWriter(place / "mystery", manifest) as writer:
        for number, call in enumerate(golden.calls):
            writer.begin_call(call)
            given = {"input_ids": call.input_ids, "attention_mask": (call.key_positions >= 0).astype(np.int64)}
            context = Context(TINY, weights, given, arithmetic, past, call=number)
            with np.errstate(all="ignore"):
                values = evaluate_model(context, changes)
            past = {n: x for n, x in values.items() if n == "key_positions" or n.endswith((".cache_k", ".cache_v"))}
            for name in activation_names(TINY.num_hidden_layers):
                writer.add(name, values[name])
    return Trace.open(place / "mystery")


def grade(seed: str, answer: str) -> Grade:
    """Mark an answer such as ``2:rope-sign-flipped``.

    Raises:
        TraceError: when it is no layer and id, or the id is not known.
    """
    layer, colon, id = answer.strip().partition(":")
    if not colon or not layer.strip().isascii() or not layer.strip().isdigit() or id.strip() not in CATALOGUE:
        raise TraceError(
            f"{answer!r} is no answer",
            key="--check",
            expected="LAYER:ID, such as 2:rope-sign-flipped",
            actual=answer,
            hint="llama-core explain lists the ids",
        )
    hidden = solution(seed)
    return Grade(int(layer) == hidden.layer, id.strip() == hidden.mistake.id)
