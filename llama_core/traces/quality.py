"""What the differences do to the predictions: KL divergence of the logits, and agreement on the most likely token.

These are the figures that people give for quantized models; they judge nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_core.traces.align import Golden, to_rows
from llama_core.traces.measure import parts
from llama_core.traces.read import Trace


@dataclass(frozen=True)
class Quality:
    """Over the rows (sequence, position) whose logits both sides have.

    Attributes:
        rows: how many.
        mean_kl, max_kl: Σ p ln(p / q) in nats, p the golden's probabilities and q the candidate's.
        same_top: the share of rows on which both hold the same token to be the most likely.
    """

    rows: int
    mean_kl: float
    max_kl: float
    same_top: float

    def __str__(self) -> str:
        return (
            f"Predictions over {self.rows} rows: mean KL divergence {self.mean_kl:.3g} nats, "
            f"largest {self.max_kl:.3g}; same most likely token in {self.same_top:.1%}"
        )


def logits_quality(golden: Golden, candidate: Trace) -> Quality | None:
    """None where there is no row of finite logits of one width on both sides."""
    divergences: list[float] = []
    same = 0
    for (name, call), record in candidate.records.items():
        facts, kept = candidate.calls[call], record.rows
        if name != "logits" or not record.file or record.axes != "B S V":
            continue
        if record.shape[:2] != (len(facts.positions), facts.positions.shape[1] if kept is None else len(kept)):
            continue  # a finding of its own
        found = to_rows(record.axes, candidate.values(name, call), facts, kept)
        matched = golden.matching(name, found) if found.values.size else None
        if matched is None:
            continue
        have, right = matched
        mine = found.only(have).values[:, 0]
        theirs = right.values[:, 0]
        if mine.shape != theirs.shape:
            continue
        finite = np.isfinite(mine).all(-1) & np.isfinite(theirs).all(-1)
        rows, alike = divergence(theirs[finite], mine[finite])
        divergences += rows.tolist()
        same += int(alike.sum())
    if not divergences:
        return None
    count = len(divergences)
    return Quality(count, float(np.mean(divergences)), max(divergences), same / count)


def divergence(right: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of two sets of logits [N, V]: KL(right ‖ other) of every row in nats, and whether both rows hold the same token
    to be the most likely; a few rows at a time, in float64. NaN where a row is not finite."""
    found, alike = np.empty(len(right)), np.empty(len(right), bool)
    for part in parts(right):
        p, q = _log_probabilities(right[part]), _log_probabilities(other[part])
        alike[part] = p.argmax(-1) == q.argmax(-1)
        found[part] = np.maximum(np.einsum("nv,nv->n", np.exp(p), p - q), 0)
    return found, alike


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    return wide
