"""The cause of the first wrong tensor: a known mistake on the candidate's own inputs, or an honest unknown."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.checkpoints.explain import Diagnosis, explain
from llama_core.checkpoints.families import LLAMA, family_of
from llama_core.checkpoints.mistakes import CATALOGUE, Mistake, classes_at
from llama_core.checkpoints.noise import FACTOR
from llama_core.checkpoints.observation import Observation
from llama_core.checkpoints.steps import NO_CHANGES, Changes
from llama_core.config import LlamaConfig
from llama_core.errors import TraceError
from llama_core.names import activation_axes
from llama_core.traces.align import level
from llama_core.traces.fitted import fitted
from llama_core.traces.hypotheses import hypotheses
from llama_core.traces.judge import Introduced, introduced, rowed
from llama_core.traces.manifest import config_of
from llama_core.traces.measure import rounding, tolerances
from llama_core.traces.regions import STEPS, Place, Unavailable, full_name, names_of
from llama_core.traces.where import rows_of, where_by_golden, where_wrong

if TYPE_CHECKING:
    from llama_core.traces.comparison import _Run

Arrays = dict[str, np.ndarray]
_PAIRS = 150
#: Calls that a diagnosis looks at: those before the first wrong one, that one and a few after it.
_CALLS = 4
#: What a mistake raises where it cannot happen: shapes that do not fit, tensors that are not there.
_IMPOSSIBLE = (Unavailable, KeyError, ValueError, IndexError, AttributeError, ZeroDivisionError)


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
    if name == "input_ids":
        where = where_by_golden(run, first, call)
        return Cause((), (), "the engine was fed other ids than the golden trace holds", where)
    if run.candidate is None:
        where = where_by_golden(run, first, call)
        return Cause((), (), "without --model nothing can be computed from the candidate's own inputs", where)
    where = where_wrong(run, place, name, call)
    if run.candidate.provided(first, call) is None:
        return Cause((), (), "there are statistics only, from which no cause can be told", where)
    calls = [c for c in range(len(run.theirs.calls)) if c <= call][-2:]
    calls += [c for c in range(len(run.theirs.calls)) if c > call][: _CALLS - len(calls)]
    seen = {c: o for c in calls if (o := _observe(run, place, c)) is not None}
    observations = list(seen.values())
    families = (LLAMA, family_of(run.config))
    every = tuple(
        m
        for m in CATALOGUE.values()
        if m.checkpoint not in ("0", "9", "10") and m.changes.weights is None and m.family in families
    )
    touched = _touched(run, place, call, name)

    def concerned(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
        """What does not touch the first wrong tensor leaves it right."""
        return tuple(m for m in mistakes if m.changes.config is not None or touched & m.changes.steps.keys())

    known, others = concerned(every), concerned(hypotheses(place, run.config, run.dtype, _stated(run)))
    if (nan := _by_nan(run, place, name, call, known)) is not None:
        return dataclasses.replace(nan, where=where)
    numbers = _fitted(run, place, name, call)
    classes = sorted({c for id in "5678" for c in classes_at(id, run.dtype)}, key=sorted)
    only_first = [_only(o, name) for o in observations if name in o.judged]
    # Prefill and decode are often two pieces of code, each with a mistake of its own.
    alone = [_only(seen[call], name)] if call in seen and name in seen[call].judged and len(seen) > 1 else []
    diagnosis = Diagnosis((), (), "no known mistake gives these values", "")
    for watched, mistakes, pairs in (
        (observations, known, 0),
        (observations, others, 0),
        (only_first, known, 0),
        (only_first, others, 0),
        (observations, numbers, 0),
        (only_first, numbers, 0),
        (observations, every, _PAIRS),
        (alone, known, 0),
        (alone, others, 0),
        (alone, numbers, 0),
    ):
        if watched and mistakes:
            diagnosis = explain(watched, mistakes, run.dtype, classes, pairs)
        if diagnosis.mistakes or diagnosis.alternatives:
            if watched is alone:
                evidence = f"in call {call} alone it {diagnosis.evidence}; it does not explain the other calls"
                diagnosis = dataclasses.replace(diagnosis, evidence=evidence)
            break
    return _least(diagnosis, where)


def _stated(run: _Run) -> LlamaConfig | None:
    """The configuration with the candidate's own numbers; None where those are none that a Llama can have."""
    theirs = run.theirs.manifest.config or {}
    own = {key: theirs[key] for key in ("rms_norm_eps", "rope_theta", "rope_scaling") if key in theirs}
    try:
        return config_of(dataclasses.asdict(run.config) | own, None)
    except TraceError:
        return None


def _by_nan(run: _Run, place: Place, name: str, call: int, known: tuple[Mistake, ...]) -> Cause | None:
    """The one mistake that gives NaN exactly where the candidate has it; padding is compared in no other way."""
    mine = run.candidate.provided(full_name(place, name), call)
    if mine is None or mine.dtype.kind != "f" or not np.isnan(mine).any():
        return None
    found = []
    for mistake in known:
        try:
            made = run.candidate.region(place, call, changes=mistake.changes).computed(name)
        except _IMPOSSIBLE:
            continue
        if made.shape == mine.shape and (np.isnan(made) == np.isnan(mine)).all():
            found.append(mistake)
    if len(found) != 1:
        return None
    evidence = (
        f'"{found[0].title}" gives NaN at exactly the {int(np.isnan(mine).sum())} places where the candidate has it'
    )
    return Cause((found[0],), (), evidence, "")


def _fitted(run: _Run, place: Place, name: str, call: int) -> tuple[Mistake, ...]:
    """Hypotheses whose numbers are taken from the first wrong tensor."""
    if name == "position_ids" or (one := introduced(run.candidate, place, call, name, run.dtype)) is None:
        return ()
    return tuple(fitted(name, one, run.candidate.region(place, call)))


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
    reference |= {name: run.theirs.calls[call].positions[:, rows_of(run, call)] for name in whole}
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
            except _IMPOSSIBLE:
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


__all__ = ["Cause", "find_cause"]
