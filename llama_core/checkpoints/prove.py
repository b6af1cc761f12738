"""Proof that the gates catch every known mistake, by values, on cases that ship.

``caught`` means: a *required* output of a small case differs from the reference by more than the tolerance. A wrong
shape or an exception would not count, and no mistake of the catalogue gives one. In half precision the mistake
is computed as a program would, with every named value rounded, on rounded inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.compare import error, kept_entries
from llama_core.checkpoints.mistakes import Mistake, mistakes_for
from llama_core.checkpoints.noise import EXACT, computed_in, generic, tolerances
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import CHECKPOINTS, Checkpoint
from llama_core.checkpoints.steps import Changes

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Catch:
    """How clearly one mistake shows: on the case and output where error over tolerance is largest. Of several ways to
    make it, the one that shows least.

    Attributes:
        error: ``max |mistaken - right| / rms(right)``; for whole numbers the fraction that differs.
        tolerance: the largest error that passes.
        caught: whether the error is above it.
    """

    mistake: Mistake
    checkpoint: str
    case: str
    output: str
    error: float
    tolerance: float

    @property
    def caught(self) -> bool:
        return self.error > self.tolerance

    @property
    def ratio(self) -> float:
        """Signal over tolerance."""
        if not self.error:
            return 0.0
        return self.error / self.tolerance if self.tolerance else math.inf


@dataclass(frozen=True)
class Proof:
    """Every mistake of some checkpoints, tried in one type."""

    dtype: str
    catches: tuple[Catch, ...]

    @property
    def missed(self) -> tuple[Catch, ...]:
        return tuple(c for c in self.catches if not c.caught)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Checkpoint -> (caught, total)."""
        counts: dict[str, tuple[int, int]] = {}
        for c in self.catches:
            caught, total = counts.get(c.checkpoint, (0, 0))
            counts[c.checkpoint] = (caught + c.caught, total + 1)
        return counts

    def to_json(self) -> dict:
        return {
            "dtype": self.dtype,
            "caught": sum(c.caught for c in self.catches),
            "total": len(self.catches),
            "mistakes": [
                {
                    "mistake": c.mistake.id,
                    "checkpoint": c.checkpoint,
                    "caught": c.caught,
                    "case": c.case,
                    "output": c.output,
                    "error": _number(c.error),
                    "tolerance": _number(c.tolerance),
                }
                for c in self.catches
            ],
        }

    def __str__(self) -> str:
        lines = [f"{'mistake':42} {'case':20} {'output':20} {'error':>9} {'tolerance':>9}"]
        for c in self.catches:
            verdict = "" if c.caught else "  NOT CAUGHT"
            lines.append(f"{c.mistake.id:42} {c.case:20} {c.output:20} {c.error:9.2g} {c.tolerance:9.2g}{verdict}")
        lines += [f"checkpoint {id}: {caught} of {total} caught" for id, (caught, total) in self.counts().items()]
        lines.append(f"{len(self.catches) - len(self.missed)} of {len(self.catches)} caught in {self.dtype}")
        return "\n".join(lines)


def prove(dtype: str = "float32", checkpoints: Iterable[str] | None = None) -> Proof:
    """Try every mistake of the catalogue at its own checkpoint.

    Args:
        dtype: ``float32 bfloat16 float16``.
        checkpoints: ids; None for all.
    """
    wanted = tuple(CHECKPOINTS) if checkpoints is None else tuple(checkpoints)
    return Proof(dtype, tuple(c for id in wanted for c in _prove_checkpoint(CHECKPOINTS[id], dtype)))


def prove_mistake(mistake: Mistake, dtype: str = "float32") -> Catch:
    """One mistake at its own checkpoint."""
    checkpoint = CHECKPOINTS[mistake.checkpoint]
    return _best(mistake, [_Trial(checkpoint, case, dtype) for case in _cases(checkpoint, mistake.family)])


def _prove_checkpoint(checkpoint: Checkpoint, dtype: str) -> list[Catch]:
    mistakes = mistakes_for(checkpoint.id)
    trials = {
        family: [_Trial(checkpoint, case, dtype) for case in _cases(checkpoint, family)]
        for family in dict.fromkeys(mistake.family for mistake in mistakes)
    }
    return [_best(mistake, trials[mistake.family]) for mistake in mistakes]


def _cases(checkpoint: Checkpoint, family: str) -> tuple[Case, ...]:
    """A mistake must show on its family's own cases: a plain Llama is asked for no others."""
    return tuple(case for case in checkpoint.of_family(family) if not case.large)


def _best(mistake: Mistake, trials: list[_Trial]) -> Catch:
    """Where it shows most clearly; made in whichever way shows least."""

    def clearness(catch: Catch) -> tuple[bool, float]:
        return catch.caught, catch.ratio

    return min(
        (max((c for t in trials for c in t.catches(mistake, way)), key=clearness) for way in mistake.ways),
        key=clearness,
    )


class _Trial:
    """A case whose right values are computed once."""

    def __init__(self, checkpoint: Checkpoint, case: Case, dtype: str):
        self.checkpoint, self.case = checkpoint, case
        self.inputs, self.weights = case.values(dtype)
        self.reference = self._run()
        self.tolerances = tolerances(checkpoint, case, dtype, self.reference)
        type = computed_in(checkpoint, dtype)
        self.arithmetic = REFERENCE if type == "float32" else Arithmetic(type, wide="float32", float32_tables=True)

    def _run(self, **arguments) -> Arrays:
        return run_procedure(self.checkpoint.procedure, self.inputs, self.weights, self.case.config, **arguments)

    def catches(self, mistake: Mistake, way: Changes) -> list[Catch]:
        """The error of every required output."""
        values = self._run(arithmetic=self.arithmetic, changes=way)
        catches = []
        for name, right in self.reference.items():
            if generic(name) not in self.checkpoint.outputs:
                continue
            deviation = error(values[name], right, kept_entries(self.checkpoint.id, name, self.inputs))
            tolerance = self.tolerances.get(name, EXACT).value
            catches.append(Catch(mistake, self.checkpoint.id, self.case.name, name, deviation, tolerance))
        return catches


def _number(value: float) -> float | None:
    """JSON has no infinity: None."""
    return value if math.isfinite(value) else None


__all__ = ["Catch", "Proof", "prove", "prove_mistake"]
