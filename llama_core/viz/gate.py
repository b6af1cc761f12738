"""What a gate found: every check with its error, the noise of right implementations, and the tolerance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from llama_core.errors import InputError
from llama_core.viz.style import BLUE, GREEN, INK, MASKED_LINE, ORANGE, finish, house_style, new_figure, number

if TYPE_CHECKING:
    from llama_core.checkpoints.result import Check, CheckResult

#: Errors left of this are drawn here: two exact values are no further apart.
_LEAST = 1e-9
_MOST = 10.0
#: Right implementations lie up to here, in floors, whatever the processor; the tolerance is at four.
_LIKE_NOISE = 3.0


@house_style()
def gate_checks(
    result: CheckResult, *, required_only: bool = True, to_the_digit: bool = False, title: str | None = None
) -> Figure:
    """One line a check: a mark for its error, a bar up to the noise floor, a stroke at the tolerance.

    Args:
        result: what ``check`` returned. required_only: leave out the outputs that are merely welcome.
        to_the_digit: put the mark of a right check where its error was measured. The last digits of a right result
            differ between processors, so two machines draw two pictures. Without it they draw the same: the mark
            stands at the end of the noise up to three times the noise, and halfway to the tolerance beyond.

    The axis is logarithmic, in units of the reference's root mean square. A check that must be exact has its mark at
    the left edge. Wrong checks have a cross, where their error is, and are named in orange. Raises InputError where
    there is nothing to draw.
    """
    checks = [c for c in result.checks if c.output and (c.required or not required_only)]
    if not checks:
        raise InputError(
            "the gate compared nothing",
            key="result",
            expected="at least one check with an output",
            actual=result.problem or "none",
        )
    wrong = [c for c in checks if not c.passed]
    fig = new_figure(9.0, 1.35 + 0.2 * len(checks))
    ax = fig.add_subplot()
    for y, check in enumerate(checks):
        color = BLUE if check.passed else ORANGE
        if check.tolerance.value > 0:
            ax.plot(
                [_LEAST, check.tolerance.floor], [y, y], color=GREEN, alpha=0.35, linewidth=5, solid_capstyle="butt"
            )
            ax.plot([check.tolerance.value] * 2, [y - 0.4, y + 0.4], color=INK, linewidth=1.6)
        at = _measured(check) if to_the_digit or not check.passed else _class(check)
        ax.plot(at, y, "o" if check.passed else "X", color=color, markersize=5 if check.passed else 8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.set_xlim(_LEAST / 1.6, _MOST * 1.6)
    ax.set_ylim(len(checks) - 0.4, -0.6)
    ax.set_yticks(range(len(checks)), [_label(c) for c in checks], fontsize=7.5)
    for text, check in zip(ax.get_yticklabels(), checks, strict=True):
        text.set_color(INK if check.passed else ORANGE)
    ax.set_xlabel("largest error / root mean square of the right values")
    ax.grid(axis="x", linewidth=0.4, color=MASKED_LINE, alpha=0.5)
    fig.legend(handles=_legend(to_the_digit), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    finding = (
        f"checkpoint {result.id}, {result.title}: "
        + (f"all {len(checks)} checks within tolerance" if not wrong else f"{len(wrong)} of {len(checks)} checks wrong")
        + f" ({result.dtype})"
    )
    alt = "A list of checks, each with its measured error, the noise floor and the tolerance on a logarithmic axis."
    near = 0 if to_the_digit else sum(c.passed and c.error > _LIKE_NOISE * c.tolerance.floor for c in checks)
    finding += f"; {near} near the tolerance" if near else ""
    return finish(fig, finding, title, alt)


def _legend(to_the_digit: bool) -> list[Line2D]:
    right = "measured, right" if to_the_digit else "right: exact, or like the noise"
    return [
        Line2D([], [], color=GREEN, alpha=0.35, linewidth=5, label="noise of right implementations"),
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=9, markeredgewidth=1.6, label="tolerance"),
        Line2D([], [], color=BLUE, marker="o", linestyle="", markersize=5, label=right),
        Line2D([], [], color=ORANGE, marker="X", linestyle="", markersize=8, label="measured, wrong"),
    ]


def _class(check: Check) -> float:
    """Where a right check is marked, the same on every machine: exact, like the noise, or near the tolerance."""
    floor, most = check.tolerance.floor, check.tolerance.value
    if most == 0:
        return _LEAST
    return floor if check.error <= _LIKE_NOISE * floor else math.sqrt(floor * most)


def _measured(check: Check) -> float:
    return min(max(check.error, _LEAST), _MOST) if math.isfinite(check.error) else _MOST


def _label(check: Check) -> str:
    return " · ".join(part for part in (check.case, check.path, check.output) if part)
