"""The cause of the first wrong tensor: a known mistake on the candidate's own inputs, or an honest unknown."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.checkpoints.explain import Diagnosis, explain
from llama_core.checkpoints.families import LLAMA, family_of
from llama_core.checkpoints.locate import locate
from llama_core.checkpoints.mistakes import CATALOGUE, Mistake, classes_at
from llama_core.checkpoints.noise import FACTOR
from llama_core.checkpoints.observation import Observation
from llama_core.checkpoints.steps import NO_CHANGES, Changes
from llama_core.names import activation_axes
from llama_core.traces.align import level
from llama_core.traces.hypotheses import hypotheses
from llama_core.traces.judge import Introduced, introduced, rowed
from llama_core.traces.measure import hide, rounding, tolerances
from llama_core.traces.regions import STEPS, Place, Unavailable, full_name, names_of

if TYPE_CHECKING:
    from llama_core.traces.comparison import _Run

Arrays = dict[str, np.ndarray]
_PAIRS = 150
#: Calls that a diagnosis looks at: those before the first wrong one, that one and a few after it.
_CALLS = 4


@dataclass(frozen=True)
class Cause:
    """Why the first wrong tensor is wrong.

    Attributes:
        mistakes: what was named; more than one where two together were found. Empty where the cause is unknown.
        alternatives: ids of mistakes that cannot be told apart on these values.
        evidence: a sentence with the figures.
        where: which rows, heads and coordinates are wrong, and what the error looks like.
    """

    mistakes: tuple[Mistake, ...]
    alternatives: tuple[str, ...]
    evidence: str
    where: str

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(m.id for m in self.mistakes)

    @property
    def lesson(self) -> str:
        """Where it is taught."""
        return f"notebooks/{self.mistakes[0].notebook.replace('#', '.ipynb#', 1)}" if self.mistakes else ""

    def __str__(self) -> str:
        if self.mistakes:
            title = " and ".join(m.title for m in self.mistakes)
            lines = [f"It looks as if {title} ({', '.join(self.ids)}).", f"Evidence: {self.evidence}."]
            lines += [f"Mend: {m.mend}" for m in self.mistakes] + [f"Lesson: {self.lesson}"]
        elif self.alternatives:
            lines = [f"One of: {', '.join(self.alternatives)}.", f"Evidence: {self.evidence}."]
        else:
            lines = [f"Unknown: {self.evidence}."]
        return "\n".join([*lines, f"Where: {self.where}."])

    def to_json(self) -> dict[str, Any]:
        return {
            "mistakes": [{"id": m.id, "title": m.title, "mend": m.mend, "origin": m.origin} for m in self.mistakes],
            "alternatives": list(self.alternatives),
            "evidence": self.evidence,
            "where": self.where,
            "lesson": self.lesson,
        }


def place_of(name: str) -> tuple[Place, str]:
    """``layers.3.q`` -> (3, "q")."""
    layer = re.match(r"layers\.(\d+)\.(.*)", name)
    if layer:
        return int(layer[1]), layer[2]
    return ("output" if name in ("final_norm", "logits") else "input"), name


def find_cause(run: _Run, first: str, call: int, wrong: set[str]) -> Cause:
    """Why ``first`` is wrong in ``call``."""
    place, name = place_of(first)
    if run.candidate is None:
        where = _where_by_golden(run, first, call)
        return Cause((), (), "without --model nothing can be computed from the candidate's own inputs", where)
    where = _where(run, place, name, call)
    calls = [c for c in range(len(run.theirs.calls)) if c <= call][-2:]
    calls += [c for c in range(len(run.theirs.calls)) if c > call][: _CALLS - len(calls)]
    observations = [o for c in calls if (o := _observe(run, place, c)) is not None]
    families = (LLAMA, family_of(run.config))
    known = tuple(
        m
        for m in CATALOGUE.values()
        if m.checkpoint not in ("0", "9", "10") and m.changes.weights is None and m.family in families
    )
    others = tuple(hypotheses(place, run.config, run.dtype))
    classes = sorted({c for id in "5678" for c in classes_at(id, run.dtype)}, key=sorted)
    only_first = [_only(o, name) for o in observations if name in o.judged]
    diagnosis = Diagnosis((), (), "no known mistake gives these values", "")
    for watched, mistakes, pairs in (
        (observations, known, 0),
        (observations, others, 0),
        (only_first, known, 0),
        (only_first, others, 0),
        (observations, known, _PAIRS),
    ):
        if watched:
            diagnosis = explain(watched, mistakes, run.dtype, classes, pairs)
        if diagnosis.mistakes or diagnosis.alternatives:
            break
    return _least(diagnosis, where)


def _least(diagnosis: Diagnosis, where: str) -> Cause:
    """Of several explanations that fit, the one that changes fewest steps is named, if there is but one such."""
    alternatives = tuple(e.id for e in diagnosis.alternatives)
    if diagnosis.mistakes or not alternatives:
        return Cause(diagnosis.mistakes, alternatives, diagnosis.evidence, where)
    sizes = [sum(max(len(m.changes.steps), 1) for m in e.mistakes) for e in diagnosis.alternatives]
    least = [e for e, size in zip(diagnosis.alternatives, sizes, strict=True) if size == min(sizes)]
    if len(least) > 1:
        return Cause((), alternatives, diagnosis.evidence, where)
    return Cause(least[0].mistakes, tuple(id for id in alternatives if id != least[0].id), diagnosis.evidence, where)


def _only(observation: Observation, name: str) -> Observation:
    return dataclasses.replace(observation, judged=(name,))


def _observe(run: _Run, place: Place, call: int) -> Observation | None:
    """Everything the candidate gives of a place in a call, in the units of rows and heads."""
    found: dict[str, Introduced] = {}
    whole: Arrays = {}
    for name in names_of(place):
        full = full_name(place, name)
        if run.candidate.provided(full, call) is None:
            continue
        if name == "position_ids":
            whole[name] = run.candidate.provided(full, call)
        elif (one := introduced(run.candidate, place, call, name, run.dtype)) is not None:
            found[name] = one
    if not found and not whole:
        return None
    reference = {name: one.right / one.unit[..., None] for name, one in found.items()}
    reference |= {name: run.theirs.calls[call].positions[:, _rows(run, call)] for name in whole}
    candidate = {name: one.candidate / one.unit[..., None] for name, one in found.items()} | whole
    allowed = {name: _allowed(one, run.dtype) for name, one in found.items()}
    allowed |= dict.fromkeys(whole, 0.0)
    touched = {name: _touched(run, place, call, name) for name in reference}

    def evaluate(changes: Changes, arithmetic: Arithmetic) -> Arrays:
        region = run.candidate.region(place, call, arithmetic, changes)
        values = {}
        for name, right in reference.items():
            concerned = changes.config is not None or touched[name] & changes.steps.keys()
            values[name] = right
            if not concerned and (changes is not NO_CHANGES or arithmetic is REFERENCE):
                continue
            try:
                made = region.computed(name)
            except (Unavailable, KeyError, ValueError, IndexError, AttributeError, ZeroDivisionError):
                continue  # it cannot happen here
            if name in found:
                values[name] = _as_rows(run, found[name], made, call, right)
            elif made.shape == right.shape:
                values[name] = made
        return values

    label = "prefill" if call == 0 else f"call {call}"
    cost = sum(x.size for x in candidate.values())
    return Observation(label, candidate, reference, allowed, evaluate, tuple(reference), cost=cost)


def _allowed(one: Introduced, dtype: str) -> float:
    """A value that is copied is exact when it is right; what a mistake makes of it is computed, and rounded."""
    least = FACTOR * rounding(one.right, one.unit, dtype) if not one.floors.any() else tolerances(one.floors)
    return float(least.max(initial=0))


def _rows(run: _Run, call: int):
    rows = run.candidate.rows(call)
    return slice(None) if rows is None else list(rows)


def _as_rows(run: _Run, one: Introduced, made: np.ndarray, call: int, right: np.ndarray) -> np.ndarray:
    """What a mistake gives, in the units of the right values; the right ones where it gives another shape."""
    facts, rows = run.candidate.calls[call], run.candidate.rows(call)
    axes = activation_axes(one.name).split()
    if made.ndim != len(axes):
        return right
    try:
        mine, _, _ = level(one.name, rowed(one.name, made, facts, rows), one.rows)
    except (ValueError, IndexError):
        return right
    return mine / one.unit[..., None] if mine.shape == right.shape else right


def _touched(run: _Run, place: Place, call: int, target: str) -> set[str]:
    """The steps that make up the region of a target."""
    found: set[str] = set()

    def visit(name: str) -> None:
        if name in found or name not in STEPS:
            return
        found.add(name)
        for source in STEPS[name].inputs:
            full = source if source in ("position_ids", "key_positions") else full_name(place, source)
            if source in ("layer_input", "layer_output"):
                before = place - 1 if isinstance(place, int) else run.config.num_hidden_layers - 1
                given = run.candidate.provided(full_name(before, "output") if before >= 0 else "embedding", call)
                if given is None:
                    found.update(STEPS)
            elif run.candidate.provided(full, call) is None:
                visit(source)

    visit(target)
    return found


def _where(run: _Run, place: Place, name: str, call: int) -> str:
    """The part of a tensor that is wrong, against what the candidate's own inputs give."""
    full = full_name(place, name)
    mine = run.candidate.provided(full, call)
    if name == "position_ids":
        return f"{name} in call {call} is {mine.tolist()}, not {run.theirs.calls[call].positions.tolist()}"
    one = introduced(run.candidate, place, call, name, run.dtype)
    if one is None:
        return _where_by_golden(run, full, call)
    right = run.candidate.region(place, call).computed(name)
    return _located(run, full, call, mine, right, one)


def _located(run: _Run, full: str, call: int, mine: np.ndarray, right: np.ndarray, one: Introduced) -> str:
    facts = run.theirs.calls[call]
    positions = facts.positions[:, _rows(run, call)]
    letters = activation_axes(full).split()
    finite = right[np.isfinite(right)]
    rms = float(np.sqrt(np.mean(finite * finite))) if finite.size else 1.0
    bad = one.worth > 1
    limit = (tolerances(one.floors) * one.unit)[bad]
    tolerance = float(limit.min()) / (rms or 1.0) if limit.size else 0.0
    kept = np.ones([1] * len(letters), bool)
    if "S" in letters:
        shape = [1] * len(letters)
        shape[0], shape[letters.index("S")] = positions.shape
        kept = kept & (positions >= 0).reshape(shape)
    if "T" in letters and full.endswith((".scores", ".cache_k", ".cache_v")):
        keys = facts.key_positions
        shape = [1] * len(letters)
        shape[0], shape[letters.index("T")] = keys.shape
        kept = kept & (keys >= 0).reshape(shape)
        if full.endswith(".scores"):
            kept = kept & (keys[:, None, None, :] <= positions[:, None, :, None])
    hidden, _ = hide(mine, right)
    if not (np.isnan(hidden) | (hidden != right))[np.broadcast_to(kept, right.shape)].any():
        return f"{full} in call {call}, at padding"
    with np.errstate(all="ignore"):
        region = locate(full, " ".join(letters), hidden, right, tolerance, kept, positions, run.dtype)
    return f"{region} (call {call})"


def _where_by_golden(run: _Run, full: str, call: int) -> str:
    """The part of a tensor that is wrong, against the golden trace: rows and heads."""
    judged = run.judged[full]
    if judged.heads is None or judged.where is None:
        return f"{full} in call {call}"
    bad = judged.heads > 1
    rows, heads = np.flatnonzero(bad.any(1)), np.flatnonzero(bad.any(0))
    text = f"{full} in call {call}"
    if bad.shape[1] > 1 and len(heads) < bad.shape[1]:
        text += f", confined to heads {', '.join(map(str, heads[:8]))}"
    if len(rows) < len(bad):
        positions = sorted(set(judged.where.position[rows].tolist()))
        text += f", at positions {', '.join(map(str, positions[:8]))}{' and others' if len(positions) > 8 else ''}"
    return text


__all__ = ["Cause", "find_cause"]
