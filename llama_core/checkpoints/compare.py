"""How far a value is from the reference, in one number, and which of its entries count."""

from __future__ import annotations

import math

import numpy as np

from llama_core.checkpoints.cases import positions_of
from llama_core.names import ACTIVATIONS, LAYER_ACTIVATIONS

#: A candidate's score at or below this counts as hidden where the reference has -inf. No score of a real model is near
#: it, and every usual stand-in for -inf (-1e4 added to the score, -1e9, finfo.min) is not above it.
HIDDEN = -9e3
#: The checkpoints where nobody asks for the values of padding.
_WITHOUT_PADDING = ("6", "7", "8")
_KEY_AXIS = ("cache_k", "cache_v", "scores")


def error(candidate: np.ndarray, reference: np.ndarray, kept: np.ndarray | None = None) -> float:
    """``max |candidate - reference| / rms(reference)``, over the entries that are ``kept``.

    The root mean square is taken over the finite kept entries of the reference (1 where they are all zero). Whole
    numbers are exact or not: their error is the fraction of entries that differ. Where the reference is -inf, the
    candidate must be -inf or at most ``HIDDEN``; NaN and every other infinity make the error infinite.

    Args:
        candidate, reference: of one shape.
        kept: bool, broadcastable to that shape; None keeps all.
    """
    if kept is not None:
        kept = np.broadcast_to(kept, reference.shape)
        candidate, reference = candidate[kept], reference[kept]
    if reference.size == 0:
        return 0.0
    deviation = deviations(candidate, reference)
    return float(deviation.max() if reference.dtype.kind == "f" else deviation.mean())


def deviations(candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The error of every entry; 1 or 0 for whole numbers."""
    if reference.dtype.kind != "f":
        return (candidate != reference).astype(np.float64)
    finite = np.isfinite(reference)
    hidden = np.isneginf(reference)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(candidate.astype(np.float64) - reference) / scale(reference)
    difference[~finite] = np.inf
    difference[hidden & (candidate <= HIDDEN)] = 0
    difference[np.isnan(candidate)] = np.inf
    return difference


def entry_errors(candidate: np.ndarray, reference: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """``deviations`` in the shape of the reference, with zeros for the entries that do not count."""
    kept = np.broadcast_to(True if kept is None else kept, reference.shape)
    errors = np.zeros(reference.shape)
    errors[kept] = deviations(candidate[kept], reference[kept])
    return errors


def scale(reference: np.ndarray) -> float:
    """The root mean square of the finite entries; 1 where there is none or all are zero."""
    finite = reference[np.isfinite(reference)]
    return math.sqrt(float(np.mean(np.square(finite, dtype=np.float64)))) or 1.0 if finite.size else 1.0


def axes_of(name: str) -> str:
    """The axes of an activation, ``layers.N.`` or not, e.g. ``B S E``; empty for a name that is none."""
    short = name.split(".", 2)[-1] if name.startswith("layers.") else name
    return LAYER_ACTIVATIONS.get(short) or ACTIVATIONS.get(short, "")


def kept_entries(checkpoint_id: str, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray | None:
    """Which entries of an output count; None for all.

    In a block, a model and a cache, padding is nobody's business: it is left out along S, and along T in cache_k,
    cache_v and scores (whose hidden entries ``masked_scores`` proves). Checkpoint 3 leaves nothing out: there a row
    that sees nothing must be zeros.
    """
    if checkpoint_id not in _WITHOUT_PADDING:
        return None
    positions = inputs["position_ids"] if "position_ids" in inputs else positions_of(inputs["attention_mask"])
    real = positions >= 0
    if real.all():
        return None
    axes = axes_of(name).split()
    kept = np.ones([1] * len(axes), bool)
    for axis in ("S", "T") if name.split(".")[-1] in _KEY_AXIS else ("S",):
        if axis in axes:
            shape = [1] * len(axes)
            shape[0], shape[axes.index(axis)] = real.shape
            kept = kept & real.reshape(shape)
    return kept
