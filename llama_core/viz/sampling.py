"""The next token: its distribution, and what temperature, top-k and top-p leave of it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array, as_mask
from llama_core.viz.style import (
    BLUE,
    INK,
    MASKED_FACE,
    MASKED_LINE,
    MAX_WIDTH,
    ORANGE,
    count,
    finish,
    house_style,
    new_figure,
)
from llama_core.viz.tokens import Vocabulary, vocabulary_label


@house_style()
def next_token(
    probabilities: Values,
    vocabulary: Vocabulary | None = None,
    *,
    kept: Values | None = None,
    reference: Values | None = None,
    top_p: float | None = None,
    shown: int = 24,
    title: str | None = None,
) -> Figure:
    """The likeliest next tokens as bars; those that sampling may not choose are hatched; their running sum as a line.

    Args:
        probabilities: [V], after temperature and before any cut, summing to 1.
        vocabulary: an id's string, or all strings. kept: [V], True where the cuts leave a token; all by default.
        reference: [V], the distribution at temperature 1, drawn as marks. top_p: drawn as a line.
        shown: how many tokens to draw, at most 60. title: in place of the finding.

    Raises:
        InputError: wrong shapes, negative or non-finite probabilities, another sum than 1.
    """
    sizes: dict = {}
    p = as_array(probabilities, "probabilities", "V", sizes)
    others = [p] if reference is None else [p, as_array(reference, "reference", "V", sizes)]
    for values in others:
        if not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > 0.02:
            raise InputError(
                "these are no probabilities",
                key="probabilities",
                expected="at least 0 each, 1 together",
                actual=f"{values.min():.4g} to {values.max():.4g}, sum {values.sum():.4g}",
                hint="apply softmax to the logits first",
            )
    keep = np.ones(len(p), bool) if kept is None else as_mask(kept, "kept", "V", sizes)
    if not 1 <= shown <= 60:
        raise InputError("that many bars cannot be drawn", key="shown", expected="1 to 60", actual=shown)
    order = np.argsort(-p, kind="stable")[:shown]
    x = np.arange(len(order))
    fig = new_figure(float(np.clip(2.2 + 0.3 * len(order), 5.2, MAX_WIDTH)), 3.9)
    ax = fig.subplots()
    for drop, settings in (
        (False, {"color": BLUE, "gid": "kept"}),
        (True, {"facecolor": MASKED_FACE, "edgecolor": MASKED_LINE, "hatch": "/////", "linewidth": 0.8, "gid": "cut"}),
    ):
        chosen = keep[order] != drop
        if chosen.any():  # not snapped: a top would jump a row of pixels with the last digit of a probability
            ax.bar(x[chosen], p[order][chosen], width=0.8, snap=False, **settings)
    handles = [Patch(color=BLUE, label="kept")]
    if not keep.all():
        handles.append(Patch(facecolor=MASKED_FACE, edgecolor=MASKED_LINE, hatch="/////", label="cut"))
    if reference is not None:
        handles += ax.plot(
            x, others[1][order], "_", color=INK, markersize=9, markeredgewidth=1.4, label="temperature 1"
        )
    ax.set(xlim=(-0.7, len(order) - 0.3), ylabel="probability")
    ax.set_ylim(0, max(float(v[order].max()) for v in others) * 1.08)
    ax.set_xticks(x, labels=[vocabulary_label(vocabulary, int(token)) for token in order], rotation=90)
    ax.tick_params(axis="x", length=0)

    total = ax.twinx()
    handles += total.plot(x, np.cumsum(p[order]), color=ORANGE, marker=".", linewidth=1, label="running sum", gid="sum")
    if top_p is not None:
        handles.append(total.axhline(top_p, color=ORANGE, linestyle="--", linewidth=1, label=f"top-p {top_p:g}"))
    total.set_ylim(0, 1.05)
    total.set_ylabel("running sum", color="#a84800")
    total.spines["right"].set_visible(True)
    fig.legend(handles=handles, loc="outside lower left", ncols=5)
    finding = _finding(p, keep, vocabulary)
    alt = f"Bars of the {len(order)} likeliest next tokens, with their running sum."
    return finish(fig, finding, title, alt)


def _finding(p: np.ndarray, keep: np.ndarray, vocabulary: Vocabulary | None) -> str:
    best = int(p.argmax())
    first = f"“{vocabulary_label(vocabulary, best)}” has {p[best]:.2f}"
    if keep.all():
        return f"{first} of the probability; all {len(p):,} tokens may be chosen"
    if not keep.any():
        return f"{first}, but no token is kept"
    tokens = count(int(keep.sum()), "token")
    return f"{first}; the cuts keep {tokens} of {len(p):,}, which hold {p[keep].sum():.2f} of the probability"
