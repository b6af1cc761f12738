"""The ladder of errors: how far off each tensor of an engine is, in the order of the dataflow, one panel a ladder.

Two looks of one drawing: several engines beside each other, over one floor (``error_ladder``), and one engine over the
noise of right runs in each place (``noise_ladder``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array
from llama_core.viz.style import BLUE, GREEN, INK, MASKED_LINE, ORANGE, finish, house_style, logarithmic, new_figure

#: Relative errors above this are drawn there.
_MOST_RELATIVE = 10.0
#: Errors in units below and above these are drawn there.
_LEAST, _MOST = 1e-9, 1e3
#: Room for the number of a layer, in inches.
_LABEL = 0.28

#: How the tensors of a kind are marked, by look.
Marks = Mapping[str, Mapping[str, Any]]
_BESIDE: Marks = {
    "inherited": {"marker": "o", "color": BLUE, "markersize": 2.5},
    "wrong": {"marker": "X", "color": ORANGE, "markersize": 6},
    "none": {"marker": "s", "color": GREEN, "markersize": 2.5},
}
_OVER_NOISE: Marks = {
    "none": {"marker": "o", "color": BLUE},
    "inherited": {"marker": "o", "mfc": "white", "mec": ORANGE, "mew": 1.0},
    "wrong": {"marker": "X", "color": ORANGE, "markersize": 8, "zorder": 4},
}


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
    begins = {}
    for ax, run in zip(panels, runs, strict=True):
        values = _between(np.array([float(errors[run][name]) for name in names]), floor, _MOST_RELATIVE)
        bad = np.isin(names, list(wrong.get(run, ())))
        none = (values <= floor) & ~bad
        kinds = {"inherited": ~none & ~bad, "wrong": bad, "none": none}
        for kind, color, width in (("inherited", BLUE, 1.4), ("wrong", ORANGE, 1.8)):
            ax.vlines(np.flatnonzero(kinds[kind]), floor, values[kinds[kind]], color=color, linewidth=width)
        _mark(ax, values, kinds, _BESIDE)
        begins[run] = next(iter(wrong.get(run, ())), "")
        ax.set_title(
            f"{run}: {f'begins at {begins[run]}' if begins[run] else 'nothing is wrong'}", loc="left", size=8.5
        )
        logarithmic(ax.yaxis)
        ax.set_ylim(floor / 2, _MOST_RELATIVE * 2)
        ax.set_yticks([floor, 1e-2, _MOST_RELATIVE], labels=["none", "0.01", "10"])
        ax.set_xlim(-1, len(names))
    starts = [n for n, name in enumerate(names) if n == 0 or _layer(name) != _layer(names[n - 1])]
    for ax in panels:
        ax.set_xticks(starts, labels=["" for _ in starts])
        ax.grid(axis="x", linewidth=0.5, color=MASKED_LINE, alpha=0.6)
    every = math.ceil(len(starts) / 12)
    shown = [
        f"layer {number}" if (number := _layer(names[n])).isdigit() and place % every == 0 else ""
        for place, n in enumerate(starts)
    ]
    panels[-1].set_xticks(starts, labels=shown, ha="left")
    labels = {
        "wrong": "wrong on its own inputs",
        "inherited": "error inherited",
        "none": "no more than right engines differ",
    }
    handles = _handles(_BESIDE, labels, {"wrong": 6.0, "inherited": 4.0, "none": 4.0})
    fig.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8, frameon=False)
    fig.supylabel("relative error", size=8.5, color=INK)
    good = sum(not name for name in begins.values())
    parts = [f"“{run}” begins at {name}" for run, name in begins.items() if name]
    parts += [f"nothing is wrong in {good} of {len(runs)} runs"] if good else []
    alt = f"{len(runs)} rows of bars, the error of each of {len(names)} tensors from left to right."
    return finish(fig, "; ".join(parts), title, alt)


@house_style()
def noise_ladder(
    names: Sequence[str],
    errors: Mapping[str, Values],
    noise: Mapping[str, Values],
    *,
    factor: float | int = 4,
    wrong: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Errors through the layers, each above the noise of right runs in the same place: one panel a kind of error.

    Args:
        names: N activations in the order of the dataflow.
        errors: panel -> [N], in any unit, NaN where a tensor was not compared. noise: panel -> [N] in the same unit,
            NaN where it is not known.
        factor: the tolerance in noises. wrong: the names to be marked with a cross; others above their tolerance are
            drawn hollow, as errors that were inherited.
        title: in place of the finding.

    Both axes of numbers are logarithmic; exact values stand at the lower edge, what is not finite at the upper one.
    Raises InputError for panels or lengths that do not agree.
    """
    if not errors or errors.keys() != noise.keys():
        raise InputError("every panel needs errors and noise", key="errors", expected=list(errors), actual=list(noise))
    sizes: dict = {"N": (len(names), "names")}
    panels = {
        panel: (as_array(e, f"errors {panel!r}", "N", sizes), as_array(noise[panel], f"noise {panel!r}", "N", sizes))
        for panel, e in errors.items()
    }
    if not any(np.isfinite(e).any() or np.isinf(e).any() for e, _ in panels.values()):
        raise InputError("there is nothing to draw", key="errors", expected="at least one error", actual="none")
    fig = new_figure(float(np.clip(2.2 + 0.11 * len(names), 6.0, 10.0)), 0.9 + 2.3 * len(panels))
    axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0].tolist()
    marked = np.isin(list(names), list(wrong))
    for ax, (panel, (error, floor)) in zip(axes, panels.items(), strict=True):
        _over_noise(ax, error, floor, float(factor), marked)
        ax.set_title(panel, loc="left")
    _number_layers(axes, names, fig.get_figwidth() - 1.2)
    axes[-1].set_xlabel("layer")
    band = [
        Patch(color=GREEN, alpha=0.3, linewidth=0, label="noise of right runs"),
        Line2D([], [], color=INK, linewidth=1.0, label=f"tolerance, {float(factor):g} times that"),
    ]
    labels = {"none": "within tolerance", "inherited": "beyond, inherited", "wrong": "wrong"}
    handles = [*band, *_handles(_OVER_NOISE, labels, {"none": 4.5, "inherited": 5.0, "wrong": 8.0})]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    first = next((name for name, cross in zip(names, marked, strict=True) if cross), None)
    beyond = sum(int((error > factor * floor).sum()) for error, floor in [next(iter(panels.values()))])
    finding = f"the first wrong tensor is {first}" if first else "no tensor is wrong"
    finding += f"; {beyond} of {len(names)} are further off than right runs" if beyond else ""
    alt = "Errors of a model's tensors in the order of the dataflow on a logarithmic scale, with a band of noise."
    return finish(fig, finding, title, alt)


# The one drawing


def _mark(ax: Axes, heights: np.ndarray, kinds: Mapping[str, np.ndarray], marks: Marks) -> None:
    """The marks of every kind at their places in the dataflow."""
    x = np.arange(len(heights))
    for kind, style in marks.items():
        ax.plot(x[kinds[kind]], heights[kinds[kind]], linestyle="", gid=kind, **style)


def _handles(marks: Marks, labels: Mapping[str, str], sizes: Mapping[str, float]) -> list[Line2D]:
    """The legend of the marks, in the order of ``labels``."""
    return [
        Line2D([], [], linestyle="", label=text, **{**marks[kind], "markersize": sizes[kind]})
        for kind, text in labels.items()
    ]


def _between(errors: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where errors are drawn; those that are not finite at the upper edge."""
    return np.clip(np.nan_to_num(errors, nan=high, posinf=high), low, high)


def _layer(name: str) -> str:
    """The number of an activation's layer; the name of one that is in none."""
    found = re.match(r"layers\.(\d+)\.", name)
    return found[1] if found else name


# Over noise


def _over_noise(ax: Axes, error: np.ndarray, floor: np.ndarray, factor: float, marked: np.ndarray) -> None:
    x = np.arange(len(error))
    shown = [v[np.isfinite(v) & (v > 0)] for v in (error, factor * floor)]
    values = np.concatenate(shown) if any(v.size for v in shown) else np.array([1.0])
    low = max(_LEAST, float(values.min()) / 3)
    high = max(min(_MOST, float(values.max())), low * 10) * 3
    # A tensor whose noise is not known breaks the band.
    band = np.where(np.isfinite(floor), np.maximum(floor, low), np.nan)
    ax.fill_between(x, np.full(len(x), low / 2), band, step="mid", color=GREEN, alpha=0.3, linewidth=0)
    ax.step(x, factor * band, where="mid", color=INK, linewidth=1.0)
    heights = np.where(np.isnan(error), np.nan, _between(error, low, high / 1.5))
    with np.errstate(invalid="ignore"):
        beyond = error > factor * floor
    kinds = {"none": ~beyond & ~marked, "inherited": beyond & ~marked, "wrong": marked}
    size = float(np.clip(260 / max(len(x), 1), 2.0, 4.5))
    sized = {kind: {"markersize": size + 0.5 * (kind == "inherited"), **style} for kind, style in _OVER_NOISE.items()}
    _mark(ax, heights, kinds, sized)
    logarithmic(ax.yaxis)
    ax.set_ylim(low / 2, high)
    ax.set_xlim(-0.8, len(x) - 0.2)
    ax.grid(axis="y", linewidth=0.4, color=MASKED_LINE, alpha=0.5)


def _number_layers(axes: Sequence[Axes], names: Sequence[str], width: float) -> None:
    """A thin line where a layer begins, and the layers' numbers as far as there is room."""
    places = [number if (number := _layer(name)).isdigit() else "" for name in names]
    starts = [n for n, place in enumerate(places) if n and place != places[n - 1]]
    for ax in axes:
        for start in starts:
            ax.axvline(start - 0.5, linewidth=0.5, color=MASKED_LINE)
    middles = {
        place: (places.index(place) + len(places) - 1 - places[::-1].index(place)) / 2
        for place in dict.fromkeys(places)
        if place
    }
    every = max(1, int(np.ceil(len(middles) * _LABEL / width)))
    kept = [(middle, place) for n, (place, middle) in enumerate(middles.items()) if n % every == 0]
    axes[-1].set_xticks([middle for middle, _ in kept], [place for _, place in kept])
    axes[-1].tick_params(axis="x", length=0)
