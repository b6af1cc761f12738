"""The trace format, version 1, as data: calls, tensors, what was not provided. ``FORMAT.md`` tells it to people."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llama_core.errors import TraceError
from llama_core.names import activation_axes

FORMAT = "llama-core trace"
VERSION = 1
MANIFEST = "manifest.json"
NOISE = "noise.safetensors"

#: dtype in a safetensors header -> numpy's type of its bytes.
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
#: dtype of a manifest -> the header's name for it.
HEADER_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
}
DTYPE_NAMES = {header: name for name, header in HEADER_NAMES.items()}
#: Entries whose statistics are taken at a time.
_CHUNK = 1 << 17
#: Entries that are hashed at a time.
_HASHED = 1 << 15
#: From the finest to the coarsest.
FLOAT_DTYPES = ("float64", "float32", "float16", "bfloat16")
#: What inputs of products may be rounded to; ``q8_0`` and ``q8_k`` are llama.cpp's blocks of 32 and 256 whole numbers.
PRODUCT_INPUTS = ("float16", "bfloat16", "q8_0", "q8_k")


@dataclass(frozen=True)
class Statistics:
    """Of a whole tensor, in float64: over its finite entries, and how many are not finite.

    Attributes:
        sum, l2, min, max: Σx, √Σx², and the extremes; 0 where no entry is finite.
        nan, positive_infinity, negative_infinity: counts.
    """

    sum: float
    l2: float
    min: float
    max: float
    nan: int = 0
    positive_infinity: int = 0
    negative_infinity: int = 0

    @classmethod
    def of(cls, x: np.ndarray | Tensor) -> Statistics:
        flat = (x if isinstance(x, Tensor) else torch.from_numpy(np.require(x, requirements=["C", "W"]))).reshape(-1)
        total, square, low, high = 0.0, 0.0, math.inf, -math.inf
        counts = np.zeros(3, np.int64)
        room = torch.empty(min(_CHUNK, len(flat)), dtype=torch.float64, device=flat.device)
        for start in range(0, len(flat), _CHUNK):  # as much as a processor's cache holds in float64
            part = flat[start : start + _CHUNK]
            wide = room[: len(part)].copy_(part)
            least, most = (float(extreme) for extreme in torch.aminmax(part))
            if not (math.isfinite(least) and math.isfinite(most)):  # NaN is both
                counts += [int(f(part).sum()) for f in (torch.isnan, torch.isposinf, torch.isneginf)]
                finite = torch.isfinite(wide)
                least = float(wide.masked_fill(~finite, math.inf).min())
                most = float(wide.masked_fill_(~finite, -math.inf).max())
                wide.masked_fill_(~finite, 0.0)
            low, high = min(low, least), max(high, most)
            total += float(wide.sum())
            square += float(wide @ wide)
        found = map(int, counts)
        return cls(total, math.sqrt(square), low, high, *found) if high >= low else cls(0.0, 0.0, 0.0, 0.0, *found)


@dataclass(frozen=True)
class Call:
    """One forward pass.

    Attributes:
        input_ids: [B, S] token ids; 0 at padding.
        positions: [B, S] where each token stands in its sequence, from 0; -1 for padding.
        sequences: the sequence in each row of the batch.
        past: the earlier call whose keys and values this one reads before its own, or None.
        key_positions: [B, T] the position in every slot that attention reads; -1 for padding and unused slots.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    sequences: tuple[int, ...]
    past: int | None
    key_positions: np.ndarray


def make_call(earlier: list[Call], input_ids, positions, sequences, key_positions=None) -> Call:
    """A call behind those that came before it. Its past is the last earlier call on the same sequences whose positions
    all lie before its own; its slots are those of the past and then its own, unless stated."""
    past = None
    for number in range(len(earlier) - 1, -1, -1):
        if earlier[number].sequences == tuple(sequences):
            real = np.where(positions < 0, np.iinfo(np.int64).max, positions)
            if (earlier[number].key_positions.max(1) < real.min(1)).all():
                past = number
            break
    if key_positions is None:
        before = [earlier[past].key_positions] if past is not None else []
        key_positions = np.concatenate([*before, positions], axis=1)
    return Call(input_ids, positions, tuple(sequences), past, key_positions)


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of one call.

    Attributes:
        name: as in ``llama_core.names``, or, in a candidate with a map, the engine's own.
        call: the number of the call.
        axes: in the project's letters.
        shape: of the whole, rows as selected.
        dtype: what it is stored in.
        rows: which of the call's S query positions it holds; None for all.
        file: the safetensors file that holds it under its name; "" where there are statistics only.
        sha256: of its bytes.
    """

    name: str
    call: int
    axes: str
    shape: tuple[int, ...]
    dtype: str
    rows: tuple[int, ...] | None = None
    file: str = ""
    sha256: str = ""
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"name": self.name, "call": self.call, "axes": self.axes, "shape": list(self.shape)}
        facts["dtype"] = self.dtype
        if self.rows is not None:
            facts["rows"] = list(self.rows)
        if self.file:
            facts |= {"file": self.file, "sha256": self.sha256}
        if self.statistics:
            facts["statistics"] = vars(self.statistics)
        return facts


@dataclass(frozen=True)
class Manifest:
    """What a trace says of itself.

    Attributes:
        producer: name and version of the engine.
        config: hyper-parameters under the names of ``LlamaConfig``, or None.
        weights_sha256: see ``fingerprint``; "" where it is not known.
        compute_dtype: what the engine computes in. storage_dtype: what floating-point tensors are stored in.
        rope_layout: ``half`` or ``interleaved``.
        not_provided: pattern of names -> why the engine cannot give them.
        product_inputs: what the engine rounds the inputs of its products with weights to, where that is coarser than
            ``compute_dtype``, as engines with quantized weights do: see ``PRODUCT_INPUTS``; "" for nothing.
    """

    producer: dict[str, str]
    config: dict[str, Any] | None
    weights_sha256: str
    compute_dtype: str
    storage_dtype: str
    rope_layout: str
    calls: list[Call]
    tensors: list[TensorRecord] = field(default_factory=list)
    not_provided: dict[str, str] = field(default_factory=dict)
    product_inputs: str = ""

    @property
    def arithmetic(self) -> str:
        """What the noise of right runs depends on: ``float32``, or ``float32:q8_0`` where inputs of products are."""
        coarser = max((self.compute_dtype, self.storage_dtype), key=FLOAT_DTYPES.index)
        return f"{coarser}:{self.product_inputs}" if self.product_inputs else coarser

    def to_json(self) -> dict[str, Any]:
        model = {"config": self.config, "weights_sha256": self.weights_sha256}
        calls = [
            {
                "input_ids": c.input_ids.tolist(),
                "positions": c.positions.tolist(),
                "sequences": list(c.sequences),
                "past": c.past,
                "key_positions": c.key_positions.tolist(),
            }
            for c in self.calls
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            "producer": self.producer,
            "model": model,
            "compute_dtype": self.compute_dtype,
            "storage_dtype": self.storage_dtype,
            **({"product_inputs": self.product_inputs} if self.product_inputs else {}),
            "rope_layout": self.rope_layout,
            "calls": calls,
            "tensors": [t.to_json() for t in self.tensors],
            "not_provided": [{"names": names, "reason": why} for names, why in self.not_provided.items()],
        }


def known_axes(name: str) -> str:
    """The axes of an activation, "" for a name that is none."""
    try:
        return activation_axes(name)
    except KeyError:
        return ""


def expected_shape(axes: str, call: Call, rows: tuple[int, ...] | None, config) -> tuple[int, ...]:
    """What a tensor of a call has to look like; ``config`` is a LlamaConfig."""
    batch, new = call.positions.shape
    sizes = {
        "B": batch,
        "S": new if rows is None else len(rows),
        "T": call.key_positions.shape[1],
        "H": config.num_attention_heads,
        "K": config.num_key_value_heads,
        "D": config.head_dim,
        "E": config.hidden_size,
        "F": config.intermediate_size,
        "V": config.vocab_size,
    }
    return tuple(sizes[letter] for letter in axes.split())


def parse_rows(text: str | None, length: int) -> tuple[int, ...] | None:
    """``"0,last,16,4-7"`` as sorted row numbers of a prompt of that length; None or ``all`` for all of them."""
    if text is None or text == "all":
        return None
    rows: set[int] = set()
    for part in text.split(","):
        part = part.strip()
        first, dash, last = part.partition("-")
        try:
            if part == "last":
                rows.add(length - 1)
            elif dash:
                rows.update((int(first), int(last)))  # beyond the prompt it is refused, and not filled in
                rows.update(range(max(0, int(first)), min(int(last) + 1, length)))
            else:
                rows.add(int(part))
        except ValueError:
            rows.add(-1)
    if not rows or min(rows) < 0 or max(rows) >= length:
        raise TraceError(
            f"{text!r} selects no rows of a prompt of {length} tokens",
            key="rows",
            expected=f"numbers from 0 to {length - 1}, ranges such as 4-7, or last, with commas between",
            actual=text,
        )
    return tuple(sorted(rows))


def fingerprint(parameters) -> str:
    """sha256 over the parameters in the order of their names: each name in UTF-8, a zero byte, and the 32 bytes of the
    sha256 of its values as little-endian float32, row by row. A tied head counts once, as the embedding.

    Two parameters at a time are hashed, which is as many as are in memory where they are read for it.

    Args:
        parameters: (name, values) pairs, names as in ``Llama.state_dict()``, values as torch tensors, or as functions
            that read them.
    """
    ordered = sorted(parameters, key=lambda pair: pair[0])
    digest = hashlib.sha256()
    with ThreadPoolExecutor(2, "fingerprint") as pool:
        for (name, _), found in zip(ordered, pool.map(_digest, (values for _, values in ordered)), strict=True):
            digest.update(name.encode() + b"\0" + found)
    return digest.hexdigest()


def _digest(values: Tensor | Callable[[], Tensor]) -> bytes:
    """sha256 of values as float32, widened a piece at a time: too small a one for torch to make threads of its own."""
    flat = (values() if callable(values) else values).detach().reshape(-1)
    digest = hashlib.sha256()
    room = torch.empty(min(_HASHED, len(flat)))
    stored = room.numpy()
    for start in range(0, len(flat), _HASHED):
        part = flat[start : start + _HASHED]
        room[: len(part)].copy_(part)
        digest.update(stored[: len(part)].astype("<f4", copy=False).data)
    return digest.digest()
