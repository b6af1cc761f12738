"""How a step is computed: in which precision, in which order, and where values are rounded.

The float64 reference is ``Arithmetic()``. Every other setting is one that a right implementation may have; together
they measure how far right implementations lie apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

#: Steps that a fused attention kernel keeps to itself, unrounded.
_INSIDE_FUSED_ATTENTION = ("scores", "masked_scores", "attention_weights")
_BLOCK = 8
#: Longer sums are not taken term by term: it would take as long as everything else together.
_MOST_TERMS = 512


def round_to(x: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest values of a type, ties to even, as float64 (or as they are, for whole numbers and ``float64``)."""
    if dtype == "float64" or x.dtype.kind != "f":
        return x
    with np.errstate(over="ignore"):
        if dtype == "float32":
            return x.astype(np.float32).astype(np.float64)
        if dtype == "float16":
            return x.astype(np.float16).astype(np.float64)
        bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), np.nan, rounded.view(np.float32).astype(np.float64))


#: What engines with quantized weights make of the other factor: values of a row that share a scale, type of the scale.
QUANTIZED_INPUTS = {"q8_0": (32, np.float16), "q8_k": (256, np.float32)}


def round_blocks(x: np.ndarray, kind: str) -> np.ndarray:
    """Whole numbers from -127 to 127 times a scale for each block of the last axis: the block's largest value / 127.

    A last block that is not full is padded with zeros. Source: ``quantize_row_q8_0_ref`` and ``quantize_row_q8_K_ref``
    in ggml's ``ggml-quants.c``.
    """
    size, scale_dtype = QUANTIZED_INPUTS[kind]
    width = x.shape[-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -width % size)])
    blocks = padded.reshape(*x.shape[:-1], -1, size).astype(np.float64)
    scale = np.abs(blocks).max(-1, keepdims=True) / 127
    whole = np.rint(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0))
    with np.errstate(over="ignore"):
        return (whole * scale.astype(scale_dtype)).reshape(padded.shape)[..., :width]


@dataclass(frozen=True)
class Arithmetic:
    """One way to compute.

    Attributes:
        dtype: what every named value is rounded to.
        wide: what sums, norms, tables and softmax are computed in: ``float64`` or ``float32``.
        order: of summation: ``forward``, ``reversed``, ``blocked`` (partial sums of 8 terms, added up in turn), or
            ``sequential`` (one term after the other into one accumulator, as a plain loop does, up to 512 terms).
        fused_attention: scores and attention weights are not rounded on the way.
        norm_casts_last: RMSNorm multiplies by its weight before it rounds, not after.
        float32_tables: rotary angles, cosines and sines are rounded to float32.
        angles: of float32 tables: ``rounded``, position times a frequency that was rounded from float64; ``inexact``,
            with frequencies too large by two roundings, 2⁻²³ of themselves (powers and exponentials in float32 are off
            by one to five, each library's by others); ``chained``, each the pair's before times ``theta^(-2/D)``, as in
            llama.cpp (``ggml_rope_cache_init`` in ``ggml-cpu``): what that factor is off by adds up.
        rounded_tables: cosines and sines are rounded to ``dtype`` before they rotate, as transformers does.
        rounded_products: q·k is rounded before it is scaled, as where the two are separate operations.
        product_inputs: what the input of a product with a weight matrix is rounded to: a type, or one of
            ``QUANTIZED_INPUTS``; "" for nothing. llama.cpp does so where the matrix is stored in such a type.
    """

    dtype: str = "float64"
    wide: str = "float64"
    order: str = "forward"
    fused_attention: bool = False
    norm_casts_last: bool = False
    float32_tables: bool = False
    angles: str = "rounded"
    rounded_tables: bool = False
    rounded_products: bool = False
    product_inputs: str = ""

    def round_input(self, x: np.ndarray) -> np.ndarray:
        """The input of a product with a weight matrix."""
        if not self.product_inputs:
            return x
        blocks = self.product_inputs in QUANTIZED_INPUTS
        return round_blocks(x, self.product_inputs) if blocks else round_to(x, self.product_inputs)

    def round(self, x: np.ndarray, name: str = "") -> np.ndarray:
        if name in _INSIDE_FUSED_ATTENTION and self.fused_attention:
            return x
        return round_to(x, self.dtype)

    def widen(self, x: np.ndarray) -> np.ndarray:
        return x.astype(self.wide, copy=False)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``a @ b`` over the last axis of a and the last but one of b."""
        a, b = self.widen(a), self.widen(b)
        if self.order == "reversed":
            # Copied in the order in which it lies: a matrix that is passed transposed stays so, in half the time.
            return np.ascontiguousarray(a[..., ::-1]) @ np.copy(b[..., ::-1, :], order="K")
        if self.order == "blocked":
            total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), self.wide)
            for i in range(0, a.shape[-1], max(_BLOCK, a.shape[-1] // 64)):
                j = i + max(_BLOCK, a.shape[-1] // 64)
                total = total + a[..., i:j] @ b[..., i:j, :]
            return total
        if self.order == "sequential" and a.shape[-1] <= _MOST_TERMS:
            total = a[..., :1] * b[..., :1, :]
            for i in range(1, a.shape[-1]):
                total += a[..., i : i + 1] * b[..., i : i + 1, :]
            return total
        return a @ b

    def sum(self, x: np.ndarray, axis: int = -1) -> np.ndarray:
        """The sum over one axis, which is kept."""
        x = self.widen(x)
        if self.order == "reversed":
            return np.cumsum(np.flip(x, axis), axis=axis).take([-1], axis=axis)
        if self.order in ("blocked", "sequential"):
            return np.cumsum(x, axis=axis).take([-1], axis=axis)
        return x.sum(axis, keepdims=True)


REFERENCE = Arithmetic()


def right_arithmetics(dtype: str, product_inputs: str = "") -> list[Arithmetic]:
    """Ways to compute in a type that are all right; their spread is the noise floor.

    ``product_inputs``: an engine that rounds the inputs of its products with weights (see ``Arithmetic``) is right too.
    """
    if product_inputs:
        return [replace(arithmetic, product_inputs=product_inputs) for arithmetic in right_arithmetics(dtype)]
    plain = [
        Arithmetic(dtype, wide="float32", float32_tables=True),
        Arithmetic(dtype, wide="float32", order="reversed", float32_tables=True, rounded_products=True),
        Arithmetic(dtype, wide="float32", order="blocked", float32_tables=True),
        Arithmetic(dtype, wide="float64"),
        Arithmetic(dtype, wide="float32", fused_attention=True, norm_casts_last=True, float32_tables=True),
    ]
    if dtype == "float32":
        return plain
    tables = Arithmetic(dtype, wide="float32", float32_tables=True, rounded_tables=True, rounded_products=True)
    return [*plain, tables]


def right_engines(dtype: str, product_inputs: str = "") -> list[Arithmetic]:
    """``right_arithmetics``, two of which make rotary angles as other engines do: at positions in the hundreds that is
    more than all else that differs in a rotated query. (A gate's tolerance, of the largest error in a whole tensor, has
    room for it: 0.73 of one at position 2049.)"""
    ways = right_arithmetics(dtype, product_inputs)
    for n, angles in ((1, "inexact"), (2, "chained")):
        ways[n] = replace(ways[n], angles=angles)
    return ways


def plain_loops(dtype: str, product_inputs: str = "") -> Arithmetic:
    """What a small engine does: every sum a loop over one accumulator of the type, every angle from the one before. In
    float32 it is the noisiest right way; in half precision the rounding of values hides it, and sums are in float32."""
    return replace(chained_angles(dtype, product_inputs), order="sequential")


def chained_angles(dtype: str, product_inputs: str = "") -> Arithmetic:
    """What llama.cpp does with rotary angles; ten times further from exact ones than a table of float32 frequencies."""
    return replace(right_arithmetics(dtype, product_inputs)[0], angles="chained")


Made = TypeVar("Made")
_FIELDS = frozenset(field.name for field in fields(Arithmetic))


class _Watched(Arithmetic):
    """An arithmetic that remembers which of its fields were looked at."""

    def __init__(self, arithmetic: Arithmetic):
        object.__setattr__(self, "seen", set())
        super().__init__(**vars(arithmetic))

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            object.__getattribute__(self, "seen").add(name)
        return super().__getattribute__(name)


def each_once(arithmetics: Iterable[Arithmetic], evaluate: Callable[[Arithmetic], Made]) -> Iterator[Made]:
    """What ``evaluate`` makes of each arithmetic, the same thing once: one that agrees with an earlier one in every
    field that the evaluation looked at is passed over. A sum of two tensors, say, sees nothing but ``dtype``."""
    tried: list[dict[str, Any]] = []
    for arithmetic in arithmetics:
        if any(seen.items() <= vars(arithmetic).items() for seen in tried):
            continue
        watched = _Watched(arithmetic)
        yield evaluate(watched)
        tried.append({name: vars(arithmetic)[name] for name in vars(watched)["seen"]})
