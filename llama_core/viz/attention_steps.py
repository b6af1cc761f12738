"""From products to output in five panels: q·kᵀ → /√D → mask → softmax → ·v, for one head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import broken_note, heatmap, largest
from llama_core.viz.style import MAX_WIDTH, finish, house_style, new_figure, number
from llama_core.viz.tokens import set_token_ticks, token_labels

STEPS = ("q·kᵀ", "/√D", "mask", "softmax", "·v")
_HEIGHT_OF_LABELS = 1.25  # title, token labels and colour scale of a panel, in inches


@house_style()
def score_pipeline(
    products: Values,
    scores: Values,
    masked_scores: Values,
    weights: Values,
    output: Values,
    tokens: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """What one attention head does, step by step; rows are queries throughout, columns keys in the first four panels.

    Args:
        products: q·kᵀ, [S, T]. scores: divided by √D, [S, T]. masked_scores: -inf where masked, [S, T].
        weights: after the softmax, [S, T]. output: weights times v, [S, D].
        tokens: the T key positions; the S queries are the last of them.
        title: in place of the finding.

    Cells that the mask hides are hatched, in the weights too unless some weight leaked there.
    Raises InputError for shapes that do not go together.
    """
    sizes: dict = {}
    steps = [
        as_array(values, name, axes, sizes)
        for values, name, axes in (
            (products, "products", "S T"),
            (scores, "scores", "S T"),
            (masked_scores, "masked_scores", "S T"),
            (weights, "weights", "S T"),
            (output, "output", "S D"),
        )
    ]
    queries, keys = steps[0].shape
    labels = token_labels(tokens, keys)
    rows = labels[-queries:] if queries <= keys else token_labels(None, queries)
    masked = np.isneginf(steps[2])
    nothing = np.zeros_like(masked)
    hidden = [nothing, nothing, masked, masked & (steps[3] == 0), np.zeros(steps[4].shape, bool)]

    per_row = 5 if keys <= 10 else 3
    panel_rows = -(-5 // per_row)
    width = (MAX_WIDTH - 0.9) / per_row - 0.15
    cell = width / keys
    height = float(np.clip(queries * cell, 0.35, width))
    fig = new_figure(MAX_WIDTH, 0.5 + panel_rows * (height + _HEIGHT_OF_LABELS))
    axes = fig.subplots(panel_rows, per_row, squeeze=False).ravel()
    scores_limit = largest(steps[1], np.where(masked, 0, steps[2]))
    limits = [largest(steps[0]), scores_limit, scores_limit, None, largest(steps[4])]
    for n, (ax, values) in enumerate(zip(axes, steps, strict=False)):
        numbers = cell >= 0.3 and height / queries >= 0.2 and values.shape[1] <= keys
        image = heatmap(ax, values, hidden[n], limit=limits[n], numbers=numbers)
        ax.set_title(f"{n + 1}  {STEPS[n]}")
        if n == 4:
            ax.set_xlabel("head dimension", size=7.5)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        else:
            set_token_ticks(ax.xaxis, labels, 72 * cell)
        if n % per_row == 0:
            set_token_ticks(ax.yaxis, rows, 72 * height / queries)
        else:
            ax.set_yticks([])
        _scale(fig, ax, image, limits[n])
    for ax in axes[5:]:
        _reading_guide(ax)
    return finish(fig, _finding(steps, masked, rows, labels), title, _ALT)


_ALT = "Five heat maps of one attention head, queries down and keys across: products, scores, mask, weights, output."


def _scale(fig: Figure, ax: Axes, image, limit: float | None) -> None:
    ticks = [0, 0.5, 1] if limit is None else [-limit, 0, limit]
    bar = fig.colorbar(image, ax=ax, location="bottom", aspect=30, pad=0.02, shrink=0.9)
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7)


def _reading_guide(ax: Axes) -> None:
    ax.axis("off")
    lines = [
        "Rows are queries, columns are keys.",
        "1  how well query and key agree",
        "2  the same, made smaller by √D",
        "3  hatched: the mask hides the key",
        "4  each row sums to 1",
        "5  each row mixes the values",
    ]
    ax.text(0.02, 0.95, "\n".join(lines), va="top", size=8.5, linespacing=1.7, transform=ax.transAxes)


def _finding(steps: list[np.ndarray], masked: np.ndarray, rows: list[str], columns: list[str]) -> str:
    weights = steps[3]
    note = broken_note(steps[0], steps[1], np.where(masked, 0, steps[2]), weights, steps[4])
    leaked = float(np.nansum(np.where(masked, weights, 0)))
    if leaked:
        return f"{number(leaked)} of the weight lies where the mask hides the key{note}"
    finite = np.where(np.isfinite(weights), weights, -1)
    # The first row of a causal mask has no choice; the finding is about queries that do.
    choices = (~masked).sum(1) > 1
    candidates = np.where(choices[:, None], finite, -1) if choices.any() else finite
    row, column = np.unravel_index(int(candidates.argmax()), candidates.shape)
    return (
        f"“{rows[row]}” puts {max(candidates[row, column], 0):.2f} of its weight on “{columns[column]}”; "
        f"the mask hides {int(masked.sum()):,} of {masked.size:,} scores{note}"
    )
