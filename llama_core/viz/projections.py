"""Vectors of heads: queries, keys and values of one layer, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import broken_note, heatmap, largest
from llama_core.viz.style import INK, finish, house_style, new_figure, number
from llama_core.viz.tokens import set_token_ticks, token_labels


@house_style()
def head_vectors(
    vectors: Mapping[str, Values], tokens: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """Each panel: tokens down, the coordinates of all heads across, one black line between two heads.

    Args:
        vectors: name -> [S, heads, D], e.g. ``{"q": ..., "k": ..., "v": ...}``; one S and one D for all.
        tokens: S labels.

    Raises InputError for no panel, or shapes that do not go together.
    """
    if not vectors:
        raise InputError("there is nothing to draw", key="vectors", expected="at least one name with values")
    sizes: dict = {}
    arrays = {name: as_array(v, name, f"S N{n} D", sizes) for n, (name, v) in enumerate(vectors.items())}
    first = next(iter(arrays.values()))
    length, _, head_dim = first.shape
    labels = token_labels(tokens, length)
    limit = largest(*arrays.values())
    height = float(np.clip(1.5 + 0.22 * length, 2.4, 7.5))
    fig = new_figure(10, height)
    heads = [a.shape[1] for a in arrays.values()]
    axes = fig.subplots(1, len(arrays), width_ratios=[h + 0.6 for h in heads], squeeze=False)[0]
    for ax, (name, values) in zip(axes, arrays.items(), strict=True):
        count = values.shape[1]
        image = heatmap(ax, values.reshape(length, -1), limit=limit)
        for border in range(1, count):
            ax.axvline(border * head_dim - 0.5, color=INK, linewidth=1.0)
        ax.set_xticks([(n + 0.5) * head_dim - 0.5 for n in range(count)], [str(n) for n in range(count)])
        ax.tick_params(axis="x", length=0)
        ax.set(title=f"{name}: {count} {'head' if count == 1 else 'heads'} of {head_dim}", xlabel="head")
        if ax is axes[0]:
            set_token_ticks(ax.yaxis, labels, 72 * (height - 1.2) / length)
        else:
            ax.set_yticks([])
    fig.colorbar(image, ax=axes.tolist(), fraction=0.02, pad=0.01)
    spread = ", ".join(f"{name} {number(float(np.sqrt(np.mean(np.square(a)))))}" for name, a in arrays.items())
    alt = "Heat maps with tokens down and the coordinates of all heads across."
    return finish(fig, f"typical size of a coordinate: {spread}{broken_note(*arrays.values())}", title, alt)
