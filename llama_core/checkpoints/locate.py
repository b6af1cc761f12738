"""Where a wrong value is wrong: which heads, positions, coordinates, rows; and what kind of error it looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.compare import HIDDEN, deviations, scale

#: Axis -> what one index of it is called, and several.
_NAMES = {
    "B": ("row {} of the batch", "rows {} of the batch"),
    "S": ("query {}", "queries {}"),
    "T": ("key {}", "keys {}"),
    "H": ("head {}", "heads {}"),
    "K": ("key/value head {}", "key/value heads {}"),
    "D": ("coordinate {}", "coordinates {}"),
    "E": ("coordinate {}", "coordinates {}"),
    "F": ("coordinate {}", "coordinates {}"),
    "V": ("token id {}", "token ids {}"),
    "N": ("step {}", "steps {}"),
}
_FEW = 6


@dataclass(frozen=True)
class Region:
    """The part of a value that is wrong.

    Attributes:
        output: its name.
        confined: in words, along every axis where not all of it is wrong; empty where all of it is.
        kind: what the error looks like; empty where it looks like nothing in particular.
    """

    output: str
    confined: str
    kind: str

    def __str__(self) -> str:
        where = f"{self.output} is wrong"
        where += f", confined to {self.confined}" if self.confined else " everywhere"
        return f"{where}; {self.kind}" if self.kind else where


def locate(
    output: str,
    axes: str,
    candidate: np.ndarray,
    reference: np.ndarray,
    tolerance: float,
    kept: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    dtype: str = "float32",
) -> Region:
    """Describe the entries that deviate by more than the tolerance.

    Args:
        output: the value's name.
        axes: its axes in the project's letters, e.g. ``B S H D``.
        candidate, reference: of one shape.
        tolerance: in root mean squares of the reference.
        kept: which entries count, broadcastable; None for all.
        positions: [B, S], the position of every query, where it is known; -1 for padding.
        dtype: what the candidate was computed in.
    """
    kept = np.broadcast_to(True if kept is None else kept, reference.shape)
    wrong = (deviations(candidate, reference) > tolerance) & kept
    letters = axes.split()
    if len(letters) != reference.ndim:
        letters = ["?"] * reference.ndim
    parts = [_along(letter, n, wrong, kept, letters, positions) for n, letter in enumerate(letters)]
    confined = ", ".join(part for part in parts if part)
    return Region(output, confined, _kind(candidate, reference, wrong, kept, tolerance, letters, dtype))


def _along(letter: str, axis: int, wrong, kept, letters, positions) -> str:
    """What of one axis is wrong, in words; empty where all of it is."""
    others = tuple(n for n in range(wrong.ndim) if n != axis)
    counted, hit = kept.any(others), wrong.any(others)
    if (hit == counted).all() or letter not in _NAMES:
        return ""
    if letter == "S" and positions is not None and letters[0] == "B":
        return _positions(wrong, kept, axis, positions) or _indices(letter, hit, counted)
    return _indices(letter, hit, counted)


def _positions(wrong, kept, axis: int, positions: np.ndarray) -> str:
    others = tuple(n for n in range(wrong.ndim) if n not in (0, axis))
    hit, counted = wrong.any(others), kept.any(others)
    if hit.shape != positions.shape:
        return ""
    rows = hit.any(1)  # rows without an error say nothing about positions
    found = np.unique(positions[hit])
    right = np.setdiff1d(positions[counted & ~hit & rows[:, None]], found)
    if not len(right):
        return ""
    padding, found = found[found < 0], found[found >= 0]  # padding has no position; -1 says so
    if not len(found):
        return "padding queries"
    if not (right >= 0).any():
        return "real tokens" if not len(padding) else ""
    right = right[right >= 0]
    if len(found) == 1:
        words = f"position {found[0]}"
    elif (right < found.min()).all():
        words = f"positions >= {found.min()}"
    elif (right > found.max()).all():
        words = f"positions <= {found.max()}"
    else:
        words = f"positions {_list(found)}"
    return f"padding queries and {words}" if len(padding) else words


def _indices(letter: str, hit: np.ndarray, counted: np.ndarray) -> str:
    found, right = np.flatnonzero(hit), np.flatnonzero(counted & ~hit)
    one, many = _NAMES[letter]
    if len(found) == 1:
        return one.format(found[0])
    if letter in "STN" and (right < found[0]).all():
        return many.format(f">= {found[0]}")
    if letter in "STN" and (right > found[-1]).all():
        return many.format(f"<= {found[-1]}")
    return many.format(_list(found))


def _list(found: np.ndarray) -> str:
    """``2, 5, 7``, ``3 to 9``, or how many."""
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{found[0]} to {found[-1]}"
    if len(found) <= _FEW:
        return ", ".join(str(n) for n in found)
    return f"{', '.join(str(n) for n in found[:_FEW])} and {len(found) - _FEW} more"


def _kind(candidate, reference, wrong, kept, tolerance: float, letters, dtype: str) -> str:
    """The first description that fits."""
    if reference.dtype.kind != "f" or not wrong.any():
        return ""
    seen = candidate[wrong].astype(np.float64)
    if np.isnan(seen).any():
        return "it is NaN there" if np.isnan(seen).all() else "some of it is NaN"
    if (seen <= HIDDEN).all():
        return "it is hidden there"
    if not np.isfinite(seen).all():
        return "it is infinite there" if np.isinf(seen).all() else "some of it is infinite"
    right = reference[wrong]
    if not np.isfinite(right).all():
        return "it is not hidden there"
    unit = tolerance * scale(reference)
    if not seen.any():
        return "it is zero there"
    if factor := _factor(seen, right, unit):
        return f"it is {factor:.4g} times the right value"
    whole = candidate.astype(np.float64)
    for axis, letter in enumerate(letters):
        if order := _order(whole, reference, kept, axis, unit):
            one = _NAMES.get(letter, ("index {}", ""))[0]
            return "the right values in another order: " + one.format(f"{order[0]} holds those of {order[1]}")
    if letters[:2] == ["B", "S"] and (offset := _offset(whole, reference, kept, unit)):
        return f"the same constant is added at every position (up to {offset:.2g})"
    if dtype == "float32":
        for half in ("bfloat16", "float16"):
            if len(np.unique(seen)) > 3 and (round_to(seen, half) == seen).all():
                return f"every wrong value is a {half} number: something rounds to {half}"
    return ""


def _factor(seen, right, unit: float) -> float | None:
    """c, where seen = c · right."""
    square = float(right @ right)
    if len(seen) < 3 or not square:
        return None
    c = float(seen @ right) / square
    close = np.abs(seen - c * right).max() <= unit * max(1.0, abs(c))
    return c if close and abs(c) > 1e-3 else None


def _order(candidate, reference, kept, axis: int, unit: float) -> tuple[int, int] | None:
    """Two indices i, j of an axis: where the candidate's slices are the reference's in another order, i holds j."""
    size = reference.shape[axis]
    if not 1 < size <= 64 or not kept.all() or reference.size > 200_000:
        return None
    a = np.moveaxis(candidate, axis, 0).reshape(size, -1)
    b = np.moveaxis(reference, axis, 0).reshape(size, -1)
    if a.shape[1] < 3:
        return None
    distance = np.array([np.abs(row - b).max(-1) for row in a])
    source = distance.argmin(1)
    if sorted(source) != list(range(size)) or (distance[np.arange(size), source] > unit).any():
        return None
    moved = np.flatnonzero(source != np.arange(size))
    return (int(moved[0]), int(source[moved[0]])) if len(moved) else None


def _offset(candidate, reference, kept, unit: float) -> float | None:
    """The largest entry of a vector that is added to every row and position alike."""
    if reference.shape[0] * reference.shape[1] < 3 or not kept.all():
        return None
    difference = candidate - reference
    mean = difference.mean((0, 1), keepdims=True)
    return float(np.abs(mean).max()) if np.abs(difference - mean).max() <= unit else None
