"""What a gate found: every check with its error and tolerance, the verdict, and the cause where there is one."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_core.checkpoints.noise import FACTOR, Tolerance

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
        place: the line of somebody's code that raised, where one did.
    """

    case: str
    path: str
    output: str
    error: float
    tolerance: Tolerance
    passed: bool
    required: bool = True
    note: str = ""
    place: str = ""

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
            "place": self.place,
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
        return next((_told(c) for c in self.failures if not c.output), "")

    @property
    def worst(self) -> Check | None:
        """The required check that fails by most, or that comes nearest to failing."""
        measured = [c for c in self.checks if c.required and c.output]
        return max(measured, key=strain, default=None)

    def line(self, width: int = WIDTH) -> str:
        """The result in one line, cut at the width; ``verdict`` tells a failure in full."""
        head = f"{self.id:<3} {self.title:<18} {'PASS' if self.passed else 'FAIL'}  "
        return _shortened(head + self.summary(), width)

    def summary(self) -> str:
        """What was found, in a sentence."""
        required = [c for c in self.checks if c.required]
        if self.problem:
            return self.problem
        if self.passed:
            worst = self.worst
            count = f"{len(required):>3} checks"
            others = "" if all(c.passed for c in self.checks) else "; extra outputs differ"
            if worst is None or worst.tolerance.value == 0:
                return f"{count}, all exact{others}"
            return f"{count}, largest error {strain(worst):.0%} of its tolerance{others}"
        worst = self.worst
        assert worst is not None
        found = f"{worst.error:.2g}" if math.isfinite(worst.error) else "not finite"
        allowed = f"tolerance {worst.tolerance.value:.2g}" if worst.tolerance.value else "exact values expected"
        return f"{len(self.failures)} of {len(required)} wrong; {worst.case}: {worst.output} {found}, {allowed}"

    def table(self, width: int = WIDTH) -> str:
        """Every check: error, tolerance and where the tolerance comes from; a note stands below its row."""
        header, *rows = aligned([_HEADER, *(_row(c) for c in self.checks)]).split("\n")
        sources = {c.tolerance.source for c in self.checks if c.tolerance.floor}
        if max(map(len, rows), default=0) > width and len(sources) == 1:
            narrow = aligned([_NARROW, *(_row(c, narrow=True) for c in self.checks)], indent="")
            header, *rows = narrow.split("\n")
            header = f"{header}\n(floors: {sources.pop()})"
        lines = [header]
        for check, row in zip(self.checks, rows, strict=True):
            lines.append(row)
            if check.note:
                lines.append(_filled(check.note, width, " " * 8, " " * 8))
        return "\n".join(lines)

    def explanation(self, width: int = WIDTH) -> str:
        """The cause of a failure, as indented lines; empty for a pass or where nothing is known."""
        if self.passed:
            return ""
        lines = [("at", c.place) for c in self.failures if not c.output and _told(c) == self.problem and c.place][:1]
        lines += [("note", note) for note in _by_note(c for c in self.failures if c.note and c.output)][:3]
        unused = [c for c in self.checks if not c.required and not c.output]
        if unused:
            others = f"; so in {len(unused) - 1} more" if len(unused) > 1 else ""
            lines.append(("note", f"an extra output could not be used: {_told(unused[0])}{others}"))
        if self.cause is not None:
            lines.append(("cause", str(self.cause)))
            for mistake in self.cause.mistakes:
                lines += [("mend", mistake.mend), ("more", f"llama-core explain {mistake.id}")]
        return "\n".join(_filled(text, width, f"    {label:<6}", " " * 10) for label, text in lines)

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
#: Where that is too wide: the floor alone.
_NARROW = (*_HEADER[:5], f"= {FACTOR:g} × floor", "")


def _row(check: Check, narrow: bool = False) -> tuple[str, ...]:
    verdict = "ok" if check.passed else "WRONG" if check.required else "differs" if check.output else "not used"
    verdict = verdict if check.required else f"{verdict} (extra)"
    if not check.output:
        return check.case, check.path, "", "", "", "", verdict
    tolerance = f"{check.tolerance.value:.2g}" if check.tolerance.value else "0"
    return (
        check.case,
        check.path,
        check.output,
        f"{check.error:.2g}",
        tolerance,
        f"{check.tolerance.floor:.2g}" if narrow and check.tolerance.floor else str(check.tolerance),
        verdict.replace("ok (extra)", "extra") if narrow else verdict,
    )


def _told(check: Check) -> str:
    """Its note, with the case it is about."""
    return f"{check.case}: {check.note}" if check.case else check.note


def _by_note(checks: Iterable[Check]) -> list[str]:
    """Every note once, with the cases that have it."""
    cases: dict[str, dict[str, None]] = {}
    for check in checks:
        cases.setdefault(check.note, {})[check.case] = None
    return [f"{', '.join(names)}: {note}" for note, names in cases.items()]


def _filled(text: str, width: int, first: str, rest: str) -> str:
    """Wrapped; a path or a name is never broken."""
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def aligned(rows: Sequence[Sequence[str]], indent: str = "    ") -> str:
    """Rows as columns of equal width, two spaces apart; columns without any entry are left out."""
    used = [n for n in range(len(rows[0])) if any(row[n] for row in rows[1:])]
    widths = {n: max(len(row[n]) for row in rows) for n in used}
    return "\n".join(indent + "  ".join(f"{row[n]:<{widths[n]}}" for n in used).rstrip() for row in rows)


def _html_row(check: Check) -> str:
    row = [*_row(check)[:-1], "; ".join(filter(None, (_row(check)[-1], check.note)))]
    cells = "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row)
    return f"<tr style='color:#c62828'>{cells}</tr>" if check.required and not check.passed else f"<tr>{cells}</tr>"


def strain(check: Check) -> float:
    """The error in tolerances."""
    if check.tolerance.value == 0:
        return 0.0 if check.error == 0 else math.inf
    return check.error / check.tolerance.value


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def verdict(results: Iterable[CheckResult], width: int = WIDTH) -> str:
    """PASS, or the first FAIL with its cause."""
    results = list(results)
    first = next((r for r in results if not r.passed), None)
    if first is None:
        return f"PASS  {len(results)} of {len(results)} checkpoints" if len(results) != 1 else "PASS"
    head = f"FAIL at checkpoint {first.id}, {first.title}: {first.summary()}"
    return "\n".join(part for part in (_filled(head, width, "", "  "), first.explanation(width)) if part)
