"""The ladder of errors: how far off each tensor of an engine is, in the order of the dataflow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import SupportsFloat

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from llama_core.errors import InputError
from llama_core.viz.style import (
    BLUE,
    GREEN,
    INK,
    MASKED_LINE,
    ORANGE,
    finish,
    house_style,
    logarithmic,
    new_figure,
)

_MOST = 10.0


@house_style()
def error_ladder(
    errors: Mapping[str, Mapping[str, SupportsFloat]],
    wrong: Mapping[str, Sequence[str]] | None = None,
    *,
    floor: float = 1e-5,
    title: str | None = None,
) -> Figure:
    """One panel a run: the relative error of every tensor, from the embedding to the logits.

    Args:
        errors: what the run is called -> tensor -> |a − b| / |b|, in the order of the dataflow, the same tensors in
            each run; at most eight runs.
        wrong: run -> the tensors that are wrong on their own inputs, first the one where it begins. They are crossed
            and orange; the others have inherited their error and are blue.
        floor: errors below are drawn as none, in green: two right engines differ by as much. NaN and infinite errors
            are drawn at the upper edge.

    Raises InputError for no run, too many, or runs with other tensors.
    """
    wrong = wrong or {}
    runs = list(errors) if isinstance(errors, Mapping) else []
    names = list(errors[runs[0]]) if runs else []
    if not 1 <= len(runs) <= 8 or not names or any(list(errors[run]) != names for run in runs):
        raise InputError(
            "there must be one to eight runs, each with the same tensors",
            key="errors",
            expected="run -> tensor -> relative error",
            actual=", ".join(f"{run}: {len(errors[run])} tensors" for run in runs[:9]) or "none",
        )
    for run, some in wrong.items():
        if run not in errors or not set(some) <= set(names):
            raise InputError(f"{run!r} has wrong tensors that have no error", key="wrong", expected=f"some of {names}")
    fig = new_figure(9.6, 1.0 + 0.95 * len(runs))
    panels = fig.subplots(len(runs), 1, sharex=True, squeeze=False)[:, 0]
    x = np.arange(len(names))
    begins = {}
    for ax, run in zip(panels, runs, strict=True):
        values = np.array([_drawn(errors[run][name], floor) for name in names])
        bad = np.isin(names, list(wrong.get(run, ())))
        none = (values <= floor) & ~bad
        inherited = ~none & ~bad
        ax.vlines(x[inherited], floor, values[inherited], color=BLUE, linewidth=1.4)
        ax.plot(x[inherited], values[inherited], "o", color=BLUE, markersize=2.5, gid="inherited")
        ax.vlines(x[bad], floor, values[bad], color=ORANGE, linewidth=1.8)
        ax.plot(x[bad], values[bad], "X", color=ORANGE, markersize=6, gid="wrong")
        ax.plot(x[none], np.full(none.sum(), floor), "s", color=GREEN, markersize=2.5, gid="none")
        begins[run] = next(iter(wrong.get(run, ())), "")
        ax.set_title(
            f"{run}: {f'begins at {begins[run]}' if begins[run] else 'nothing is wrong'}", loc="left", size=8.5
        )
        logarithmic(ax.yaxis)
        ax.set_ylim(floor / 2, _MOST * 2)
        ax.set_yticks([floor, 1e-2, _MOST], labels=["none", "0.01", "10"])
        ax.set_xlim(-1, len(names))
    layers = [n for n, name in enumerate(names) if _layer(name) != (_layer(names[n - 1]) if n else "")]
    for ax in panels:
        ax.set_xticks(layers, labels=["" for _ in layers])
        ax.grid(axis="x", linewidth=0.5, color=MASKED_LINE, alpha=0.6)
    every = math.ceil(len(layers) / 12)
    shown = [_layer(names[n]) if "." in names[n] and place % every == 0 else "" for place, n in enumerate(layers)]
    panels[-1].set_xticks(layers, labels=shown, ha="left")
    fig.legend(handles=_LEGEND, loc="outside lower left", ncols=len(_LEGEND), fontsize=8, frameon=False)
    fig.supylabel("relative error", size=8.5, color=INK)
    good = sum(not name for name in begins.values())
    parts = [f"“{run}” begins at {name}" for run, name in begins.items() if name]
    parts += [f"nothing is wrong in {good} of {len(runs)} runs"] if good else []
    alt = f"{len(runs)} rows of bars, the error of each of {len(names)} tensors from left to right."
    return finish(fig, "; ".join(parts), title, alt)


_LEGEND = (
    Line2D([], [], color=ORANGE, marker="X", linestyle="", markersize=6, label="wrong on its own inputs"),
    Line2D([], [], color=BLUE, marker="o", linestyle="", markersize=4, label="error inherited"),
    Line2D([], [], color=GREEN, marker="s", linestyle="", markersize=4, label="no more than right engines differ"),
)


def _drawn(error: SupportsFloat, floor: float) -> float:
    value = float(error)
    return min(max(value, floor), _MOST) if math.isfinite(value) else _MOST


def _layer(name: str) -> str:
    found = re.match(r"layers\.(\d+)\.", name)
    return f"layer {found[1]}" if found else name
