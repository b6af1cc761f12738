"""What each wrong tensor does to the logits: it is put into the right model, and the rest of the model runs.

A tensor of the candidate carries the errors that came in from before as well as its own. So two runs are made: with the
candidate's tensor as it is, and with the right model's own tensor plus the error that the candidate *introduced* there
(what it gives, less what follows from its own inputs). The second tells two mistakes in one engine apart.

How much of the damage a run explains: 1 - |z - c|² / |r - c|², with the run's logits z, the candidate's c and the right
model's r, each less its mean over the vocabulary (softmax does not see it). 1: the run gives the candidate's logits;
0: it gives the right ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from llama_core.capture import capture
from llama_core.traces.align import is_cache, short, to_rows
from llama_core.traces.cause import place_of
from llama_core.traces.format import Call, known_axes
from llama_core.traces.measure import hide
from llama_core.traces.quality import divergence
from llama_core.traces.recorder import Plan, run_plan
from llama_core.traces.regions import Unavailable

if TYPE_CHECKING:
    from llama_core.model import Llama
    from llama_core.traces.comparison import _Run
    from llama_core.traces.verdict import Comparison

#: Wrong tensors that are tried, in the order of the dataflow.
MOST = 16
#: Call -> what to put in place of the model's own [B, S or T rows as the candidate has them, ...].
Change = Callable[[int, np.ndarray], np.ndarray]
HEADER = ("tensor", "explained", "explained by its own error", "KL divergence", "same top-1", "largest |Δ logit|")


@dataclass(frozen=True)
class Damage:
    """What became of the logits, against the right model's.

    Attributes:
        divergence: the mean over all positions of KL(right ‖ this), in nats. same_top_1: share of positions with the
            same most likely token. largest: the largest absolute deviation of a logit, means over the vocabulary apart.
        explained: of the candidate's damage; None where the candidate gives no logits or its are right.
    """

    divergence: float
    same_top_1: float
    largest: float
    explained: float | None = None


@dataclass(frozen=True)
class Impact:
    """One wrong tensor: put in as it is, and the error that was introduced there alone (None where not known)."""

    name: str
    whole: Damage
    alone: Damage | None


@dataclass(frozen=True)
class Impacts:
    """All wrong tensors that were tried.

    Attributes:
        total: the damage of the candidate's own logits; None where it gives none.
        left_out: wrong tensors that were not tried.
    """

    total: Damage | None
    each: tuple[Impact, ...]
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        def plain(damage: Damage | None):
            if damage is None:
                return None
            return {k: v if v is None or math.isfinite(v) else str(v) for k, v in vars(damage).items()}

        each = [{"name": i.name, "whole": plain(i.whole), "alone": plain(i.alone)} for i in self.each]
        return {"total": plain(self.total), "each": each, "left_out": self.left_out}


def measure_impacts(run: _Run, result: Comparison) -> Impacts:
    """Try every wrong tensor of a comparison, in the dtype that the candidate computes in."""
    from llama_core.traces.verdict import WRONG

    model = run.twin()
    wrong = [line.name for line in result.lines if line.status == WRONG and line.name not in ("input_ids",)]
    calls = run.theirs.calls
    right = _run(model, calls)
    theirs = _candidates_logits(run, calls)
    total = _damage(right, theirs, theirs) if theirs is not None else None
    each = []
    for name in wrong[:MOST]:
        if name == "position_ids":
            continue  # whole numbers, which the model makes itself
        whole = _damage(right, _run(model, calls, name, _as_it_is(run, name)), theirs)
        changes = _introduced(run, name)
        alone = _damage(right, _run(model, calls, name, changes), theirs) if changes else None
        each.append(Impact(name, whole, alone))
    return Impacts(total, tuple(each), max(len(wrong) - MOST, 0))


def about(impacts: Impacts) -> str:
    """The whole damage, and what the table says, in words."""
    if not impacts.each:
        return "No tensor is wrong by itself: there is nothing to put into the right model."
    text = ""
    if impacts.total is not None:
        text = (
            f"The candidate's logits lie {_figure(impacts.total.divergence)} nats (mean KL divergence) from the right "
            f"model's, and {impacts.total.same_top_1:.0%} of positions have the same most likely token. "
        )
    text += (
        "Each wrong tensor was put into the right model, as it is and then its own error alone, and the rest was run: "
        "the share of the damage that this explains (below zero: it leads elsewhere), and what its own error does by "
        "itself"
    )
    left = f"; {impacts.left_out} more wrong tensors were not tried" if impacts.left_out else ""
    return f"{text}{left}."


def rows(impacts: Impacts) -> list[list[str]]:
    """A row for each tensor, under ``HEADER``."""
    found = []
    for impact in impacts.each:
        own = impact.alone or impact.whole
        explained = [_share(impact.whole), _share(impact.alone)]
        figures = [_figure(own.divergence), f"{own.same_top_1:.0%}", _figure(own.largest)]
        found.append([impact.name, *explained, *figures])
    return found


def _share(damage: Damage | None) -> str:
    if damage is None or damage.explained is None:
        return "-"
    return f"{max(damage.explained, -9.99):.1%}" if math.isfinite(damage.explained) else "not finite"


def _figure(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


# Runs of the right model

Logits = dict[tuple[int, int], np.ndarray]


class _Collector:
    """Takes the logits of a run by sequence and position, and knows which call is being made."""

    def __init__(self) -> None:
        self.number = -1
        self.call: Call | None = None
        self.logits: Logits = {}

    def begin_call(self, call: Call) -> int:
        self.number, self.call = self.number + 1, call
        return self.number

    def add(self, name: str, values: Tensor, rows=None) -> None:
        assert self.call is not None
        _note(self.logits, values.double().cpu().numpy(), self.call, None)


def _note(logits: Logits, values: np.ndarray, call: Call, rows: tuple[int, ...] | None) -> None:
    found = to_rows(known_axes("logits"), values, call, rows)
    for sequence, position, row in zip(
        found.sequence.tolist(), found.position.tolist(), found.values[:, 0], strict=True
    ):
        logits[sequence, position] = row - row.mean()


def _run(model: Llama, calls: Sequence[Call], name: str = "", change: Change | None = None) -> Logits:
    """The right model's logits, with one tensor changed in every call."""
    collector = _Collector()

    def replaced(value: Tensor) -> Tensor:
        changed = change(collector.number, value.detach().double().cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(changed)).to(value.device, value.dtype)

    with capture(model, replace={name: replaced} if change else {}):
        run_plan(model, Plan(list(calls)), collector, ["logits"])
    return collector.logits


def _candidates_logits(run: _Run, calls: Sequence[Call]) -> Logits | None:
    found: Logits = {}
    for number, call in enumerate(calls):
        values = run.values("logits", number)
        if values is not None:
            _note(found, values.astype(np.float64), call, run.theirs.records["logits", number].rows)
    return found or None


def _as_it_is(run: _Run, name: str) -> Change:
    """The candidate's own tensor, at the rows that it has."""

    def change(number: int, own: np.ndarray) -> np.ndarray:
        values = run.values(name, number)
        if values is None:
            return own
        record, facts = run.theirs.records[name, number], run.theirs.calls[number]
        return _placed(name, own, values.astype(np.float64), facts, record.rows)

    return change


def _introduced(run: _Run, name: str) -> Change | None:
    """The model's own tensor plus what the candidate introduced; None where that is not known in any call."""
    place, step = place_of(name)
    errors: dict[int, np.ndarray] = {}
    for number in range(len(run.theirs.calls)):
        given = run.provided(name, number)
        if given is None:
            continue
        try:
            expected = run.candidate.region(place, number).computed(step)
        except (Unavailable, KeyError, ValueError, IndexError):
            continue
        if expected.shape == given.shape:
            errors[number] = _difference(given, expected)
            past = run.theirs.calls[number].past
            if is_cache(known_axes(name)) and past in errors:  # what an earlier call wrote is still there
                errors[number][:, :, : errors[past].shape[2]] += errors[past]
    if not errors:
        return None

    def change(number: int, own: np.ndarray) -> np.ndarray:
        if number not in errors:
            return own
        facts, kept = run.theirs.calls[number], run.rows(number)
        padded = _placed(name, np.zeros_like(own), errors[number], facts, kept)
        with np.errstate(invalid="ignore"):
            return np.where(padded == 0, own, own + padded)

    return change


def _difference(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """given - expected; 0 for the same infinity, and for a number that stands for it."""
    given, _ = hide(given, expected)
    with np.errstate(invalid="ignore"):
        return np.where(given == expected, 0.0, given - expected)


def _placed(name: str, own: np.ndarray, values: np.ndarray, call: Call, kept: tuple[int, ...] | None) -> np.ndarray:
    """``values`` in place of the model's own, but at padding and at rows that ``values`` does not have."""
    letters = known_axes(name).split()
    axis = letters.index("S" if "S" in letters else "T")
    positions = call.positions if "S" in letters else call.key_positions
    out = np.moveaxis(own.copy(), axis, 1)
    at = list(range(positions.shape[1])) if kept is None or "S" not in letters else list(kept)
    moved = np.moveaxis(values, axis, 1)
    for row in range(len(positions)):
        for n, slot in enumerate(at):
            if positions[row, slot] >= 0:
                out[row, slot] = moved[row, n]
    if short(name) == "masked_scores":  # whoever masks with a large number means the same
        out = np.where(np.isneginf(np.moveaxis(own, axis, 1)) & (out <= -9e3), -np.inf, out)
    return np.moveaxis(out, 1, axis)


def _damage(right: Logits, found: Logits, theirs: Logits | None) -> Damage:
    pairs = [pair for pair in right if pair in found and (theirs is None or pair in theirs)]
    r, z = (np.stack([logits[pair] for pair in pairs]) for logits in (right, found))
    with np.errstate(all="ignore"):
        divergences, alike = divergence(r, z)
        largest = float(np.abs(r - z).max())
        explained = None
        if theirs is not None:
            c = np.stack([theirs[pair] for pair in pairs])
            whole = float(((r - c) ** 2).sum())
            explained = 1 - float(((z - c) ** 2).sum()) / whole if whole else None
    return Damage(float(divergences.mean()), float(alike.mean()), largest, explained)
