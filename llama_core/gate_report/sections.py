"""The sections of a checkpoint's page that say what was measured, and what it was measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.noise import DTYPES, FACTOR, OTHER_SEEDS
from llama_core.checkpoints.prove import Proof
from llama_core.checkpoints.repeated import RUNS
from llama_core.checkpoints.result import Check, CheckResult, strain
from llama_core.checkpoints.specification import Checkpoint
from llama_core.gate_report import facts, figures
from llama_core.report import Code, Folded, Inline, Link, Mark, Paragraph, Piece, Section, Table

PASS, FAIL = Mark("PASS", True), Mark("FAIL", False)
_MANY_CHECKS = 40


@dataclass(frozen=True)
class Measured:
    """All that was measured for one checkpoint.

    Attributes:
        result: of the gate. cases: that it ran.
        proof: every known mistake of the checkpoint tried.
        differing: outputs that are not the same bits in repeated runs; None where that could not be tried.
    """

    result: CheckResult
    cases: Sequence[Case]
    proof: Proof
    differing: list[str] | None


def cause(result: CheckResult, spec: Checkpoint) -> list[Piece]:
    pieces: list[Piece] = []
    if result.problem:
        pieces.append(Paragraph((Mark("Nothing to compare", False), f": {result.problem}")))
    cause = result.cause
    if cause is not None:
        pieces.append(Paragraph(str(cause)[:1].upper() + str(cause)[1:]))
        for mistake in cause.mistakes:
            rows: list[list[Inline]] = [
                ["it looks as if", Mark(mistake.title, False)],
                ["what it looks like", mistake.looks_like],
                ["why it happens", mistake.why],
                ["mend", mistake.mend],
                ["more", f"`llama-core explain {mistake.id}`"],
                ["met by", Link(mistake.origin, mistake.origin) if mistake.origin.startswith("http") else ""],
            ]
            pieces.append(Table(("", ""), rows))
    picture = figures.error_figure(result, spec)
    if picture is not None:
        pieces.append(picture)
    return pieces or [Paragraph("No known mistake explains it.")]


def tests(measured: Measured) -> Section:
    """One row for each case and path: how many of its checks hold, and how near the worst is to its tolerance."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in measured.result.checks:
        groups.setdefault((check.case, check.path), []).append(check)
    abouts = {case.name: case.about for case in measured.cases}
    rows: list[list[Inline]] = []
    for (case, path), checks in groups.items():
        required = [c for c in checks if c.required]
        right = sum(c.passed for c in required)
        notes = "; ".join(dict.fromkeys(c.note for c in required if c.note))
        verdict = PASS if required and right == len(required) else FAIL
        rows.append(
            [case, abouts.get(case, ""), path, f"{right} of {len(required)}", _nearest(required), verdict, notes]
        )
    total = sum(row[5] is PASS for row in rows)
    header = ("case", "what it exposes", "path", "checks", "worst error / tolerance", "status", "note")
    return Section(
        "Test results",
        [
            Paragraph(f"{total} of {len(rows)} cases pass."),
            Table(header, rows, frozenset({"checks", "worst error / tolerance"})),
        ],
    )


def _nearest(checks: Sequence[Check]) -> str:
    measured = [c for c in checks if c.output]
    if not measured:
        return "nothing to compare"
    worst = max(measured, key=strain)
    if not any(c.tolerance.value for c in measured):
        return "exact" if worst.passed else "not exact"
    return f"{strain(worst):.3g}" if math.isfinite(strain(worst)) else "∞"


def validation(measured: Measured, spec: Checkpoint) -> Section:
    result = measured.result
    header = ("case", "path", "output", "error", "tolerance", "where the tolerance comes from", "status", "note")
    rows: list[list[Inline]] = [
        [
            c.case,
            c.path,
            f"`{c.output}`" if c.output else "",
            number(c.error) if c.output else "",
            number(c.tolerance.value) if c.output else "",
            _source(c) if c.output else "",
            _verdict(c),
            c.note,
        ]
        for c in result.checks
    ]
    table = Table(header, rows, frozenset({"error", "tolerance"}))
    pieces: list[Piece] = [
        Paragraph(
            "Each output is held to a float64 reference on the same inputs, rounded to the type first. The error is "
            "max |a − b| over the root mean square of the right values. Whole numbers, and values that are only handed "
            f"through, must be exact. Every other tolerance is {FACTOR:g} times the noise floor: the largest error of "
            f"a right arithmetic in this type, over the case's seed and {OTHER_SEEDS} others (a large case: its own "
            "seed), kept in `noise.json`; or measured in this run where that file does not have the case."
        )
    ]
    picture = figures.checks_figure(result)
    if picture is not None:
        pieces.append(picture)
    pieces.append(Folded(f"All {len(rows)} checks", [table]) if len(rows) > _MANY_CHECKS else table)
    pieces.append(Section("Determinism", [Paragraph(_determinism(measured))], level=3))
    return Section("Validation results", pieces)


def _verdict(check: Check) -> Inline:
    if check.passed:
        return Mark("ok", True) if check.required else "ok (extra)"
    return Mark("WRONG", False) if check.required else "differs (extra)" if check.output else "not used (extra)"


def _source(check: Check) -> str:
    return "exact values" if not check.tolerance.value else str(check.tolerance)


def number(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "not finite"


def _determinism(measured: Measured) -> Inline:
    differing = measured.differing
    if differing is None:
        return "Not tried: there was nothing to run again."
    case = measured.cases[0].name
    if differing:
        names = ", ".join(f"`{name}`" for name in differing)
        return (
            f"{RUNS} runs on case “{case}” with the same inputs: ",
            Mark("not the same bits", False),
            f" in {names}.",
        )
    return (f"{RUNS} runs on case “{case}” with the same inputs: ", Mark("the same bits", True), " in every output.")


def mathematics(spec: Checkpoint) -> Section:
    rows = []
    for step in facts.steps_of(spec):
        reads = ", ".join(f"`{name}`" for name in (*step.inputs, *step.weights) if not name.endswith(".bias"))
        axes = "" if spec.id in ("0", "9") else f"[{', '.join(step.axes.split())}]"
        rows.append([f"`{step.name}`", axes, reads, facts.computes(step)])
    pieces: list[Piece] = [Code(spec.formula)]
    if rows:
        pieces.append(Table(("step", "axes", "reads", "the reference computes"), rows))
    if spec.id == "3":
        pieces.append(figures.masks_figure(spec))
    return Section("Mathematical verification", pieces)


def comparison(spec: Checkpoint) -> Section:
    pieces: list[Piece] = []
    header, rows = facts.published_sizes(spec.id)
    if rows:
        numbers = frozenset(header) - {"model", "scaling", "head"}
        pieces.append(Section("In published models", [Table(header, rows, numbers)], level=3))
    tolerances = facts.tolerances_by_dtype(spec)
    if tolerances:
        about = Paragraph("The largest tolerance of each output over all shipped cases, in root mean squares.")
        table = Table(("output", *DTYPES), tolerances, frozenset(DTYPES))
        pieces.append(Section("Tolerances by type", [about, table], level=3))
    return Section("Comparison", pieces or [Paragraph("Every value here is exact, in every type and for every model.")])


def mistakes(measured: Measured, spec: Checkpoint) -> Section:
    proof = measured.proof
    header = ("known mistake", "what it is", "shows most in", "error", "tolerance", "error / tolerance", "")
    rows: list[list[Inline]] = []
    for catch in sorted(proof.catches, key=lambda c: -c.ratio):
        where = f"{catch.case}: `{catch.output}`"
        ratio = f"{catch.ratio:.2g}" if math.isfinite(catch.ratio) else "∞" if catch.tolerance else "must be exact"
        verdict = Mark("caught", True) if catch.caught else Mark("not caught", False)
        numbers = (number(catch.error), number(catch.tolerance), ratio)
        rows.append([f"`{catch.mistake.id}`", catch.mistake.title, where, *numbers, verdict])
    caught = len(proof.catches) - len(proof.missed)
    about = (
        f"Each known mistake was made in the reference just now, in {proof.dtype}, on the small shipped cases, and its "
        f"outputs were held to the same tolerances: {caught} of {len(rows)} are caught. "
        "`llama-core explain ID` tells more of each."
    )
    return Section(
        "The mistakes it catches",
        [Paragraph(about), Table(header, rows, frozenset({"error", "tolerance", "error / tolerance"}))],
    )
