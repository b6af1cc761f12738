"""From judged tensors to a verdict: exact, within noise, drifting, WRONG or not provided; and what comes first."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_core.checkpoints.steps import LAYER_STEPS
from llama_core.traces.align import tokens_of
from llama_core.traces.judge import WHOLE, Judged
from llama_core.traces.regions import STEPS

if TYPE_CHECKING:
    from llama_core.traces.cause import Cause
    from llama_core.traces.impact import Impacts
    from llama_core.traces.quality import Quality

#: How many tolerances of right runs a tensor may be off that is right on its own inputs. It has what noise came in, and
#: the noise of a few right runs of one prompt is no bound on that: floors of two processors were 1.47 apart, and a
#: sharp head of a right engine in C reached 1.04 tolerances with steps of at most 0.52.
INHERITED = 2.0

EXACT, NOISE, DRIFTING, WRONG, MISSING = "exact", "within noise", "drifting", "WRONG", "not provided"
#: Why statistics were not compared.
SWAMPED = "statistics are of the large negative number that stands for -inf"


@dataclass(frozen=True)
class Finding:
    """Something that a table of errors cannot say.

    Attributes:
        kind: ``missing``, ``extra``, ``shape``, ``statistics``, ``not finite``, ``rows``, ``mask``, ``positions``,
            ``configuration``.
        fails: whether the candidate cannot pass with it.
    """

    kind: str
    name: str
    call: int | None
    text: str
    fails: bool = True

    def __str__(self) -> str:
        where = f" in call {self.call}" if self.call is not None else ""
        return f"{self.kind}: {self.name}{where} {self.text}".replace("  ", " ")


@dataclass(frozen=True)
class Line:
    """One tensor in the report.

    Attributes:
        status: see the module. error: the largest deviation in units of its row and head.
        cumulative, introduced: in tolerances; None where not known.
        rows, of: how many of the golden's rows were compared.
        worst: [sequence, position, head, entry] of the largest deviation. token: the id at that position.
        value, right: what the candidate and the golden trace have there.
    """

    name: str
    status: str
    error: float = 0.0
    max_abs: float = 0.0
    mean_abs: float = 0.0
    relative_l2: float = 0.0
    cosine: float = 1.0
    max_ulp: float = 0.0
    cumulative: float | None = None
    introduced: float | None = None
    rows: int = 0
    of: int = 0
    call: int | None = None
    worst: tuple[int, int, int, int] | None = None
    token: int | None = None
    value: float | None = None
    right: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        lines: one for every tensor of either side, in the order of the dataflow.
        first: the first wrong tensor, in the order in which the candidate computed; None where there is none.
        cause: why, as far as it is known.
        passed: whether everything that was asked for is there and right.
        quality: how much the candidate's predictions differ; None where logits cannot be compared.
        tokens: sequence -> position -> id. judged: name -> what was measured.
        impacts: what each wrong tensor does to the logits, where that was asked for.
    """

    golden: str
    candidate: str
    dtype: str
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    first: str | None
    first_call: int | None
    cause: Cause | None
    passed: bool
    with_model: bool
    judged: dict[str, Judged] = field(repr=False, default_factory=dict)
    quality: Quality | None = None
    tokens: dict[int, dict[int, int]] = field(repr=False, default_factory=dict)
    impacts: Impacts | None = None

    def line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "golden": self.golden,
            "candidate": self.candidate,
            "dtype": self.dtype,
            "introduced_errors_known": self.with_model,
            "first": self.first,
            "first_call": self.first_call,
            "cause": self.cause.to_json() if self.cause else None,
            "predictions": vars(self.quality) if self.quality else None,
            "errors_of_first": self._errors_of_first(),
            "findings": [vars(finding) for finding in self.findings],
            "impacts": self.impacts.to_json() if self.impacts else None,
            "tensors": [_plain(vars(line)) for line in self.lines],
        }

    def _errors_of_first(self) -> dict[str, Any] | None:
        """The errors of the first wrong tensor in tolerances, a row for each head (or one) and a column a position."""
        errors = self.judged[self.first].worst_map if self.first else None
        if errors is None or not errors.rows:
            return None
        sequence = max(errors.rows, key=lambda pair: float(errors.rows[pair].max()))[0]
        positions, by_head = errors.table(sequence)
        rows = [[x if np.isfinite(x) else str(x) for x in row] for row in by_head.tolist()]
        return {"sequence": sequence, "positions": positions, "by_head": rows}

    def __str__(self) -> str:
        from llama_core.traces.table import render

        return render(self)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""

    def one(value):
        if isinstance(value, float | np.floating):
            return float(value) if np.isfinite(value) else str(value)
        return value

    return json.loads(json.dumps({key: one(value) for key, value in values.items()}))


def conclude(run, noise_known: bool) -> Comparison:
    """The verdict on a run of ``comparison``."""
    judged: dict[str, Judged] = {name: j for name, j in run.judged.items() if j.rows or j.introduced is not None}
    layers = run.config.num_hidden_layers
    status = {name: _status(j, judged, layers) for name, j in judged.items()}
    findings = list(run.findings)
    names = [n for n in run.known if n in judged or n in run.golden.calls_of]
    complete = {n for n in judged if judged[n].rows >= judged[n].of and not judged[n].statistics_only}
    tokens = tokens_of(run.right)
    lines = []
    for name in names:
        if name not in judged:
            lines.append(Line(name, MISSING, note=_missing(run, name, complete, findings)))
            continue
        j = judged[name]
        lines.append(_line(j, status[name], _notes(j, complete, findings, layers), tokens))
    wrong = [name for name in names if status.get(name) == WRONG]
    first = min(wrong, key=lambda name: (_call_of(judged[name]), names.index(name)), default=None)
    drifting = [name for name in names if status.get(name) == DRIFTING]
    if drifting and not wrong:
        text = "is further off than right runs are, though every step that could be checked is right on its own inputs"
        findings.append(Finding("drift", drifting[0], None, text))
    if not judged:
        findings.append(Finding("empty", "nothing", None, "was compared: no tensor of the candidate is in the golden"))
    cause = None
    if first is not None:
        from llama_core.traces.cause import find_cause

        cause = find_cause(run, first, _call_of(judged[first]), set(wrong))
    passed = not wrong and not any(finding.fails for finding in findings)
    return Comparison(
        run.right.label,
        run.theirs.label,
        run.dtype,
        tuple(lines),
        tuple(findings),
        first,
        _call_of(judged[first]) if first else None,
        cause,
        passed,
        run.candidate is not None,
        judged=judged,
        tokens=tokens,
    )


def _status(j: Judged, all_judged: dict[str, Judged], layers: int) -> str:
    if j.introduced is not None and j.introduced > 1:
        return WRONG
    before = [all_judged[name] for name in ancestors(j.name, layers) if name in all_judged]
    if j.nan_call is not None and all(other.nan_call is None for other in before):
        return WRONG
    beyond = j.cumulative is not None and j.cumulative > (1 if j.introduced is None else INHERITED)
    if beyond or j.not_finite:
        if j.introduced is not None:
            return DRIFTING
        return DRIFTING if any(_beyond(other) for other in before) else WRONG
    return EXACT if j.exact else NOISE


def _beyond(j: Judged) -> bool:
    return (j.cumulative or 0) > 1 or (j.introduced or 0) > 1 or j.not_finite


def _call_of(j: Judged) -> int:
    return next((call for call in (j.wrong_call, j.nan_call, j.beyond_call) if call is not None), 0)


def _missing(run, name: str, complete: set[str], findings: list[Finding]) -> str:
    why = run.reason_for(name)
    if proof := _covered(name, complete, run.config.num_hidden_layers):
        return f"{why}; " * bool(why) + f"{proof} follows from it and was compared"
    if any(finding.name == name and finding.kind == "shape" for finding in findings):
        return "its shape is wrong"
    if name in WHOLE:  # ids are held to the golden's before anything else
        return why or "is that of its calls"
    given = [record for (other, _), record in run.theirs.records.items() if other == name]
    if given and not why and not any(record.file for record in given):
        why = "its statistics cannot be compared: they are of other calls than the golden's, or with no noise known"
        findings.append(Finding("statistics", name, None, why))
        return why
    text = f"is not provided, and nothing after it was compared in full{': ' * bool(why)}{why}"
    findings.append(Finding("missing", name, None, text))
    return why


def _covered(name: str, complete: set[str], layers: int) -> str:
    """A tensor that depends on this one and was compared in full."""
    return next((other for other in sorted(complete, key=len) if name in ancestors(other, layers)), "")


def _notes(j: Judged, complete: set[str], findings: list[Finding], layers: int) -> str:
    notes = []
    if j.masked_by_number:
        notes.append("masked by a large negative number, not -inf")
        findings.append(Finding("mask", j.name, None, "is masked by a large negative number instead of -inf", False))
    if j.not_finite:
        notes.append("not finite")
        findings.append(Finding("not finite", j.name, _call_of(j), "holds NaN or infinity where the golden has none"))
    if j.statistics_only:
        notes.append("by its statistics")
    if j.swamped:
        notes.append(SWAMPED)
    if j.rows < j.of:
        notes.append(f"{j.rows} of {j.of} rows")
        if not _covered(j.name, complete, layers):
            text = f"has only {j.rows} of the golden's {j.of} rows, and nothing after it has all"
            findings.append(Finding("rows", j.name, None, text))
    return "; ".join(notes)


def _line(j: Judged, status: str, note: str, tokens: dict[int, dict[int, int]]) -> Line:
    m = j.measured
    value, right = m.worst_values or (None, None)
    return Line(
        j.name,
        status,
        j.error,
        m.max_abs,
        m.mean_abs,
        m.relative_l2,
        m.cosine,
        m.max_ulp,
        j.cumulative,
        j.introduced,
        j.rows,
        j.of,
        call=_call_of(j) if status == WRONG else None,
        worst=m.worst,
        token=tokens.get(m.worst[0], {}).get(m.worst[1]) if m.worst else None,
        value=value,
        right=right,
        note=note,
    )


def ancestors(name: str, layers: int) -> set[str]:
    """Every activation that this one depends on; ``layers`` is how many the model has."""
    layer = re.match(r"layers\.(\d+)\.(.*)", name)
    if name in WHOLE:
        return set()
    number = int(layer[1]) if layer else {"embedding": 0}.get(name, layers)
    found = set(WHOLE) | ({"embedding"} if name != "embedding" else set())
    found |= {f"layers.{n}.{step.name}" for n in range(number) for step in LAYER_STEPS}
    within = _within(layer[2] if layer else name)
    return found | {f"layers.{layer[1]}.{one}" if layer else one for one in within}


@cache
def _within(name: str) -> frozenset[str]:
    """What a step depends on in its own layer (or behind the layers)."""
    found: set[str] = set()
    for source in STEPS[name].inputs:
        if source in STEPS and source not in ("position_ids", "key_positions"):
            found |= {source} | _within(source)
    return frozenset(found)
