"""The residual stream: how it grows through the layers, and what attention and feed-forward add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array, layer_arrays
from llama_core.viz.heatmap import broken_note, heatmap
from llama_core.viz.style import BLUE, INK, ORANGE, finish, house_style, new_figure, number
from llama_core.viz.tokens import set_token_ticks, token_labels

#: What `residual_stream` reads from a capture.
NEEDED = (
    "embedding",
    "layers.*.attention_output",
    "layers.*.attention_residual",
    "layers.*.ffn_output",
    "layers.*.output",
)


@house_style()
def residual_stream(
    activations: Mapping[str, Values], tokens: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """Norms of the stream after each addition, of what is added, and of the stream at every token.

    Args:
        activations: what ``capture(model, residual.NEEDED)`` has seen: ``embedding`` and every layer's
            ``attention_output``, ``attention_residual``, ``ffn_output`` and ``output``, each [S, E].
        tokens: S labels.

    Raises InputError when one of them is missing or has another shape.
    """
    if not isinstance(activations, Mapping) or "embedding" not in activations:
        raise InputError("the embedding is not there", key="embedding", hint=f"capture these: {', '.join(NEEDED)}")
    sizes: dict = {}
    stream = [as_array(activations["embedding"], "embedding", "S E", sizes)]
    added: list[np.ndarray] = []
    parts = [layer_arrays(activations, pattern.rsplit(".", 1)[-1], "S E", sizes) for pattern in NEEDED[1:]]
    if len({len(part) for part in parts}) > 1:
        counts = {pattern: len(part) for pattern, part in zip(NEEDED[1:], parts, strict=True)}
        raise InputError("some layers are incomplete", key="activations", expected="as many of each", actual=counts)
    for attention, middle, ffn, end in zip(*parts, strict=True):
        added += [attention, ffn]
        stream += [middle, end]
    norms = np.stack([np.linalg.norm(x, axis=-1) for x in stream])  # [points, S]
    steps = np.stack([np.linalg.norm(x, axis=-1) for x in added])
    labels = token_labels(tokens, norms.shape[1])
    points = ["embedding"] + [f"{n} {part}" for n in range(len(added) // 2) for part in ("attn", "ffn")]

    rows = norms.shape[1]
    map_height = float(np.clip(rows * 0.16, 0.5, 4.6))
    width = float(np.clip(2.6 + 0.42 * len(points), 6, 10))
    fig = new_figure(width, 3.1 + map_height + 1.2)
    top, bottom = fig.subplots(2, 1, height_ratios=[2.6, map_height], sharex=True)
    x = np.arange(len(points))
    mean, low, high = _over_tokens(norms)
    top.fill_between(x, low, high, color="#c9d1d9", alpha=0.6, linewidth=0, label="least to most among tokens")
    top.plot(x, mean, color=INK, marker="o", label="the stream", gid="stream")
    growth = _over_tokens(steps)[0]
    top.bar(x[1::2], growth[0::2], width=0.6, color=BLUE, label="attention adds", gid="attention")
    top.bar(
        x[2::2],
        growth[1::2],
        width=0.6,
        color=ORANGE,
        hatch="///",
        edgecolor="white",
        linewidth=0,
        label="feed-forward adds",
    )
    top.set_ylabel("norm, mean over tokens")
    top.set_ylim(bottom=0)
    fig.legend(loc="outside lower left", ncols=4)

    finite = norms[np.isfinite(norms) & (norms > 0)]
    span = (finite.min(), finite.max()) if finite.size else (0.5, 1.0)
    image = heatmap(bottom, np.where(norms == 0, np.nan, norms).T, norm=LogNorm(span[0], max(span[1], span[0] * 1.01)))
    bar = fig.colorbar(image, ax=bottom, label="norm of the stream", aspect=15)
    ticks = np.geomspace(span[0], max(span[1], span[0] * 1.01), 3)
    bar.set_ticks(ticks, labels=[number(t) for t in ticks], minor=False)
    bar.set_ticks([], minor=True)
    bar.outline.set_visible(False)
    bottom.set_xticks(x, labels=points, rotation=90 if len(points) > 7 else 0)
    set_token_ticks(bottom.yaxis, labels, 72 * map_height / rows)
    finding = _finding(mean, growth, points) + broken_note(*stream, *added)
    alt = "The norm of the residual stream through the layers, bars of what each part adds, and a map for every token."
    return finish(fig, finding, title, alt)


def _over_tokens(norms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, least and most over the tokens with finite values; 0 where there is none."""
    rows = [row[np.isfinite(row)] for row in norms]
    mean, low, high = (np.array([f(row) if row.size else 0.0 for row in rows]) for f in (np.mean, np.min, np.max))
    return mean, low, high


def _finding(mean: np.ndarray, growth: np.ndarray, points: list[str]) -> str:
    most = int(growth.argmax())
    part = "attention" if most % 2 == 0 else "feed-forward"
    return (
        f"the stream goes from {number(mean[0])} to {number(mean[-1])}; "
        f"layer {most // 2}'s {part} adds most ({number(growth[most])})"
    )
