"""How far one tensor is from another, for each token row and head.

A row and head is a *group*, and has its own unit: the root mean square of the right values in it, or a tenth of the
median over all groups where that is more. So one wrong head among hundreds is not diluted by the others, and a token
with huge activations (as the first of a text has) does not hide the rest. The error of a group is its largest absolute
deviation in that unit; its tolerance is ``FACTOR`` times the noise of right implementations in the same group, or the
upper quartile of that noise over all groups where that is more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llama_core.checkpoints.compare import HIDDEN
from llama_core.checkpoints.noise import FACTOR

_LEAST_UNIT = 0.1
_ENTRIES = 1 << 20
_COMMON = 0.75
#: Bits of the significand, the hidden one included.
PRECISION = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
#: Exponent of the smallest normal number as ``frexp`` gives it: below it the unit in the last place stays what it is.
_LEAST_EXPONENT = {"float64": -1021, "float32": -125, "float16": -13, "bfloat16": -125}


def parts(values: np.ndarray) -> Iterator[slice]:
    """Rows of [N, G, W], about a million entries at a time: figures in float64 take several times what they are of."""
    step = max(1, _ENTRIES * len(values) // max(values.size, 1))
    return (slice(start, start + step) for start in range(0, len(values), step))


def hide(candidate: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, bool]:
    """The candidate with -inf for what stands for it, and whether anything else stood there."""
    hidden = np.isneginf(right)
    if not hidden.any():
        return candidate, False
    stand_in = hidden & (candidate <= HIDDEN) & ~np.isneginf(candidate)
    return (np.where(stand_in, -np.inf, candidate), True) if stand_in.any() else (candidate, False)


def deviation(candidate: np.ndarray, right: np.ndarray) -> np.ndarray:
    """|a - b|; 0 for the same infinity, infinite for NaN on either side and for any other infinity."""
    with np.errstate(invalid="ignore"):
        d = np.abs(candidate.astype(np.float64) - right.astype(np.float64))
    d[np.isnan(d)] = np.inf
    d[(candidate == right)] = 0.0
    return d


def units(right: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """[N, G]: the unit of every group of values [N, G, W], of which those that are ``seen`` count."""
    rms = np.zeros(right.shape[:2])
    for part in parts(right):
        counted = np.isfinite(right[part]) if seen is None else np.isfinite(right[part]) & seen[part]
        x = np.where(counted, right[part], 0).astype(np.float64)
        rms[part] = np.sqrt(np.einsum("ngw,ngw->ng", x, x) / np.maximum(counted.sum(-1), 1))
    some = rms[rms > 0]
    if not some.size:
        return np.ones_like(rms)
    return np.maximum(rms, _LEAST_UNIT * np.median(some))


def group_errors(candidate: np.ndarray, right: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """[N, G]: the largest deviation of every group in its unit."""
    if not right.shape[-1]:
        return np.zeros(right.shape[:2])
    errors = np.empty(right.shape[:2])
    for part in parts(right):
        errors[part] = deviation(candidate[part], right[part]).max(-1)
    return errors / unit


def tolerances(floors: np.ndarray) -> np.ndarray:
    """[N, G]: what a right implementation may be off by, from noise [N, G]. A few right runs may by luck agree in a
    group; so it is never taken to be less than in three quarters of the groups."""
    return FACTOR * np.maximum(floors, np.quantile(floors, _COMMON)) if floors.size else floors


def worth(errors: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Errors in tolerances; more than 1 is wrong."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors == 0, 0.0, np.where(allowed > 0, errors / allowed, np.inf))


def rounding(right: np.ndarray, unit: np.ndarray, dtype: str) -> np.ndarray:
    """[N, G]: half a unit in the last place of the largest entry of every group."""
    largest = np.abs(np.where(np.isfinite(right), right, 0)).max(-1) if right.shape[-1] else np.zeros(unit.shape)
    return largest * 2.0 ** -PRECISION[dtype] / unit


def ulps(x: np.ndarray, dtype: str) -> np.ndarray:
    """The unit in the last place of each value in a type: the distance to the next larger magnitude.

    A zero has that of 1/2: in its own, the smallest number there is, any deviation would be astronomical.
    """
    exponent = np.maximum(np.frexp(np.abs(x))[1], _LEAST_EXPONENT[dtype])
    return np.ldexp(1.0, exponent - PRECISION[dtype])


@dataclass
class Measured:
    """The usual figures of two tensors, summed up over calls.

    Attributes:
        max_abs, max_ulp: the largest deviation, as it is and in units in the last place of the candidate's dtype.
        worst: [sequence, position, head, entry] of the largest deviation in its unit; worst_values: what the candidate
            and the right trace have there.
    """

    count: int = 0
    max_abs: float = 0.0
    max_ulp: float = 0.0
    sum_abs: float = 0.0
    square: float = 0.0
    square_right: float = 0.0
    square_candidate: float = 0.0
    product: float = 0.0
    worst: tuple[int, int, int, int] | None = None
    worst_error: float = 0.0
    worst_values: tuple[float, float] | None = None

    def add(self, candidate: np.ndarray, right: np.ndarray, unit: np.ndarray, rows, dtype: str) -> None:
        for part in parts(right):
            self._add(candidate[part], right[part], unit[part], rows.only(part), dtype)

    def _add(self, candidate: np.ndarray, right: np.ndarray, unit: np.ndarray, rows, dtype: str) -> None:
        both = np.isfinite(candidate) & np.isfinite(right)
        a, b = (np.where(both, x, 0).astype(np.float64) for x in (candidate, right))
        d = deviation(candidate, right)
        if not d.size:
            return
        finite = np.abs(a - b)
        self.count += int(both.sum())
        self.max_abs = max(self.max_abs, float(d.max()))
        self.max_ulp = max(self.max_ulp, float((finite / ulps(b, dtype)).max()))
        self.sum_abs += float(finite.sum())
        self.square += float((finite * finite).sum())
        self.square_right += float((b * b).sum())
        self.square_candidate += float((a * a).sum())
        self.product += float((a * b).sum())
        in_units = d / unit[..., None]
        at = np.unravel_index(int(in_units.argmax()), d.shape)
        if self.worst is None or in_units[at] > self.worst_error:
            self.worst_error = float(in_units[at])
            self.worst = (int(rows.sequence[at[0]]), int(rows.position[at[0]]), int(at[1]), int(at[2]))
            self.worst_values = float(candidate[at]), float(right[at])

    @property
    def mean_abs(self) -> float:
        return self.sum_abs / self.count if self.count else 0.0

    @property
    def relative_l2(self) -> float:
        return float(np.sqrt(self.square / self.square_right)) if self.square_right else float(self.square > 0)

    @property
    def cosine(self) -> float:
        size = np.sqrt(self.square_right * self.square_candidate)
        return float(self.product / size) if size else 1.0
