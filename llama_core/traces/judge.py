"""One tensor of a candidate, held to the golden trace and to what follows from the candidate's own inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from llama_core.checkpoints.arithmetic import Arithmetic, each_once, plain_loops, right_engines
from llama_core.checkpoints.compare import HIDDEN
from llama_core.checkpoints.noise import FACTOR
from llama_core.names import activation_axes
from llama_core.traces.align import Golden, Rows, level, to_rows
from llama_core.traces.format import Call, Statistics, TensorRecord
from llama_core.traces.measure import Measured, group_errors, hide, rounding, tolerances, units, worth
from llama_core.traces.noise import Floors
from llama_core.traces.regions import Candidate, Place, Region, Unavailable, full_name

#: The exact ones: whole numbers.
WHOLE = ("input_ids", "position_ids")
#: Times the noise of one evaluation. Where sums are the noise, a few orders of summation on one input see part of it:
#: without this, right runs of small random models came to 0.89 of the tolerance. In half precision rounding is it.
_SPREAD = {"float32": 2.0, "float64": 2.0}
#: How many times the inputs of a step are taken from within what their storage rounded away.
_DRAWS = 3


@dataclass
class ErrorMap:
    """Errors in tolerances by row and head, over all calls; and the group that is furthest off.

    Attributes:
        rows: (sequence, position) -> [G].
        error, noise: of that group, in its unit: its error, and how far right runs are off there; None where that is
            not known.
    """

    rows: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    error: float = 0.0
    noise: float | None = None
    worth: float = -1.0

    def add(self, where: Rows, worth: np.ndarray, errors: np.ndarray, allowed: np.ndarray) -> None:
        """Add rows of a call: all [N, G]; ``allowed`` is the tolerance in units."""
        pairs = zip(where.sequence.tolist(), where.position.tolist(), strict=True)
        with np.errstate(over="ignore"):  # no more than infinitely wrong
            kept = worth.astype(np.float32)
        for pair, row in zip(pairs, kept, strict=True):
            self.rows[pair] = np.maximum(self.rows[pair], row) if pair in self.rows else row
        at = np.unravel_index(int(worth.argmax()), worth.shape) if worth.size else None
        if at is not None and worth[at] > self.worth:
            self.worth, self.error, self.noise = float(worth[at]), float(errors[at]), float(allowed[at]) / FACTOR

    def table(self, sequence: int) -> tuple[list[int], np.ndarray]:
        """The positions of a sequence, in order, and the errors [G, positions]."""
        positions = sorted(position for row, position in self.rows if row == sequence)
        return positions, np.stack([self.rows[sequence, position] for position in positions], axis=1)


@dataclass
class Judged:
    """What was found about one name over all calls.

    Attributes:
        cumulative: the largest error against the golden trace, in tolerances of right runs; None where their noise is
            not known. introduced: against what the candidate's own inputs give, in tolerances of right
            implementations; None where it cannot be computed.
        rows: how many of the golden's rows were compared; of: how many there are.
        wrong_call: the first call in which it is wrong. nan_call: the first in which it has NaN, padding included.
        swamped: whether statistics were left out because a number stands for -inf in them.
        heads: [N, G] errors in tolerances by row and head of the worst call, with the ``positions`` [N] of its rows.
        from_golden, from_inputs: where ``cumulative`` and ``introduced`` are large.
    """

    name: str
    measured: Measured = field(default_factory=Measured)
    cumulative: float | None = None
    introduced: float | None = None
    exact: bool = True
    rows: int = 0
    of: int = 0
    wrong_call: int | None = None
    beyond_call: int | None = None
    masked_by_number: bool = False
    not_finite: bool = False
    nan_call: int | None = None
    statistics_only: bool = False
    swamped: bool = False
    error: float = 0.0
    heads: np.ndarray | None = None
    positions: np.ndarray | None = None
    from_golden: ErrorMap = field(default_factory=ErrorMap)
    from_inputs: ErrorMap = field(default_factory=ErrorMap)

    @property
    def worst_map(self) -> ErrorMap:
        """Where it is wrong by itself, as far as that is known."""
        return self.from_inputs if self.from_inputs.rows else self.from_golden


def against_golden(
    judged: Judged, golden: Golden, floors: Floors | None, name: str, found: Rows, call: int, dtype: str
) -> None:
    """Add one call's rows to the cumulative figures."""
    matched = golden.matching(name, found)
    if matched is None:
        return
    have, right_rows = matched
    mine, right, seen = level(name, found.only(have), right_rows)
    mine, by_number = hide(mine, right)
    judged.masked_by_number |= by_number
    judged.rows += int(have.sum())
    judged.not_finite |= bool(np.isnan(mine).any() or np.isinf(mine[np.isfinite(right)]).any())
    if name in WHOLE:
        wrong = (mine != right).any((1, 2))
        judged.measured.add(mine, right, np.ones(mine.shape[:2]), right_rows, "float64")
        judged.exact &= not wrong.any()
        if wrong.any():
            judged.cumulative = judged.introduced = np.inf
            judged.wrong_call = call if judged.wrong_call is None else judged.wrong_call
        else:
            judged.cumulative = judged.cumulative or 0.0
        return
    unit = units(right, seen)
    judged.measured.add(mine, right, unit, right_rows, dtype)
    errors = group_errors(mine, right, unit)
    judged.exact &= not errors.any()
    judged.error = max(judged.error, float(errors.max()))
    if floors is not None and name in floors:
        index = golden.index(name)
        pairs = zip(right_rows.sequence.tolist(), right_rows.position.tolist(), strict=True)
        allowed = tolerances(floors[name])[[index[pair] for pair in pairs]]
    elif errors.any():
        return
    else:
        allowed = np.zeros_like(errors)
    found_worth = worth(errors, allowed)
    judged.from_golden.add(right_rows, found_worth, errors, allowed)
    largest = float(found_worth.max())
    if largest > 1 and judged.beyond_call is None:
        judged.beyond_call = call
    if judged.heads is None or largest > (judged.cumulative or 0.0):
        judged.heads, judged.positions = found_worth, right_rows.position
    judged.cumulative = max(judged.cumulative or 0.0, largest)


@dataclass(frozen=True)
class Introduced:
    """A tensor of a call, and what it should be on the candidate's own inputs, as rows.

    Attributes:
        unit, errors, allowed: [N, G], the errors and tolerances in units.
        floors: [N, G], the noise of right implementations.
    """

    name: str
    call: int
    candidate: np.ndarray
    right: np.ndarray
    unit: np.ndarray
    floors: np.ndarray
    rows: Rows

    @property
    def errors(self) -> np.ndarray:
        return group_errors(self.candidate, self.right, self.unit)

    @property
    def allowed(self) -> np.ndarray:
        return tolerances(self.floors)

    @property
    def worth(self) -> np.ndarray:
        return worth(self.errors, self.allowed)


def introduced(candidate: Candidate, place: Place, call: int, name: str, dtype: str) -> Introduced | None:
    """None where the region cannot be computed, or there are statistics only."""
    full = full_name(place, name)
    values = candidate.provided(full, call)
    if values is None:
        return None
    facts, rows = candidate.calls[call], candidate.rows(call)
    try:
        right = candidate.region(place, call).computed(name)
    except (Unavailable, KeyError, ValueError, IndexError):
        return None
    if right.shape != values.shape:
        return None
    found = rowed(full, values, facts, rows)
    expected_rows = rowed(full, right, facts, rows)
    mine, expected, seen = level(full, found, expected_rows)
    mine, _ = hide(mine, expected)
    alike = np.isnan(mine) & np.isnan(expected)  # inherited
    if alike.any():
        mine, expected = np.where(alike, 0, mine), np.where(alike, 0, expected)
    unit = units(expected, seen)
    floors = np.zeros(unit.shape)

    def spread(region: Region) -> np.ndarray:
        errors = group_errors(
            level(full, rowed(full, region.computed(name), facts, rows), expected_rows)[0], expected, unit
        )
        return np.where(np.isfinite(errors), errors, 0)

    def noisy(arithmetic: Arithmetic) -> np.ndarray:
        return spread(candidate.region(place, call, arithmetic))

    ways = right_engines(dtype, candidate.product_inputs)
    if dtype == "float32":
        ways.append(plain_loops(dtype, candidate.product_inputs))
    for errors in each_once(ways, noisy):
        floors = np.maximum(floors, errors)
    if floors.any():
        for seed in range(_DRAWS) if candidate.stored else ():  # what is copied is rounded as its source was
            floors = np.maximum(floors, spread(candidate.before_storing(seed).region(place, call)))
        floors = np.maximum(floors * _SPREAD.get(dtype, 1.0), rounding(expected, unit, dtype))
    return Introduced(full, call, mine, expected, unit, floors, found)


def rowed(name: str, values: np.ndarray, call: Call, rows: tuple[int, ...] | None) -> Rows:
    """A tensor as rows, slots of padding included: it must be hidden there. Scores count where they are seen."""
    found = to_rows(activation_axes(name), values, call, rows, by_slot=True)
    if not name.endswith(".scores"):
        return found
    keys = call.key_positions[[call.sequences.index(n) for n in found.sequence]]
    seen = (keys >= 0) & (keys <= found.position[:, None])
    return replace(found, values=np.where(seen[:, None], found.values, 0.0))


def hides_by_number(stated: Statistics, right: Statistics) -> bool:
    """Whether another number stands where the right tensor has -inf: its sum and extremes then say nothing else."""
    return stated.min <= HIDDEN and stated.negative_infinity < right.negative_infinity


def by_statistics(
    judged: Judged, right: TensorRecord, stated: Statistics, floors: Floors | None, call: int, rows: int
) -> None:
    """Hold sums and extremes of a whole tensor of so many rows to the golden's, where there is nothing else."""
    other = right.statistics
    size = max(int(np.prod(right.shape)), 1)
    scale = other.l2 / np.sqrt(size) or 1.0
    deviation = max(
        abs(stated.l2 - other.l2) / (other.l2 or 1.0),
        abs(stated.min - other.min) / scale,
        abs(stated.max - other.max) / scale,
        abs(stated.sum - other.sum) / scale / np.sqrt(size),
    )
    if stated.nan or stated.negative_infinity != other.negative_infinity:
        deviation = np.inf
    floor = floors.get(right.name) if floors else None
    if floor is None and 0 < deviation < np.inf:
        return  # without noise nothing can be said of it: it is not compared
    judged.statistics_only = True
    judged.not_finite |= bool(stated.nan)
    judged.error = max(judged.error, deviation)
    judged.exact &= deviation == 0
    judged.measured.max_abs = max(judged.measured.max_abs, abs(stated.max - other.max), abs(stated.min - other.min))
    judged.rows += rows
    judged.of += 0 if right.file else rows  # rows of files are counted already
    largest = (
        deviation
        if floor is None
        else float(worth(np.array([deviation]), tolerances(floor).max(keepdims=True))[0].max())
    )
    judged.cumulative = max(judged.cumulative or 0.0, largest)
    if largest > judged.from_golden.worth:
        allowed = None if floor is None else float(tolerances(floor).max()) / FACTOR
        judged.from_golden.worth, judged.from_golden.error, judged.from_golden.noise = largest, deviation, allowed
    if largest > 1 and judged.beyond_call is None:
        judged.beyond_call = call
