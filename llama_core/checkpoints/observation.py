"""Values in doubt, and how far any other values are from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from llama_core.checkpoints.arithmetic import Arithmetic
from llama_core.checkpoints.compare import HIDDEN, scale
from llama_core.checkpoints.steps import Changes

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Observation:
    """Values in doubt, and a way to compute what they should be, rightly or with a mistake.

    Attributes:
        name: of the case, for people.
        candidate: the values in doubt.
        reference: the right values, in the order of the dataflow.
        tolerances: output -> the largest error of a right implementation, in root mean squares.
        evaluate: ``evaluate(changes, arithmetic)`` -> what these changes to the table give on the same inputs.
        judged: the outputs that explanations are held to; the others only help to locate.
        kept: output -> which of its entries count, broadcastable; None for all.
        positions: [B, S] positions of the queries, where they are known.
        cost: of one evaluation, in any unit.
        glimpse: a part of it that is cheaper to compute; what that refutes need not be computed whole.
    """

    name: str
    candidate: Arrays
    reference: Arrays
    tolerances: Mapping[str, float]
    evaluate: Callable[[Changes, Arithmetic], Arrays]
    judged: tuple[str, ...]
    kept: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    positions: np.ndarray | None = None
    cost: int = 1
    glimpse: Observation | None = None


def wrong_outputs(observation: Observation) -> list[str]:
    """In the order of the dataflow; those that are not judged come in only where a judged one is wrong, too."""
    return [name for name in observation.candidate if output_worth(observation, observation.reference, name) > 1]


def worth_of(
    observation: Observation, values: Arrays, allowed: Mapping[str, float] | None = None
) -> tuple[float, float]:
    """The largest deviation of ``values`` from the candidate over the judged outputs: in tolerances, and as it is."""
    worth = distance = 0.0
    for name in observation.judged:
        d = distance_of(observation.candidate[name], values[name], observation.kept.get(name))
        distance = max(distance, d)
        worth = max(worth, _in_tolerances(d, (allowed or observation.tolerances)[name]))
    return worth, distance


def output_worth(observation: Observation, values: Arrays, name: str) -> float:
    d = distance_of(observation.candidate[name], values[name], observation.kept.get(name))
    return _in_tolerances(d, observation.tolerances[name])


def _in_tolerances(distance: float, tolerance: float) -> float:
    if tolerance:
        return distance / tolerance
    return math.inf if distance else 0.0


def rms_distance(observation: Observation, values: Arrays, name: str) -> float:
    """Root mean square of the deviations, with a little added so that its logarithm is finite."""
    d = deviations(observation.candidate[name], values[name], observation.kept.get(name))
    return math.sqrt(float(np.mean(np.minimum(d, 1e3) ** 2))) + 1e-9 if d.size else 1e-9


def distance_of(a: np.ndarray, b: np.ndarray, kept: np.ndarray | None) -> float:
    """The largest deviation; for whole numbers the fraction that differs."""
    d = deviations(a, b, kept)
    if not d.size:
        return 0.0
    return float(d.max() if b.dtype.kind == "f" else d.mean())


def deviations(a: np.ndarray, b: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """|a - b| over the larger root mean square of the two; 0 where both are NaN, hidden, or the same infinity."""
    if kept is not None:
        kept = np.broadcast_to(kept, b.shape)
        a, b = a[kept], b[kept]
    if b.dtype.kind != "f":
        return (a != b).astype(np.float64)
    a = a.astype(np.float64)
    unit = max(scale(a), scale(b)) if a.any() or b.any() else 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        d = np.abs(a - b) / unit
        hidden = (a <= HIDDEN) & (b <= HIDDEN) & (np.isneginf(a) | np.isneginf(b))
        alike = (np.isnan(a) & np.isnan(b)) | (a == b) | hidden
    d[np.isnan(d)] = np.inf
    d[alike] = 0
    return d
