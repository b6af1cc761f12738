"""Who may look at whom: masks of prefill, decode, a chunk with a cache, and left padding, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_mask
from llama_core.viz.heatmap import cell_grid, heatmap
from llama_core.viz.style import MASKED_FACE, MASKED_LINE, MAX_WIDTH, SEQUENTIAL, finish, house_style, new_figure
from llama_core.viz.tokens import set_token_ticks, token_labels

_VISIBLE = 0.2  # a calm blue of the sequential map


@house_style()
def causal_masks(
    masks: Mapping[str, Values],
    tokens: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """One panel for each mask, drawn to one scale so that their shapes can be compared.

    Args:
        masks: what to call it -> [S, T], True where the query (row) sees the key (column).
        tokens: the T key positions of every mask, or of each under its name; the S queries are the last of them.
        title: in place of the finding.

    Raises:
        InputError: no masks, or a mask that is not made of False and True.
    """
    if not isinstance(masks, Mapping) or not masks:
        raise InputError(
            "there are no masks to draw", key="masks", expected="name -> [S, T]", actual=type(masks).__name__
        )
    visible = {name: as_mask(mask, f"mask {name!r}", "S T") for name, mask in masks.items()}
    columns = [mask.shape[1] for mask in visible.values()]
    per_row = _panels_in_a_row(columns)
    groups = [list(visible)[n : n + per_row] for n in range(0, len(visible), per_row)]
    widest = max(sum(visible[name].shape[1] for name in group) for group in groups)
    cell = min(0.3, (MAX_WIDTH - 0.9 * per_row) / widest)
    width = max(4.5, widest * cell + 0.9 * per_row + 0.3)
    heights = [max(visible[name].shape[0] for name in group) * cell + 1.15 for group in groups]
    fig = new_figure(width, 0.8 + sum(heights))
    parts = np.atleast_1d(fig.subfigures(len(groups), 1, height_ratios=heights))
    for sub, group in zip(parts, groups, strict=True):
        widths = [visible[name].shape[1] for name in group]
        panels = sub.subplots(1, len(group), width_ratios=widths, squeeze=False)[0]
        for ax, name in zip(panels, group, strict=True):
            mask = visible[name]
            queries, keys = mask.shape
            heatmap(ax, np.full(mask.shape, _VISIBLE), ~mask, norm=Normalize(0, 1), aspect="equal")
            cell_grid(ax, queries, keys)
            labels = token_labels(
                tokens.get(name) if isinstance(tokens, Mapping) else tokens, keys, f"tokens of {name}"
            )
            set_token_ticks(ax.xaxis, labels, 72 * cell)
            rows = labels[-queries:] if queries <= keys else token_labels(None, queries)
            set_token_ticks(ax.yaxis, rows, 72 * cell)
            ax.set_title(f"{name}\n{queries} × {keys}")
            ax.set_anchor("NW")
    swatches = [
        Patch(facecolor=colormaps[SEQUENTIAL](_VISIBLE), label="visible"),
        Patch(facecolor=MASKED_FACE, edgecolor=MASKED_LINE, hatch="/////", linewidth=0, label="masked"),
    ]
    fig.legend(handles=swatches, loc="outside lower left", ncols=2)
    counts = [f"{name} hides {int((~mask).sum()):,} of {mask.size:,}" for name, mask in visible.items()]
    alt = "Masks as grids, queries down and keys across, masked cells hatched."
    return finish(fig, "; ".join(counts), title, alt)


def _panels_in_a_row(columns: list[int]) -> int:
    """As many as fit with cells of at least 0.09 inches."""
    fit = len(columns)
    while fit > 1 and 0.09 * fit * max(columns) + 0.9 * fit > MAX_WIDTH:
        fit -= 1
    return fit
