"""A comparison as text: one line a tensor, the ladder of errors through the layers, the first divergence, the cause."""

from __future__ import annotations

import math
import re
import textwrap
from typing import TYPE_CHECKING

from llama_core.traces.verdict import DRIFTING, EXACT, MISSING, NOISE, WRONG

if TYPE_CHECKING:
    from llama_core.traces.verdict import Comparison, Line

_WIDTH = 100
_BAR = 40
#: Layers that are shown in full; of others only what is not right.
_FULL = 3


def render(result: Comparison) -> str:
    """The whole report."""
    quality = str(result.quality) if result.quality else ""
    effects = [_ladder(result), quality, _impact(result)]
    parts = [_headline(result), _tensors(result), *effects, _findings(result), _verdict(result)]
    return "\n\n".join(part for part in parts if part)


def _headline(result: Comparison) -> str:
    known = "cumulative and introduced errors" if result.with_model else "cumulative errors only (no --model)"
    return f"{result.candidate} in {result.dtype} against {result.golden}: {known}, in tolerances of right runs"


def _tensors(result: Comparison) -> str:
    width = max((len(line.name) for line in result.lines), default=6)
    head = f"{'tensor':<{width}}  {'status':<12}  {'cumulative':>10}  {'introduced':>10}  {'max |Δ|':>9}  {'ulp':>8}"
    head += f"  {'cosine':>11}"
    rows = [head]
    skipped = 0
    for line in result.lines:
        layer = re.match(r"layers\.(\d+)\.", line.name)
        if layer and int(layer[1]) >= _FULL and line.status in (EXACT, NOISE) and not line.note:
            skipped += 1
            continue
        rows.append(_row(line, width))
    if skipped:
        rows.append(f"{skipped} more tensors of layers {_FULL} and above are exact or within noise")
    return "\n".join(rows)


def _row(line: Line, width: int) -> str:
    if line.status == MISSING:
        return f"{line.name:<{width}}  {line.status:<12}  {line.note}".rstrip()
    numbers = f"{times(line.cumulative):>10}  {times(line.introduced):>10}  {line.max_abs:>9.2g}  {line.max_ulp:>8.2g}"
    worst = ""
    if line.status in (WRONG, DRIFTING) and line.worst:
        sequence, position, head, entry = line.worst
        token = "" if line.token is None else f" (token {line.token})"
        worst = f"  worst at sequence {sequence}, position {position}{token}, head {head}, entry {entry}"
    note = f"  {line.note}" if line.note else ""
    return f"{line.name:<{width}}  {line.status:<12}  {numbers}  {line.cosine:>11.8f}{worst}{note}"


def times(worth: float | None) -> str:
    """An error in tolerances, as text."""
    if worth is None:
        return "-"
    return "0" if worth == 0 else "∞" if math.isinf(worth) else f"{worth:.2g}"


def _ladder(result: Comparison) -> str:
    """The error of every layer's output: a bar a layer, on a logarithmic scale of tolerances."""
    lines = [line for line in result.lines if re.fullmatch(r"layers\.\d+\.output|logits", line.name)]
    lines = [line for line in lines if line.cumulative is not None]
    if len(lines) < 2:
        return ""
    rows = ["cumulative error through the layers; | is what right runs may have"]
    for line in lines:
        bar = _bar(line.cumulative)
        rows.append(f"{line.name:<18} {bar} {times(line.cumulative)}")
    return "\n".join(rows)


def _bar(worth: float) -> str:
    """From a thousandth of the tolerance to a million times it."""
    one = _BAR // 3
    length = _BAR if math.isinf(worth) else round((math.log10(max(worth, 1e-3)) + 3) / 9 * _BAR)
    length = min(max(length, 0), _BAR)
    text = "#" * length + " " * (_BAR - length)
    return text[:one] + "|" + text[one:]


def _impact(result: Comparison) -> str:
    if result.impacts is None:
        return ""
    from llama_core.traces.impact import HEADER, about, rows

    found = [list(HEADER), *rows(result.impacts)] if result.impacts.each else []
    widths = [max(len(row[n]) for row in found) for n in range(len(HEADER))] if found else []
    lines = [
        "  ".join(f"{c:<{w}}" if n == 0 else f"{c:>{w}}" for n, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in found
    ]
    return "\n".join([textwrap.fill(about(result.impacts), _WIDTH), *lines])


def _findings(result: Comparison) -> str:
    return "\n".join(("! " if finding.fails else "  ") + str(finding) for finding in result.findings)


def _verdict(result: Comparison) -> str:
    counts = {status: sum(line.status == status for line in result.lines) for status in (EXACT, NOISE, DRIFTING, WRONG)}
    counts[MISSING] = sum(line.status == MISSING for line in result.lines)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if result.passed:
        return f"RIGHT: {summary}"
    lines = [f"NOT RIGHT: {summary}"]
    if result.first:
        lines.append(f"First divergence: {result.first} in call {result.first_call}")
    if result.cause:
        wrapped = [textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in str(result.cause).splitlines()]
        lines.append("\n".join(wrapped))
    return "\n".join(lines)
