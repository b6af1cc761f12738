"""Which known mistake, or pair of them, gives exactly the observed values.

Every candidate mistake is evaluated on the same inputs, and its values are held to those in doubt. *Worth* of an
explanation: the largest deviation over all outputs and evaluations, in units of the tolerance of right
implementations; at most 1 is a match. An explanation is named if it matches and everything else, "no mistake"
included, is at least ten times worse. Nothing here knows of checkpoints' cases: any evaluation will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic, right_arithmetics
from llama_core.checkpoints.compare import axes_of
from llama_core.checkpoints.locate import locate
from llama_core.checkpoints.mistakes import Mistake, combine
from llama_core.checkpoints.noise import FACTOR
from llama_core.checkpoints.observation import (
    Observation,
    deviations,
    distance_of,
    output_worth,
    rms_distance,
    worth_of,
    wrong_outputs,
)
from llama_core.checkpoints.steps import Changes

#: How much worse the runner-up must be.
CLEARLY = 10.0
#: In half precision values are also computed with rounding where those without are off by less than this.
_PERHAPS = 30.0
#: Explanations further off than this are not followed up by measuring their own noise.
_NEAR = 5000.0
_FOLLOWED = 4
#: Of a tolerance: a match that is closer than this says no more than one that is not.
_EXACT = 1e-3


@dataclass(frozen=True)
class Explanation:
    """One mistake, or a pair, held to the values in doubt.

    Attributes:
        mistakes: one or two.
        distance: the largest deviation from the values in doubt, in root mean squares.
        worth: the same in units of the tolerance; at most 1 is a match.
    """

    mistakes: tuple[Mistake, ...]
    distance: float
    worth: float

    @property
    def id(self) -> str:
        return " + ".join(m.id for m in self.mistakes)

    @property
    def title(self) -> str:
        return " and ".join(f'"{m.title}"' for m in self.mistakes)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong.

    Attributes:
        mistakes: what was named: one mistake, a pair, or nothing.
        alternatives: where nothing could be named because several explanations fit: these; else those that are
            equivalent to what was named.
        evidence: a sentence with the figures.
        where: a sentence about the first wrong value.
    """

    mistakes: tuple[Mistake, ...]
    alternatives: tuple[Explanation, ...]
    evidence: str
    where: str

    @property
    def mistake(self) -> Mistake | None:
        """The mistake that was named (the first of a pair)."""
        return self.mistakes[0] if self.mistakes else None

    def __str__(self) -> str:
        return f"{self.evidence}. {self.where[:1].upper()}{self.where[1:]}." if self.where else f"{self.evidence}."


def explain(
    observations: Sequence[Observation],
    mistakes: Sequence[Mistake],
    dtype: str = "float32",
    classes: Sequence[frozenset[str]] = (),
    max_pairs: int = 400,
) -> Diagnosis:
    """Name the mistake, or the pair, that gives the observed values; or say where they are wrong.

    Args:
        mistakes: the candidates; of two equivalent ones the first is named.
        dtype: what the values in doubt were computed in.
        classes: ids of mistakes that are known to agree.
        max_pairs: how many pairs are tried where no single mistake fits.
    """
    wrong = sorted((o for o in observations if worth_of(o, o.reference)[0] > 1), key=lambda o: o.cost)
    if not wrong:
        return Diagnosis((), (), "nothing is wrong", "")
    where = _where(wrong, dtype)
    ordered = [*wrong, *(o for o in observations if o not in wrong)]
    search = _Search(ordered, dtype)
    singles = search.rank([(m,) for m in mistakes])
    found = _verdict(search, singles, classes, where)
    if found.mistakes or found.alternatives or not max_pairs:
        return found
    pairs = search.rank(_promising_pairs(ordered[0], mistakes, max_pairs))
    return _verdict(search, [*pairs, *singles], classes, where)


class _Search:
    """Holds explanations to all observations, the cheapest wrong one first, and drops what is refuted."""

    def __init__(self, observations: list[Observation], dtype: str):
        self.observations = observations
        rounded = Arithmetic(dtype, wide="float32", float32_tables=True)
        self.rounded = rounded if dtype in ("bfloat16", "float16") else None
        self.noise_arithmetics = right_arithmetics(dtype)[:3]
        self.allowed = _allowed(observations)
        self.right = max(worth_of(o, o.reference, a) for o, a in zip(observations, self.allowed, strict=True))

    def rank(self, tuples: Sequence[tuple[Mistake, ...]]) -> list[Explanation]:
        """Explanations, best first. One that is refuted keeps what it had then, which is less than all of it."""
        ranked = sorted((self._judge(mistakes) for mistakes in tuples), key=lambda e: e.worth)
        if ranked and ranked[0].worth > 1:
            near = [e for e in ranked[:_FOLLOWED] if e.worth < _NEAR]
            followed = [self._judge_by_own_noise(e.mistakes) for e in near]
            ranked = sorted([*followed, *(e for e in ranked if e not in near)], key=lambda e: e.worth)
        return ranked

    def _judge(self, mistakes: tuple[Mistake, ...]) -> Explanation:
        """Made in whichever way comes nearest."""
        return min((self._judge_way(mistakes, way) for way in _ways(mistakes)), key=lambda e: e.worth)

    def _judge_way(self, mistakes: tuple[Mistake, ...], changes: Changes) -> Explanation:
        first = self.observations[0]
        if first.glimpse is not None:
            seen = self._nearest(first.glimpse, self.allowed[0], changes)
            if seen[0] > CLEARLY:
                return Explanation(mistakes, seen[1], seen[0])
        worth = distance = 0.0
        for observation, allowed in zip(self.observations, self.allowed, strict=True):
            here = self._nearest(observation, allowed, changes)
            worth, distance = max(worth, here[0]), max(distance, here[1])
            if worth > CLEARLY:
                break
        return Explanation(mistakes, distance, worth)

    def _nearest(self, observation: Observation, allowed: Mapping[str, float], changes: Changes) -> tuple[float, float]:
        """Worth and distance of some changes on one observation; in half precision computed with rounding, too."""
        exact = worth_of(observation, observation.evaluate(changes, REFERENCE), allowed)
        if self.rounded is None or not 1 < exact[0] < _PERHAPS:
            return exact
        return min(exact, worth_of(observation, observation.evaluate(changes, self.rounded), allowed))

    def _judge_by_own_noise(self, mistakes: tuple[Mistake, ...]) -> Explanation:
        """A mistaken computation may be more sensitive to rounding than the right one: its own spread counts."""
        return min((self._judge_way_by_own_noise(mistakes, way) for way in _ways(mistakes)), key=lambda e: e.worth)

    def _judge_way_by_own_noise(self, mistakes: tuple[Mistake, ...], changes: Changes) -> Explanation:
        worth = distance = 0.0
        for observation, allowed in zip(self.observations, self.allowed, strict=True):
            exact = observation.evaluate(changes, REFERENCE)
            spread: dict[str, float] = {}
            for arithmetic in self.noise_arithmetics:
                rounded = observation.evaluate(changes, arithmetic)
                for name in observation.judged:
                    d = distance_of(rounded[name], exact[name], observation.kept.get(name))
                    spread[name] = max(spread.get(name, 0.0), d if math.isfinite(d) else 0.0)
            own = {name: max(t, FACTOR * spread.get(name, 0.0)) for name, t in allowed.items()}
            here = self._nearest(observation, own, changes)
            worth, distance = max(worth, here[0]), max(distance, here[1])
            if worth > CLEARLY:
                break
        return Explanation(mistakes, distance, worth)


def _allowed(observations: Sequence[Observation]) -> list[dict[str, float]]:
    """Tolerances of explanations, per observation. A value that is handed through untouched, or is zeros and ones, is
    exact when it is right; what a mistake makes of it is computed, and has the noise that it has elsewhere."""
    largest: dict[str, float] = {}
    for observation in observations:
        for name, tolerance in observation.tolerances.items():
            largest[name] = max(largest.get(name, 0.0), tolerance)
    anywhere = max(largest.values(), default=0.0)

    def allowed(observation: Observation, name: str) -> float:
        if observation.reference[name].dtype.kind != "f":
            return 0.0
        return observation.tolerances[name] or largest[name] or anywhere

    return [{name: allowed(o, name) for name in o.tolerances} for o in observations]


def _ways(mistakes: tuple[Mistake, ...]) -> list[Changes]:
    """Every way to make one or several mistakes together."""
    return [reduce(combine, ways) for ways in product(*(mistake.ways for mistake in mistakes))]


def _verdict(search: _Search, ranked: list[Explanation], classes, where: str) -> Diagnosis:
    """Name the best, list the best few, or admit that none fits."""
    unknown = Diagnosis((), (), "no known mistake gives these values", where)
    if not ranked or ranked[0].worth > 1:
        return unknown
    best, others = ranked[0], ranked[1:]
    right_worth, right_distance = search.right
    if right_worth < CLEARLY * best.worth:
        return unknown
    rivals = [e for e in others if e.worth <= 1 or e.worth < CLEARLY * best.worth]
    strangers = [e for e in rivals if not _same(best, e, classes)]
    if strangers:
        listed = (best, *strangers[:4])
        evidence = "matches " + ", and as well ".join(_to(e) for e in listed)
        return Diagnosis((), listed, evidence, where)
    next_best = next((e for e in others if e not in rivals), None)
    evidence = f"matches {_to(best)}"
    if next_best is not None and next_best.worth < right_worth:
        evidence += f"; next best {next_best.title} {_times(next_best.worth, best.worth)}"
    else:
        evidence += f"; the right values are {_times(right_worth, best.worth)}"
    if rivals:
        evidence += f"; cannot be told from {', '.join(e.title for e in rivals)}"
    return Diagnosis(best.mistakes, tuple(rivals), evidence, where)


def _times(worse: float, better: float) -> str:
    better = max(better, _EXACT)
    if math.isinf(worse) or worse >= 1e6 * better:
        return "more than a million times worse"
    return f"{worse / better:,.0f} times worse"


def _to(explanation: Explanation) -> str:
    return (
        f"{explanation.title} to {explanation.distance:.1g}" if explanation.distance else f"{explanation.title} exactly"
    )


def _same(a: Explanation, b: Explanation, classes: Sequence[frozenset[str]]) -> bool:
    """Whether two explanations consist of the same or of equivalent mistakes."""

    def same(x: Mistake, y: Mistake) -> bool:
        return x.id == y.id or any(x.id in members and y.id in members for members in classes)

    if len(a.mistakes) != len(b.mistakes):
        return False
    return any(
        all(same(x, y) for x, y in zip(a.mistakes, order, strict=True)) for order in (b.mistakes, b.mistakes[::-1])
    )


def _promising_pairs(
    observation: Observation, mistakes: Sequence[Mistake], limit: int
) -> list[tuple[Mistake, Mistake]]:
    """Pairs of mistakes that each bring the values nearer to those observed, or change the first wrong output."""
    first = next(name for name in wrong_outputs(observation))

    def gain(mistake: Mistake) -> tuple[bool, float]:
        return min(gain_of(way) for way in mistake.ways)

    def gain_of(changes: Changes) -> tuple[bool, float]:
        mistaken = observation.evaluate(changes, REFERENCE)
        nearer = sum(
            math.log(rms_distance(observation, mistaken, name) / rms_distance(observation, observation.reference, name))
            for name in observation.judged
        )
        explains = output_worth(observation, mistaken, first) <= 1
        return (not explains, nearer)

    ranked = sorted(mistakes, key=gain)
    numbered = sorted(combinations(range(len(ranked)), 2), key=lambda pair: (sum(pair), pair))
    pairs = []
    for a, b in ((ranked[a], ranked[b]) for a, b in numbered[:limit]):
        pairs.append((a, b))
        if a.changes.steps.keys() & b.changes.steps.keys():  # then it matters which one starts from the other
            pairs.append((b, a))
    return pairs


def _where(wrong: Sequence[Observation], dtype: str) -> str:
    """A sentence on the first wrong output, in the case where the smallest part of it is wrong."""

    def place(observation: Observation) -> tuple[int, float]:
        name = wrong_outputs(observation)[0]
        deviation = deviations(observation.candidate[name], observation.reference[name], observation.kept.get(name))
        return list(observation.reference).index(name), float(np.mean(deviation > observation.tolerances[name]))

    observation = min(wrong, key=place)
    output = wrong_outputs(observation)[0]
    region = locate(
        output,
        axes_of(output),
        observation.candidate[output],
        observation.reference[output],
        observation.tolerances[output],
        observation.kept.get(output),
        observation.positions,
        dtype,
    )
    others = [o.name for o in wrong if o is not observation]
    seen = f'case "{observation.name}"' + (f" (wrong also: {', '.join(others)})" if others else "")
    return f"in {seen}: {region}"
