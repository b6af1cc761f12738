"""Logit lens: the token that the model would put next, if it stopped after each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import broken_note, cell_grid, heatmap, write
from llama_core.viz.style import MAX_WIDTH, ORANGE, finish, house_style, new_figure
from llama_core.viz.tokens import Vocabulary, set_token_ticks, token_labels, vocabulary_label


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis; -inf gives 0, and a row with a NaN or without a finite value gives NaN."""
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)


@house_style()
def logit_lens(
    logits: Values,
    tokens: Sequence[str] | None = None,
    vocabulary: Vocabulary | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Each cell: the likeliest next token after that layer at that position, coloured by its probability.

    Args:
        logits: [N, S, V]: the final norm and head applied to the embedding (row 0) and to each layer's output.
        tokens: the S tokens read. vocabulary: an id's string, or all strings; ids are written without it.

    The bottom row is the embedding, the top row the model's own answer. Cells whose token is already the final one
    have a frame. Raises InputError for wrong shapes.
    """
    values = as_array(logits, "logits", "N S V")
    points, positions, _ = values.shape
    probabilities = softmax(values)
    best = np.where(np.isnan(probabilities), -1, probabilities).argmax(-1)  # [N, S]
    chance = np.take_along_axis(probabilities, best[..., None], -1)[..., 0]
    labels = token_labels(tokens, positions)
    said = [[vocabulary_label(vocabulary, int(token)) for token in row] for row in best]

    longest = max(len(text) for row in said for text in row)
    width = float(np.clip(1.6 + positions * max(0.5, 0.075 * longest + 0.1), 4.8, MAX_WIDTH))
    cell = (width - 1.7) / positions
    upright = cell * 72 >= 4.6 * longest
    row_height = 0.3 if upright else max(0.32, 0.068 * longest + 0.08)
    fig = new_figure(width, 1.4 + points * row_height + 0.05 * max(map(len, labels)))
    ax = fig.subplots()
    image = heatmap(ax, chance[::-1], norm=Normalize(0, 1))
    for row, column in np.ndindex(points, positions):
        y = points - 1 - row
        if not np.isfinite(chance[row, column]):
            continue
        settled = best[row, column] == best[-1, column]
        text_size = 6.5 if upright else float(np.clip(cell * 72 * 0.8, 4.5, 6.5))
        write(ax, column, y, said[row][column], image, text_size, rotation=0 if upright else 90)
        if settled and row < points - 1:
            _frame(ax, column, y)
    cell_grid(ax, points, positions)
    ax.set_yticks(range(points), labels=["embedding", *(f"layer {n}" for n in range(points - 1))][::-1])
    ax.tick_params(axis="y", length=0)
    set_token_ticks(ax.xaxis, labels, 72 * cell)
    ax.set_xlabel("token read")
    bar = fig.colorbar(image, ax=ax, label="probability", ticks=[0, 0.5, 1], aspect=20)
    bar.outline.set_visible(False)
    alt = "A grid, layers from bottom to top and positions across, with the likeliest next token in each cell."
    return finish(fig, _finding(best, chance, said) + broken_note(chance), title, alt)


def _frame(ax: Axes, x: int, y: int) -> None:
    ax.add_patch(
        Rectangle((x - 0.44, y - 0.44), 0.88, 0.88, fill=False, edgecolor=ORANGE, linewidth=1.3, gid="settled")
    )


def _finding(best: np.ndarray, chance: np.ndarray, said: list[list[str]]) -> str:
    if not np.isfinite(chance[-1, -1]):
        return "the last position has no finite answer"
    same = best[:, -1] == best[-1, -1]
    first = len(same)
    while first > 0 and same[first - 1]:
        first -= 1
    where = "from the embedding on" if first == 0 else f"from layer {first - 1} on"
    return f"after the last token the answer is “{said[-1][-1]}” {where}, in the end with {chance[-1, -1]:.2f}"
