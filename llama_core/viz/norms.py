"""RMSNorm: what it does to a distribution, what ε does to small inputs, what precision does to the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import broken_note
from llama_core.viz.style import BLUE, ORANGE, finish, house_style, logarithmic, new_figure, number
from llama_core.viz.tokens import set_token_ticks, token_labels


def root_mean_square(x: np.ndarray) -> np.ndarray | np.floating:
    """√(mean of squares) over the last axis, finite values only."""
    finite = np.where(np.isfinite(x), x, 0)
    counts = np.maximum(np.isfinite(x).sum(-1), 1)
    # Scaled by the largest first: squares of 1e200 would overflow.
    scale = np.abs(finite).max(-1, keepdims=True)
    scale = np.where(scale == 0, 1, scale)
    return scale[..., 0] * np.sqrt((np.square(finite / scale)).sum(-1) / counts)


@house_style()
def rms_norm_distribution(
    before: Values, after: Values, tokens: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """The values of a hidden state before and after the norm, and the root mean square of each token.

    Args:
        before: [S, E]. after: [S, E], with or without the norm's weight. tokens: S labels.

    Raises InputError for shapes that differ.
    """
    sizes: dict = {}
    x = as_array(before, "before", "S E", sizes)
    y = as_array(after, "after", "S E", sizes)
    labels = token_labels(tokens, len(x))
    fig = new_figure(10, max(3.4, 0.9 + 0.16 * len(x)))
    left, middle, right = fig.subplots(1, 3, width_ratios=[1, 1, 1.1])
    for ax, values, colour, name in ((left, x, ORANGE, "before"), (middle, y, BLUE, "after")):
        finite = values[np.isfinite(values)]
        ax.hist(finite, bins=_bins(finite), color=colour, gid=name)
        ax.axvline(0, color="#24292f", linewidth=0.7)
        logarithmic(ax.yaxis)
        ax.set(title=f"{name}: root mean square {number(float(root_mean_square(finite)))}", xlabel="value")
    left.set_ylabel("how many values")
    rms_x, rms_y = root_mean_square(x), root_mean_square(y)
    rows = np.arange(len(x))
    right.hlines(rows, rms_x, rms_y, color="#c3cad1", linewidth=1)
    right.scatter(rms_x, rows, color=ORANGE, s=20, marker="D", label="before", zorder=3)
    right.scatter(rms_y, rows, color=BLUE, s=20, label="after", zorder=3)
    right.set(title="root mean square of each token", ylim=(len(x) - 0.5, -0.5))
    right.set_xlim(0, 1.08 * float(max(rms_x.max(), rms_y.max())) or 1.0)
    set_token_ticks(right.yaxis, labels, 72 * (fig.get_figheight() - 1.0) / len(x))
    right.legend(loc="lower left", bbox_to_anchor=(0, -0.22), ncols=2)
    finding = (
        f"the root mean square of tokens goes from {_span(rms_x)} before the norm to {_span(rms_y)} after it"
        + broken_note(x, y)
    )
    alt = "Histograms of a hidden state before and after RMSNorm, and each token's root mean square."
    return finish(fig, finding, title, alt)


def _bins(finite: np.ndarray) -> int:
    return int(np.clip(np.sqrt(finite.size) * 1.5, 5, 60))


def _span(values: np.ndarray | np.floating) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}"


@house_style()
def rms_norm_epsilon(sizes_in: Values, sizes_out: Mapping[str, Values], *, title: str | None = None) -> Figure:
    """How large the norm's output is for inputs of every size: flat at 1, but for inputs as small as √ε.

    Args:
        sizes_in: root mean square of the inputs, [N], positive. sizes_out: name (``"ε = 1e-5"``) -> root mean square of
            the outputs, [N].

    Raises InputError for wrong shapes, inputs that are not positive, or no curve.
    """
    sizes: dict = {}
    x = as_array(sizes_in, "sizes_in", "N", sizes)
    curves = _curves(sizes_out, "sizes_out", sizes)
    if not (np.isfinite(x).all() and (x > 0).all()):
        raise InputError("sizes of inputs must be positive", key="sizes_in", expected="> 0 and finite")
    order = np.argsort(x)
    fig = new_figure(7.5, 3.7)
    ax = fig.subplots()
    markers = "osD^vP*X"
    for n, (name, y) in enumerate(curves.items()):
        ax.plot(x[order], y[order], marker=markers[n % 8], markevery=max(1, len(x) // 12), label=name)
    ax.axhline(1, color="#8c959f", linewidth=0.8, linestyle="--")
    logarithmic(ax.xaxis)
    ax.set(xlabel="root mean square of the input", ylabel="root mean square of the output")
    ax.set_ylim(bottom=0)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    smallest = {name: y[order][0] for name, y in curves.items()}
    parts = ", ".join(f"{number(y)} with {name}" for name, y in smallest.items())
    finding = f"an input of size {number(x.min())} comes out with size {parts}" + broken_note(*curves.values())
    alt = "Curves of output size over input size, one for each ε."
    return finish(fig, finding, title, alt)


@house_style()
def rms_norm_precision(exact: Values, computed: Mapping[str, Values], *, title: str | None = None) -> Figure:
    """Relative errors of the norm computed in several precisions, as curves of how many values are worse.

    Args:
        exact: the float64 result, [S, E]. computed: name -> [S, E].

    Raises InputError for wrong shapes or no result to compare.
    """
    sizes: dict = {}
    truth = as_array(exact, "exact", "S E", sizes)
    results = _curves(computed, "computed", sizes, "S E")
    fig = new_figure(7.5, 3.7)
    ax = fig.subplots()
    worst = {}
    floor = 1e-17  # an exact value has no place on a logarithmic axis
    for n, (name, values) in enumerate(results.items()):
        usable = np.isfinite(values) & np.isfinite(truth) & (truth != 0)
        errors = np.sort(np.abs(values[usable] / truth[usable] - 1))
        worst[name] = float(errors[-1]) if errors.size else 0.0
        share = 100 * (1 - np.arange(errors.size) / max(errors.size, 1))
        ax.plot(np.maximum(errors, floor), share, label=name, linestyle=("-", "--", "-.", ":")[n % 4])
    logarithmic(ax.xaxis)
    ax.set(xlabel="relative error", ylabel="% of values with at least this error", ylim=(0, 102))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.grid(axis="x")
    finding = "worst relative error: " + ", ".join(f"{name} {number(value)}" for name, value in worst.items())
    alt = "Curves of relative errors, one for each precision."
    return finish(fig, finding + broken_note(truth, *results.values()), title, alt)


def _curves(named: Mapping[str, Values], argument: str, sizes: dict, axes: str = "N") -> dict[str, np.ndarray]:
    if not isinstance(named, Mapping) or not named:
        raise InputError(
            "there is nothing to draw", key=argument, expected="name -> values", actual=type(named).__name__
        )
    return {name: as_array(values, f"{argument} {name!r}", axes, sizes) for name, values in named.items()}
