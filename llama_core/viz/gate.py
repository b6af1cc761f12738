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


@house_style()
def gate_checks(result: CheckResult, *, required_only: bool = True, title: str | None = None) -> Figure:
    """One line a check: a dot at its error, a bar up to the noise floor, a stroke at the tolerance.

    Args:
        result: what ``check`` returned. required_only: leave out the outputs that are merely welcome.

    The axis is logarithmic, in units of the reference's root mean square. A check that must be exact has its dot at
    the left edge. Wrong checks have a cross instead of a dot and are named in orange. Raises InputError where there is
    nothing to draw.
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
        ax.plot(_drawn(check), y, "o" if check.passed else "X", color=color, markersize=5 if check.passed else 8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.set_xlim(_LEAST / 1.6, _MOST * 1.6)
    ax.set_ylim(len(checks) - 0.4, -0.6)
    ax.set_yticks(range(len(checks)), [_label(c) for c in checks], fontsize=7.5)
    for text, check in zip(ax.get_yticklabels(), checks, strict=True):
        text.set_color(INK if check.passed else ORANGE)
    ax.set_xlabel("largest error / root mean square of the right values")
    ax.grid(axis="x", linewidth=0.4, color=MASKED_LINE, alpha=0.5)
    fig.legend(handles=_LEGEND, loc="outside lower center", ncols=len(_LEGEND), fontsize=8, frameon=False)
    finding = (
        f"checkpoint {result.id}, {result.title}: "
        + (f"all {len(checks)} checks within tolerance" if not wrong else f"{len(wrong)} of {len(checks)} checks wrong")
        + f" ({result.dtype})"
    )
    alt = "A list of checks, each with its measured error, the noise floor and the tolerance on a logarithmic axis."
    return finish(fig, finding, title, alt)


_LEGEND = (
    Line2D([], [], color=GREEN, alpha=0.35, linewidth=5, label="noise of right implementations"),
    Line2D([], [], color=INK, marker="|", linestyle="", markersize=9, markeredgewidth=1.6, label="tolerance"),
    Line2D([], [], color=BLUE, marker="o", linestyle="", markersize=5, label="measured, right"),
    Line2D([], [], color=ORANGE, marker="X", linestyle="", markersize=8, label="measured, wrong"),
)


def _drawn(check: Check) -> float:
    return min(max(check.error, _LEAST), _MOST) if math.isfinite(check.error) else _MOST


def _label(check: Check) -> str:
    return " · ".join(part for part in (check.case, check.path, check.output) if part)
