"""A few heads side by side, with the cells framed that a perfect head of its kind would use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array, as_mask
from llama_core.viz.heatmap import broken_note, heatmap
from llama_core.viz.style import MAX_WIDTH, ORANGE, finish, house_style, new_figure
from llama_core.viz.tokens import set_token_ticks, token_labels


@house_style()
def attention_maps(
    weights: Mapping[str, Values],
    tokens: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    framed: Mapping[str, Values] | None = None,
    title: str | None = None,
) -> Figure:
    """The attention weights of one to four heads; rows are queries, columns are keys.

    Args:
        weights: what to call the head -> [S, T], causal: key columns after a query are hatched unless weight leaked.
        tokens: the T key positions of every head, or of each under its name; the S queries are the last of them.
        framed: a head's name -> [S, T], True for the cells that are to be framed.
        title: in place of the finding.

    The finding is the weight inside the frames, averaged over the queries that have one. Raises InputError for no
    heads, more than four, or shapes that do not go together.
    """
    if not isinstance(weights, Mapping) or not 1 <= len(weights) <= 4:
        raise InputError(
            "there must be one to four heads",
            key="weights",
            expected="name -> [S, T]",
            actual=len(weights) if isinstance(weights, Mapping) else type(weights).__name__,
        )
    sizes: dict[str, dict] = {name: {} for name in weights}
    maps = {name: as_array(values, f"weights of {name!r}", "S T", sizes[name]) for name, values in weights.items()}
    unknown = [name for name in framed or {} if name not in maps]
    if unknown:
        raise InputError(
            "a frame belongs to no head", key="framed", expected=" or ".join(map(repr, maps)), actual=repr(unknown[0])
        )
    frames = {name: as_mask(cells, f"frames of {name!r}", "S T", sizes[name]) for name, cells in (framed or {}).items()}
    panel = min(3.4, (MAX_WIDTH - 0.9 * len(maps) - 0.6) / len(maps))
    fig = new_figure(max(4.6, len(maps) * (panel + 0.9) + 0.6), panel + 1.9)
    axes = fig.subplots(1, len(maps), squeeze=False)[0]
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        queries, keys = values.shape
        future = ~np.tri(queries, keys, keys - queries, dtype=bool)
        image = heatmap(ax, values, future & (values == 0), aspect="equal")
        labels = token_labels(tokens.get(name) if isinstance(tokens, Mapping) else tokens, keys, f"tokens of {name}")
        set_token_ticks(ax.xaxis, labels, 72 * panel / keys)
        rows = labels[-queries:] if queries <= keys else token_labels(None, queries)
        set_token_ticks(ax.yaxis, rows, 72 * panel / keys)
        ax.set_title(name)
        if name in frames:
            _frame(ax, frames[name])
    bar = fig.colorbar(image, ax=axes.tolist(), ticks=[0, 0.5, 1], fraction=0.03, pad=0.01, shrink=0.6)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    if frames:
        line = Line2D([], [], color=ORANGE, linewidth=1.4, label="where a perfect head of this kind looks")
        fig.legend(handles=[line], loc="outside lower left")
    alt = f"Heat maps of attention weights of {len(maps)} head{'s' * (len(maps) > 1)}, queries down and keys across."
    return finish(fig, _finding(maps, frames) + broken_note(*maps.values()), title, alt)


def _frame(ax: Axes, cells: np.ndarray) -> None:
    """One patch of squares around the cells that are True."""
    squares = [
        Path([(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5), (x - 0.5, y - 0.5)])
        for y, x in np.argwhere(cells).tolist()
    ]
    if squares:
        path = Path.make_compound_path(*squares)
        ax.add_patch(PathPatch(path, facecolor="none", edgecolor=ORANGE, linewidth=0.9, gid="framed"))


def _finding(maps: dict[str, np.ndarray], frames: dict[str, np.ndarray]) -> str:
    inside = []
    for name, cells in frames.items():
        weight = np.where(cells, maps[name], 0).sum(1)[cells.any(1)]
        if weight.size:
            inside.append(f"{weight.mean():.2f} with “{name}”")
    if inside:
        return "weight inside the frames: " + ", ".join(inside)
    name, values = next(iter(maps.items()))
    row, column = np.unravel_index(int(np.nan_to_num(values, nan=-1).argmax()), values.shape)
    return f"“{name}” is strongest at query {row}, key {column}: {values[row, column]:.2f}"
