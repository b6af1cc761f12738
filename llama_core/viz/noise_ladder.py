"""The ladder of errors: every tensor in the order of the dataflow, its error above the noise of right runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array
from llama_core.viz.style import BLUE, GREEN, INK, MASKED_LINE, ORANGE, finish, house_style, new_figure, number

#: Errors below and above these are drawn there.
_LEAST, _MOST = 1e-9, 1e3
#: Room for the number of a layer, in inches.
_LABEL = 0.28


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
        _panel(ax, error, floor, float(factor), marked)
        ax.set_title(panel, loc="left")
    _layers(axes, names, fig.get_figwidth() - 1.2)
    axes[-1].set_xlabel("layer")
    fig.legend(handles=_legend(float(factor)), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    first = next((name for name, cross in zip(names, marked, strict=True) if cross), None)
    beyond = sum(int((error > factor * floor).sum()) for error, floor in [next(iter(panels.values()))])
    finding = f"the first wrong tensor is {first}" if first else "no tensor is wrong"
    finding += f"; {beyond} of {len(names)} are further off than right runs" if beyond else ""
    alt = "Errors of a model's tensors in the order of the dataflow on a logarithmic scale, with a band of noise."
    return finish(fig, finding, title, alt)


def _panel(ax: Axes, error: np.ndarray, floor: np.ndarray, factor: float, marked: np.ndarray) -> None:
    x = np.arange(len(error))
    shown = [v[np.isfinite(v) & (v > 0)] for v in (error, factor * floor)]
    values = np.concatenate(shown) if any(v.size for v in shown) else np.array([1.0])
    low = max(_LEAST, float(values.min()) / 3)
    high = max(min(_MOST, float(values.max())), low * 10) * 3
    # A tensor whose noise is not known breaks the band.
    band = np.where(np.isfinite(floor), np.maximum(floor, low), np.nan)
    ax.fill_between(x, np.full(len(x), low / 2), band, step="mid", color=GREEN, alpha=0.3, linewidth=0)
    ax.step(x, factor * band, where="mid", color=INK, linewidth=1.0)
    drawn = np.where(np.isnan(error), np.nan, np.clip(np.nan_to_num(error, nan=0, posinf=np.inf), low, high / 1.5))
    with np.errstate(invalid="ignore"):
        beyond = error > factor * floor
    right = ~beyond & ~marked
    size = float(np.clip(260 / max(len(x), 1), 2.0, 4.5))
    ax.plot(x[right], drawn[right], "o", color=BLUE, markersize=size)
    inherited = beyond & ~marked
    ax.plot(x[inherited], drawn[inherited], "o", markersize=size + 0.5, mfc="white", mec=ORANGE, mew=1.0)
    ax.plot(x[marked], drawn[marked], "X", color=ORANGE, markersize=8, zorder=4)
    ax.set_yscale("log")
    ax.set_ylim(low / 2, high)
    ax.set_xlim(-0.8, len(x) - 0.2)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.grid(axis="y", linewidth=0.4, color=MASKED_LINE, alpha=0.5)


def _layers(axes: Sequence[Axes], names: Sequence[str], width: float) -> None:
    """A thin line where a layer begins, and the layers' numbers as far as there is room."""
    places = [found[1] if (found := re.match(r"layers\.(\d+)\.", name)) else "" for name in names]
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


def _legend(factor: float) -> list[Line2D | Patch]:
    return [
        Patch(color=GREEN, alpha=0.3, linewidth=0, label="noise of right runs"),
        Line2D([], [], color=INK, linewidth=1.0, label=f"tolerance, {factor:g} times that"),
        Line2D([], [], color=BLUE, marker="o", linestyle="", markersize=4.5, label="within tolerance"),
        Line2D([], [], color=ORANGE, marker="o", mfc="white", linestyle="", markersize=5, label="beyond, inherited"),
        Line2D([], [], color=ORANGE, marker="X", linestyle="", markersize=8, label="wrong"),
    ]
