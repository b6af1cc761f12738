"""A checkpoint's result as a page: what the gate found, against what, the mistakes it catches, what it leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llama_core.checkpoints.mistakes import CATALOGUE, EQUIVALENCE_CLASSES
from llama_core.checkpoints.result import CheckResult
from llama_core.checkpoints.specification import CHECKPOINTS, Checkpoint, checkpoint
from llama_core.gate_report import facts, sections
from llama_core.gate_report.sections import FAIL, PASS, Measured
from llama_core.report import Inline, Link, Listing, Page, Paragraph, Piece, Ready, Section, Table
from llama_core.viz.strip import CHECKPOINTS as NAMES
from llama_core.viz.strip import checkpoint_strip

#: How every page's footer begins.
MADE_BY = "Written by llama-core check --report"


@dataclass(frozen=True)
class Circumstances:
    """When and on what: the same for every page.

    Attributes:
        made: when, as text. environment: facts that figures depend on.
    """

    made: str
    environment: Mapping[str, str | int]

    @property
    def footer(self) -> str:
        return f"{MADE_BY}, {self.made}."


def checkpoint_page(measured: Measured, names: Mapping[str, str], about: Circumstances) -> Page:
    """The page of one checkpoint.

    Args:
        names: checkpoint -> the name of its page, for those that have one.
    """
    spec = checkpoint(measured.result.id)
    return Page(
        names[spec.id],
        f"Checkpoint {spec.id}: {spec.title}",
        (
            _strip(spec.id, names),
            *_summary(measured, spec, about),
            sections.tests(measured),
            sections.validation(measured, spec),
            sections.mathematics(spec),
            sections.comparison(spec),
            sections.mistakes(measured, spec),
            _integration(spec, names),
            _limits(measured, spec),
            _next(spec, names),
        ),
        (Link("All checkpoints", "index"),),
        about.footer,
    )


def _strip(id: str, names: Mapping[str, str]) -> Ready:
    strip = checkpoint_strip(id, {other: f"{name}.html" for other, name in names.items() if other != id})
    return Ready(strip.html, repr(strip))


def _summary(measured: Measured, spec: Checkpoint, about: Circumstances) -> list[Piece]:
    result = measured.result
    caught = len(measured.proof.catches) - len(measured.proof.missed)
    rows: list[list[Inline]] = [
        ["status", PASS if result.passed else FAIL],
        ["judged", f"`{result.subject}`"],
        ["in", f"{result.dtype} on {result.device}"],
        ["found", result.summary().strip()],
        ["known mistakes that this gate catches", f"{caught} of {len(measured.proof.catches)}, in {result.dtype}"],
        ["time of the gate", f"{result.seconds:.2f} s"],
        ["date", about.made],
        ["on", ", ".join(f"{name} {value}" for name, value in about.environment.items())],
    ]
    pieces: list[Piece] = [
        Table(("", ""), rows),
        Paragraph(f"It must hold: {spec.must_hold}."),
    ]
    if not result.passed:
        pieces.append(Section("Cause", sections.cause(result, spec)))
    return [Section("Summary", pieces)]


def _integration(spec: Checkpoint, names: Mapping[str, str]) -> Section:
    read: list[list[Inline]] = [
        [f"`{name}`", f"[{', '.join(axes.split())}]", _to(giver, names) if giver else "given"]
        for name, axes, giver in facts.read_from(spec)
    ]
    given = [
        [f"`{name}`", f"[{', '.join(axes.split())}]", ", ".join(readers) or "whoever uses the result"]
        for name, axes, readers in facts.read_by(spec)
    ]
    pieces: list[Piece] = []
    if read:
        pieces.append(Table(("input", "axes", "from checkpoint"), read))
    pieces.append(Table(("output", "axes", "read by step (checkpoint)"), given))
    return Section("Integration points", pieces)


def _to(id: str, names: Mapping[str, str]) -> str | Link:
    label = f"{id}, {CHECKPOINTS[id].title}"
    return Link(label, names[id]) if id in names else label


def _limits(measured: Measured, spec: Checkpoint) -> Section:
    result = measured.result
    points: list[Inline] = []
    left_out = [case.name for case in spec.cases if case.name not in {c.name for c in measured.cases}]
    if all(case.given is None for case in measured.cases):
        if left_out:
            points.append(f"Not run: {', '.join(left_out)}.")
        families = {case.family for case in spec.neighbours} - {case.family for case in measured.cases}
        if families:
            points.append(f"Not asked for: the cases of {', '.join(sorted(families))} (`--family`).")
    else:
        points.append(
            "The cases are a model's own values; the shipped ones, which are made to expose mistakes, were not run."
        )
    points.append(f"Judged in {result.dtype} on {result.device} only.")
    welcome = [name for name in spec.welcome if not any(c.output == name for c in result.checks)]
    if welcome:
        names = ", ".join(f"`{name}`" for name in welcome)
        points.append(f"Welcome, but not given, so a fault in them shows only in what follows: {names}.")
    points += [
        f"Not caught in {result.dtype}: `{c.mistake.id}`, error {sections.number(c.error)} against "
        f"{sections.number(c.tolerance)}. {c.mistake.equivalent}"
        for c in measured.proof.missed
    ]
    for group in EQUIVALENCE_CLASSES:
        if spec.id in group.checkpoints and result.dtype in group.dtypes:
            names = ", ".join(f"`{name}`" for name in sorted(group.mistakes))
            points.append(f"Cannot be told apart here: {names}. {group.because}")
    unseen: list[Inline] = [
        f"`{m.id}`: {m.equivalent}" for m in CATALOGUE.values() if m.checkpoint == spec.id and m.equivalent
    ]
    pieces: list[Piece] = [Listing(points)]
    if unseen:
        about = Paragraph("On inputs other than these cases a mistake may change nothing, and passes unseen:")
        pieces.append(Section("Where mistakes do not show", [about, Listing(unseen)], level=3))
    return Section("Known limits", pieces)


def _next(spec: Checkpoint, names: Mapping[str, str]) -> Section:
    before, after = facts.next_to(spec.id)
    points: list[Inline] = [f"It is taught in `notebooks/{spec.notebook}.ipynb`."]
    if before is not None:
        points.append(("Before it: ", _to(before, names)))
    if after is not None:
        points.append(("After it: ", _to(after, names)))
    return Section("Where to go on", [Listing(points)])


def index_page(all_measured: Sequence[Measured], names: Mapping[str, str], about: Circumstances) -> Page:
    """All checkpoints of a run: the strip, a row each, and the first failure with its cause."""
    results = [m.result for m in all_measured]
    right = sum(r.passed for r in results)
    first = next((m for m in all_measured if not m.result.passed), None)
    rows: list[list[Inline]] = []
    for m in all_measured:
        r = m.result
        caught = f"{len(m.proof.catches) - len(m.proof.missed)} of {len(m.proof.catches)}"
        verdict = PASS if r.passed else FAIL
        rows.append([r.id, Link(r.title, names[r.id]), verdict, r.summary().strip(), caught, f"{r.seconds:.2f}"])
    header = ("", "checkpoint", "status", "found", "known mistakes caught", "seconds")
    pieces: list[Piece] = [
        _index_strip(results, names),
        Paragraph(
            (
                PASS if first is None else FAIL,
                f": {right} of {len(results)} checkpoints pass. Judged: `{results[0].subject}`, "
                f"in {results[0].dtype} on {results[0].device}.",
            )
        ),
        Table(header, rows, frozenset({"known mistakes caught", "seconds"})),
    ]
    if first is not None:
        spec = checkpoint(first.result.id)
        title = f"First failure: checkpoint {spec.id}, {spec.title}"
        pieces.append(Section(title, [Paragraph(first.result.summary().strip()), *sections.cause(first.result, spec)]))
    facts_rows = [[name, str(value)] for name, value in about.environment.items()]
    pieces.append(Section("Measured on", [Table(("", ""), [["date", about.made], *facts_rows])]))
    return Page("index", "What the gates found", tuple(pieces), (), about.footer)


def _index_strip(results: Sequence[CheckResult], names: Mapping[str, str]) -> Ready:
    cells = [
        f'<li><a href="{names[r.id]}.html"><b>{r.id}</b>{NAMES[r.id]}<br>'
        f'<span class="{"good" if r.passed else "bad"}">{"PASS" if r.passed else "FAIL"}</span></a></li>'
        for r in results
    ]
    words = " · ".join(f"{r.id} {'PASS' if r.passed else 'FAIL'}" for r in results)
    return Ready(f'<nav aria-label="checkpoints"><ol class="strip">{"".join(cells)}</ol></nav>', words)
