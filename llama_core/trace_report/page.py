"""A comparison as a page: the verdict, the ladder of errors, where and why, every tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from llama_core.report import Folded, Inline, Link, Listing, Mark, Page, Paragraph, Piece, Section, Table
from llama_core.trace_report import figures
from llama_core.trace_report.figures import Label
from llama_core.traces.table import times
from llama_core.traces.verdict import DRIFTING, EXACT, MISSING, NOISE, WRONG, Comparison, Line

#: How the footer of every such page begins.
MADE_BY = "Written by llama-core compare --html"
_MEANING = {
    EXACT: "the same values",
    NOISE: "no further off than right runs are from each other",
    DRIFTING: "further off than that, by errors that came in from before",
    WRONG: "wrong by itself: right inputs would not have helped",
    MISSING: "the candidate does not give it",
}
_NUMBERS = ("cumulative", "introduced", "max\u00a0Δ", "mean\u00a0Δ", "relative\u00a0L2", "cosine", "ULP")
_HEADER = ("tensor", "status", *_NUMBERS, "worst at", "note")


def comparison_page(
    result: Comparison, made: str, environment: Mapping[str, object], label: Label | None = None
) -> Page:
    """The page of one comparison.

    Args:
        made: when, as text. environment: facts by name.
        label: the text of the token at a sequence and position; its id by default.
    """
    name = label or (lambda sequence, position: str(result.tokens.get(sequence, {}).get(position, position)))
    pieces: list[Piece] = [_summary(result, made, environment, name)]
    if (drawn := figures.ladder(result)) is not None:
        about = (
            "Every tensor in the order of the dataflow: its error at the row and head that is furthest off, in root "
            "mean squares of the right values there, over the noise of right runs at the same place."
        )
        pieces.append(Section("The ladder of errors", [Paragraph(about), drawn]))
    if (worst := figures.worst_tensor(result)) is not None and not result.passed:
        pieces.append(_evidence(result, worst, name))
    if result.impacts is not None:
        pieces.append(_impact(result))
    if result.findings:
        pieces.append(_findings(result))
    pieces.append(_tensors(result, name))
    title = f"Traces compared: {result.candidate} against {result.golden}"
    return Page("comparison", title, pieces, (), f"{MADE_BY}, {made}.")


def _summary(result: Comparison, made: str, environment: Mapping[str, object], label: Label) -> Section:
    counts = [(sum(line.status == s for line in result.lines), s) for s in _MEANING]
    kinds = (
        "cumulative and introduced" if result.with_model else "cumulative only: without --model nothing else is known"
    )
    rows: list[list[Inline]] = [
        ["verdict", Mark("RIGHT", True) if result.passed else Mark("NOT RIGHT", False)],
        ["tensors", ", ".join(f"{count} {status}" for count, status in counts if count)],
        ["first divergence", f"`{result.first}` in call {result.first_call}" if result.first else ""],
        ["candidate", f"`{result.candidate}`, in {result.dtype}"],
        ["golden", f"`{result.golden}`"],
        ["errors", kinds],
        ["date", made],
        ["on", ", ".join(f"{name} {value}" for name, value in environment.items())],
    ]
    pieces: list[Piece] = [Table(("", ""), [row for row in rows if row[1]])]
    if result.cause is not None:
        pieces.append(Section("Cause", _cause(result), level=3))
    return Section("Summary", pieces)


def _cause(result: Comparison) -> list[Piece]:
    cause = result.cause
    assert cause is not None
    rows: list[list[Inline]] = []
    for mistake in cause.mistakes:
        rows += [["it looks as if", (Mark(mistake.title, False), f" (`{mistake.id}`)")]]
        rows += [["why it happens", mistake.why]] if mistake.why else []
        rows += [["mend", mistake.mend]]
        if mistake.origin.startswith("http"):
            rows.append(["met by", Link(mistake.origin, mistake.origin)])
    if not cause.mistakes:
        rows.append(["cause", "one of those below" if cause.alternatives else Mark("unknown", False)])
    if cause.alternatives:
        rows.append(["cannot be told from", ", ".join(f"`{id}`" for id in cause.alternatives)])
    rows += [["evidence", cause.evidence], ["where", cause.where]]
    if cause.lesson:
        rows.append(["lesson", f"`{cause.lesson}`"])
    return [Table(("", ""), rows)]


def _evidence(result: Comparison, worst: str, label: Label) -> Section:
    line = result.line(worst)
    pieces: list[Piece] = []
    if line.worst and line.value is not None and line.right is not None:
        words = (
            f"`{worst}` is furthest off at {_at(line, label)}: {line.value:.6g} where the golden trace has "
            f"{line.right:.6g}."
        )
        pieces.append(Paragraph(words))
    pieces += figures.error_maps(result, worst, label)
    return Section("Where it is wrong", pieces)


def _impact(result: Comparison) -> Section:
    from llama_core.traces.impact import HEADER, about, rows

    impacts = result.impacts
    assert impacts is not None
    table = Table(HEADER, [[f"`{name}`", *rest] for name, *rest in rows(impacts)], frozenset(HEADER[1:]))
    return Section("What each one does to the logits", [Paragraph(about(impacts)), *([table] if impacts.each else [])])


def _findings(result: Comparison) -> Section:
    points: list[Inline] = [
        (Mark("fails", False), f": {finding}") if finding.fails else f"note: {finding}" for finding in result.findings
    ]
    return Section("Findings", [Listing(points)])


def _tensors(result: Comparison, label: Label) -> Section:
    pieces: list[Piece] = [
        Paragraph("Cumulative and introduced errors are in tolerances of right runs: more than 1 is beyond them."),
        Listing([f"{status}: {meaning}" for status, meaning in _MEANING.items()]),
    ]
    by_place: dict[str, list[Line]] = {}
    for line in result.lines:
        found = re.match(r"layers\.(\d+)\.", line.name)
        by_place.setdefault(f"layer {found[1]}" if found else "outside the layers", []).append(line)
    for place, lines in by_place.items():
        counts = ((sum(line.status == s for line in lines), s) for s in _MEANING)
        summary = f"{place}: " + ", ".join(f"{count} {status}" for count, status in counts if count)
        pieces.append(Folded(summary, [_table(lines, label)]))
    return Section("Every tensor", pieces)


def _table(lines: Sequence[Line], label: Label) -> Table:
    return Table(_HEADER, [_row(line, label) for line in lines], frozenset(_NUMBERS))


def _row(line: Line, label: Label) -> list[Inline]:
    if line.status == MISSING:
        return [f"`{line.name}`", line.status, *[""] * 8, line.note]
    status = Mark(line.status, line.status in (EXACT, NOISE))
    numbers = (line.max_abs, line.mean_abs, line.relative_l2)
    off = line.worst is not None and line.status != EXACT
    return [
        f"`{line.name}`",
        status,
        times(line.cumulative),
        times(line.introduced),
        *(f"{value:.2g}" for value in numbers),
        f"{line.cosine:.8f}",
        f"{line.max_ulp:.2g}",
        _at(line, label).replace(" ", "\u00a0") if off else "",
        line.note,
    ]


def _at(line: Line, label: Label) -> str:
    assert line.worst is not None
    sequence, position, head, entry = line.worst
    token = "" if line.token is None else f" “{label(sequence, position)}”"
    where = f"position {position}{token}, head {head}, entry {entry}"
    return f"sequence {sequence}, {where}" if sequence else where
