"""Every head of every layer on one sheet, query heads bracketed by the key head that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_mask, layer_arrays
from llama_core.viz.heatmap import broken_note, heatmap
from llama_core.viz.style import BLUE, INK, MAX_WIDTH, finish, house_style, new_figure, number, title_lines
from llama_core.viz.tokens import token_labels

_LEFT, _RIGHT, _GAP, _TITLE = 0.75, 0.75, 0.09, 0.2  # inches


@dataclass(frozen=True)
class HeadPattern:
    """Where one head looks: the mean weight that its queries put on one kind of key.

    Attributes:
        layer, head: which head. kind: ``previous token``, ``first token`` or ``itself``.
        weight: from 0 to 1, over the queries that have at least two keys before them.
    """

    layer: int
    head: int
    kind: str
    weight: float


def head_patterns(weights: Values) -> list[list[HeadPattern]]:
    """The strongest of three patterns for each head of each layer; weights as for `head_sheet`.

    Only queries at position 2 or later count: for the others two of the patterns are the same key. With fewer
    positions all queries count.
    """
    return [
        [_strongest(layer, head, values) for head, values in enumerate(heads)]
        for layer, heads in enumerate(layer_arrays(weights, "attention_weights", "H S T", {}))
    ]


def _strongest(layer: int, head: int, weights: np.ndarray) -> HeadPattern:
    queries, keys = weights.shape
    positions = np.arange(queries) + keys - queries
    rows = np.flatnonzero(positions >= 2)
    rows = rows if len(rows) else np.arange(queries)
    targets = {"previous token": positions - 1, "first token": np.zeros_like(positions), "itself": positions}
    means = {}
    for kind, target in targets.items():
        usable = rows[(target[rows] >= 0) & (target[rows] < keys)]
        picked = weights[usable, target[usable]]
        picked = picked[np.isfinite(picked)]
        means[kind] = float(picked.mean()) if picked.size else 0.0
    kind = max(means, key=lambda name: means[name])
    return HeadPattern(layer, head, kind, means[kind])


@house_style()
def head_sheet(
    weights: Values,
    tokens: Sequence[str] | None = None,
    *,
    num_key_value_heads: int | None = None,
    visible: Values | None = None,
    title: str | None = None,
) -> Figure:
    """Attention weights of all layers (rows) and heads (columns); each panel has queries down and keys across.

    Args:
        weights: what a capture of ``layers.*.attention_weights`` has seen, a list of [H, S, T], or [L, H, S, T].
        tokens: the T key positions; the S queries are the last of them.
        num_key_value_heads: K: each bracket spans the H/K consecutive query heads that read one key head.
        visible: [S, T], which keys a query may see; causal by default.
        title: in place of the finding.

    Hatched is what the mask hides, unless weight leaked there. Raises InputError for wrong shapes, or where K does
    not divide H.
    """
    sizes: dict = {}
    layers = layer_arrays(weights, "attention_weights", "H S T", sizes)
    heads, queries, keys = layers[0].shape
    groups = heads if num_key_value_heads is None else num_key_value_heads
    if groups < 1 or heads % groups:
        raise InputError(
            "the key heads do not divide the query heads",
            key="num_key_value_heads",
            expected=f"a divisor of {heads}",
            actual=groups,
        )
    if visible is None:
        seen = np.tri(queries, keys, keys - queries, dtype=bool)
    else:
        seen = as_mask(visible, "visible", "S T", sizes)
    labels = token_labels(tokens, keys)

    panel = min(2.2, (MAX_WIDTH - _LEFT - _RIGHT - heads * _GAP) / heads)
    tall = float(np.clip(panel * queries / keys, 0.25, panel))
    width = max(5.0, _LEFT + _RIGHT + heads * (panel + _GAP))
    legend = _token_key(labels, width)
    best = head_patterns(layers)
    finding = _finding(layers, best, seen)
    top = 0.55 + 0.17 * len(title_lines(finding, title, width)) + (0.2 if groups < heads else 0)
    bottom = 0.15 + 0.16 * len(legend)
    height = top + len(layers) * (tall + _TITLE) + bottom
    fig = new_figure(width, height, layout=None)
    for row, values in enumerate(layers):
        y = height - top - row * (tall + _TITLE) - tall
        fig.text(_LEFT * 0.8 / width, (y + tall / 2) / height, f"layer\n{row}", ha="right", va="center", size=8)
        for head in range(heads):
            x = _LEFT + head * (panel + _GAP)
            ax = fig.add_axes((x / width, y / height, panel / width, tall / height))
            image = heatmap(ax, values[head], ~seen & (values[head] == 0))
            ax.set_xticks([])
            ax.set_yticks([])
            _caption(ax, best[row][head], panel)
    _brackets(fig, heads, groups, panel, width, height, top)
    for n, line in enumerate(legend):
        fig.text(0.1 / width, (bottom - 0.12 - 0.16 * n) / height, line, size=7.5, va="top")
    bar_height = min(1.6, len(layers) * (tall + _TITLE) - 0.1)
    bar = fig.add_axes(
        ((width - _RIGHT + 0.15) / width, (height - top - bar_height) / height, 0.1 / width, bar_height / height)
    )
    fig.colorbar(image, cax=bar, ticks=[0, 0.5, 1])
    bar.tick_params(length=0)
    alt = f"Heat maps of attention weights, {len(layers)} layers down, {heads} heads across, queries down, keys across."
    return finish(fig, finding, title, alt)


def _caption(ax, pattern: HeadPattern, panel: float) -> None:
    short = {"previous token": "prev", "first token": "first", "itself": "self"}[pattern.kind]
    name = pattern.kind if panel > 1.6 else short
    strong = pattern.weight >= 0.5
    text = f"{name} {pattern.weight:.2f}".replace("0.", ".") if strong else "mixed"
    if panel >= 0.55:
        ax.set_title(text, size=6.5, pad=2, color=BLUE if strong else "#6e7781")


def _brackets(fig: Figure, heads: int, groups: int, panel: float, width: float, height: float, top: float) -> None:
    size = heads // groups
    for head in range(heads):
        x = _LEFT + head * (panel + _GAP) + panel / 2
        text = f"head {head}" if panel > 0.5 else str(head)
        fig.text(x / width, (height - top + 0.2) / height, text, ha="center", va="bottom", size=8)
    if size == 1:
        return
    y = (height - top + 0.38) / height
    for group in range(groups):
        left = _LEFT + group * size * (panel + _GAP)
        right = left + size * (panel + _GAP) - _GAP
        xs = [left / width, left / width, right / width, right / width]
        line = Line2D(xs, [y - 0.03 / height, y, y, y - 0.03 / height], color=INK, linewidth=1, gid="bracket")
        fig.add_artist(line)
        name = f"key head {group}" if right - left > 0.8 else f"key {group}"
        fig.text((left + right) / 2 / width, y + 0.02 / height, name, ha="center", va="bottom", size=8)


def _token_key(labels: list[str], width: float) -> list[str]:
    """The tokens under the sheet, wrapped: panels are too small to carry them as labels."""
    entries = [f"{n} {label}" if label != str(n) else label for n, label in enumerate(labels)]
    room, lines, line = int(11.5 * width), [], "keys from left to right:"
    for entry in entries:
        if len(line) + len(entry) + 3 > room:
            lines.append(line)
            line = entry
        else:
            line = f"{line}   {entry}"
    return [*lines, line]


def _finding(layers: list[np.ndarray], best: list[list[HeadPattern]], seen: np.ndarray) -> str:
    note = broken_note(*layers)
    leaked = sum(float(np.nansum(np.where(seen, 0, values))) for values in layers)
    if leaked:
        rows = sum(values.shape[0] * values.shape[1] for values in layers)
        return f"{number(leaked / rows)} of the weight lies where the mask hides the key{note}"
    every = [pattern for row in best for pattern in row]
    # Attending to the first token or to itself is common; a head that keeps to the previous one says more.
    telling = [p for p in every if p.kind == "previous token" and p.weight >= 0.5] or every
    pick = max(telling, key=lambda p: p.weight)
    return f"layer {pick.layer} head {pick.head} puts {pick.weight:.2f} of its weight on {_TARGET[pick.kind]}{note}"


_TARGET = {"previous token": "the previous token", "first token": "the first token", "itself": "the token itself"}
