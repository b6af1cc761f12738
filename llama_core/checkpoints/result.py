"""What a gate found: every check with its error and tolerance, the verdict, and the cause where there is one."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_core.checkpoints.noise import Tolerance

#: Columns that no line of text goes beyond.
WIDTH = 100

if TYPE_CHECKING:
    from llama_core.checkpoints.diagnose import Diagnosis


@dataclass(frozen=True)
class Check:
    """One output on one case, held to the reference.

    Attributes:
        case: its name. path: which of several ways to compute this is (llama_core: fused or eager attention), or "".
        output: its name; "" where the implementation gave nothing to compare.
        error: max |a - b| / rms(reference); infinite where there is nothing to compare.
        tolerance: the largest error that passes, and why.
        passed: whether the error is within it.
        required: whether the verdict depends on it; an output that is merely welcome never fails a gate.
        note: what a person should know besides.
    """

    case: str
    path: str
    output: str
    error: float
    tolerance: Tolerance
    passed: bool
    required: bool = True
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "path": self.path,
            "output": self.output,
            "error": self.error if math.isfinite(self.error) else None,
            "tolerance": self.tolerance.value,
            "floor": self.tolerance.floor,
            "source": self.tolerance.source,
            "passed": self.passed,
            "required": self.required,
            "note": self.note,
        }


@dataclass(frozen=True)
class WrongCase:
    """Where an implementation is off by most: the error of every entry it gave on that case.

    Attributes:
        case, path: as in ``Check``.
        errors: output, in the order of the dataflow -> the error of each of its entries, in root mean squares.
    """

    case: str
    path: str
    errors: dict[str, np.ndarray]


@dataclass(frozen=True)
class CheckResult:
    """The verdict on one checkpoint. Prints as a table, in a terminal and in a notebook.

    Attributes:
        id, title: the checkpoint's. subject: what was judged.
        dtype, device: what it was judged in and on.
        checks: one per case and output.
        cause: the known mistake that explains a failure, or where the error is confined; None where there is none.
        seconds: how long it took.
        wrong_case: the errors of the case that is off by most; None where nothing that was compared is wrong.
    """

    id: str
    title: str
    subject: str
    dtype: str
    device: str
    checks: tuple[Check, ...]
    cause: Diagnosis | None = None
    seconds: float = 0.0
    wrong_case: WrongCase | None = field(default=None, compare=False, repr=False)

    @property
    def passed(self) -> bool:
        """Every required check passed, and there was one."""
        required = [c for c in self.checks if c.required]
        return bool(required) and all(c.passed for c in required)

    @property
    def failures(self) -> list[Check]:
        return [c for c in self.checks if c.required and not c.passed]

    @property
    def problem(self) -> str:
        """Why there was nothing to compare, in one line; empty where there was."""
        return next((f"{c.case}: {c.note}" if c.case else c.note for c in self.failures if not c.output), "")

    @property
    def worst(self) -> Check | None:
        """The required check that fails by most, or that comes nearest to failing."""
        measured = [c for c in self.checks if c.required and c.output]
        return max(measured, key=strain, default=None)

    def line(self) -> str:
        """The result in one line."""
        head = f"{self.id:<3} {self.title:<18} {'PASS' if self.passed else 'FAIL'}  "
        return head + self.summary()

    def summary(self) -> str:
        """What was found, in half a line."""
        required = [c for c in self.checks if c.required]
        if self.problem:
            return _shortened(self.problem, 71)
        if self.passed:
            worst = self.worst
            count = f"{len(required):>3} checks"
            if worst is None or worst.tolerance.value == 0:
                return f"{count}, all exact"
            return f"{count}, largest error {strain(worst):.0%} of its tolerance"
        worst = self.worst
        assert worst is not None
        found = f"{worst.error:.2g}" if math.isfinite(worst.error) else "not finite"
        allowed = f"tolerance {worst.tolerance.value:.2g}" if worst.tolerance.value else "exact values expected"
        return _shortened(
            f"{len(self.failures)} of {len(required)} wrong; {worst.case}: {worst.output} {found}, {allowed}", 71
        )

    def table(self) -> str:
        """Every check: error, tolerance and where the tolerance comes from."""
        return aligned([_HEADER, *(_row(c) for c in self.checks)])

    def explanation(self) -> str:
        """The cause of a failure, as indented lines; empty for a pass or where nothing is known."""
        notes = list(dict.fromkeys(f"{c.case}: {c.note}" for c in self.failures if c.note and c.output))[:3]
        lines = [("note", note) for note in notes]
        if self.cause is not None:
            lines.append(("cause", str(self.cause)))
            for mistake in self.cause.mistakes:
                lines += [("mend", mistake.mend), ("more", f"llama-core explain {mistake.id}")]
        return "\n".join(
            textwrap.fill(text, WIDTH, initial_indent=f"    {label:<6}", subsequent_indent=" " * 10)
            for label, text in lines
        )

    def feedback(self) -> str:
        """The verdict in words for someone who learns: no figures, so that it reads the same on every machine."""
        if self.passed:
            return f"Right: checkpoint {self.id}, {self.title}, holds."
        mistake = self.cause.mistake if self.cause is not None else None
        if mistake is not None:
            return f"Not yet. It looks as if {mistake.title}.\n{mistake.looks_like}\nTo mend it: {mistake.mend}"
        if self.problem:
            return f"Not yet. {self.problem}"
        wrong = sorted({c.output for c in self.failures})
        where = self.cause.where if self.cause is not None else ""
        return f"Not yet. Wrong: {', '.join(wrong)}." + (f" {where[:1].upper()}{where[1:]}." if where else "")

    def to_json(self) -> dict[str, Any]:
        """Everything, for machines; errors that are infinite are null."""
        return {
            "checkpoint": self.id,
            "title": self.title,
            "subject": self.subject,
            "dtype": self.dtype,
            "device": self.device,
            "passed": self.passed,
            "problem": self.problem,
            "cause": None if self.cause is None else cause_to_json(self.cause),
            "seconds": round(self.seconds, 3),
            "checks": [c.to_json() for c in self.checks],
        }

    def __str__(self) -> str:
        return "\n".join(part for part in (self.line(), self.explanation(), self.table()) if part)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        color = "#2e7d32" if self.passed else "#c62828"
        head = "".join(f"<th style='text-align:left'>{html.escape(title)}</th>" for title in _HEADER)
        body = "".join(_html_row(c) for c in self.checks)
        about = f"<pre style='margin:0'>{html.escape(self.explanation())}</pre>" if self.explanation() else ""
        return (
            f"<div><b>Checkpoint {html.escape(self.id)}, {html.escape(self.title)}: "
            f"<span style='color:{color}'>{'PASS' if self.passed else 'FAIL'}</span></b> "
            f"({html.escape(self.subject)}, {self.dtype}, {self.device}) {html.escape(self.summary())}{about}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def cause_to_json(cause: Diagnosis) -> dict[str, Any]:
    """A diagnosis for machines: the mistake's id, those that it cannot be told from, evidence and place."""
    return {
        "mistake": cause.mistake.id if cause.mistake else None,
        "mistakes": [m.id for m in cause.mistakes],
        "alternatives": [[m.id for m in a.mistakes] for a in cause.alternatives],
        "evidence": cause.evidence,
        "where": cause.where,
    }


_HEADER = ("case", "path", "output", "error", "tolerance", "= factor × floor", "")


def _row(check: Check) -> tuple[str, ...]:
    verdict = "ok" if check.passed else "WRONG" if check.required else "differs"
    if not check.output:
        return check.case, check.path, _shortened(check.note, 60), "", "", "", verdict
    tolerance = f"{check.tolerance.value:.2g}" if check.tolerance.value else "0"
    note = f"{verdict}; {check.note}" if check.note else verdict
    return (
        check.case,
        check.path,
        check.output,
        f"{check.error:.2g}",
        tolerance,
        str(check.tolerance),
        note if check.required else f"{verdict} (extra)",
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of equal width, two spaces apart; columns without any entry are left out."""
    used = [n for n in range(len(rows[0])) if any(row[n] for row in rows[1:])]
    widths = {n: max(len(row[n]) for row in rows) for n in used}
    return "\n".join("    " + "  ".join(f"{row[n]:<{widths[n]}}" for n in used).rstrip() for row in rows)


def _html_row(check: Check) -> str:
    cells = "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in _row(check))
    return f"<tr style='color:#c62828'>{cells}</tr>" if check.required and not check.passed else f"<tr>{cells}</tr>"


def strain(check: Check) -> float:
    """The error in tolerances."""
    if check.tolerance.value == 0:
        return 0.0 if check.error == 0 else math.inf
    return check.error / check.tolerance.value


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def verdict(results: Iterable[CheckResult]) -> str:
    """PASS, or the first FAIL with its cause."""
    results = list(results)
    first = next((r for r in results if not r.passed), None)
    if first is None:
        return f"PASS  {len(results)} of {len(results)} checkpoints" if len(results) != 1 else "PASS"
    head = f"FAIL at checkpoint {first.id}, {first.title}: {first.problem or first.summary()}"
    return "\n".join(part for part in (textwrap.fill(head, WIDTH), first.explanation()) if part)
