"""Token strings as labels that can be read: spaces visible, no missing glyphs, never too long."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from matplotlib.axis import Axis
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from llama_core.errors import InputError

#: Longest label, in characters; longer tokens end in "…".
MAX_LENGTH = 14

#: Smallest label, in points, that is legible at 100 % on a screen.
MIN_SIZE = 6.0

_VISIBLE = {"\n": "↵", "\t": "⇥", "\r": "←"}

#: A vocabulary: its strings in the order of their ids, or a function from an id to its string (`Tokenizer.token`).
Vocabulary = Sequence[str] | Callable[[int], str]


@functools.cache
def _drawable() -> frozenset[int]:
    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())


def token_label(token: object) -> str:
    """How a token is written in a figure: a line's end is ``↵``, and what the font lacks is ``U+4E2D``.

    A space is ``▁`` at either end, where it could not be seen.
    """
    if not isinstance(token, str):
        raise InputError("a token must be a string", key="tokens", expected="str", actual=type(token).__name__)
    inner = token.strip(" ")
    before = len(token) - len(token.lstrip(" "))
    text = "▁" * before + inner + "▁" * (len(token) - before - len(inner))
    text = "".join(_VISIBLE.get(c, c) for c in text)
    text = "".join(c if ord(c) in _drawable() and c.isprintable() else f"U+{ord(c):04X}" for c in text)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def token_labels(tokens: Sequence[object] | None, count: int, name: str = "tokens") -> list[str]:
    """Labels for ``count`` positions; their numbers where no tokens are given. InputError for another count."""
    if tokens is None:
        return [str(n) for n in range(count)]
    if isinstance(tokens, str) or len(tokens) != count:
        raise InputError(
            f"{name} must be one string for each position",
            key=name,
            expected=f"{count} strings",
            actual="one string" if isinstance(tokens, str) else f"{len(tokens)} strings",
        )
    return [token_label(token) for token in tokens]


def vocabulary_label(vocabulary: Vocabulary | None, token: int) -> str:
    """The label of an id; its number without a vocabulary. InputError for an id outside."""
    if vocabulary is None:
        return str(token)
    if callable(vocabulary):
        return token_label(vocabulary(token))
    if not 0 <= token < len(vocabulary):
        raise InputError(
            "the vocabulary is too short", key="vocabulary", expected=f"id {token}", actual=len(vocabulary)
        )
    return token_label(vocabulary[token])


def set_token_ticks(axis: Axis, labels: Sequence[str], pitch: float) -> None:
    """Label the cells of an axis; where one cell has less room than a legible label, every second, third ... cell.

    Columns that are only counted, 0 1 2 ..., stay upright: every second, fifth, tenth ... of them has its number.

    Args:
        axis: ``ax.xaxis`` (other labels are turned by 90 degrees) or ``ax.yaxis``. pitch: points from one cell to the
            next.
    """
    size = min(max(pitch * 0.85, MIN_SIZE), 8.0)
    widest = max(map(len, labels), default=0) * 0.65 * size  # a character is about 0.65 of the font's size wide
    if axis.axis_name == "x" and all(label == str(n) for n, label in enumerate(labels)):
        step = next(step for step in _round_steps() if step * pitch >= widest + 0.4 * size or step >= len(labels))
    else:
        step = max(1, -int(-MIN_SIZE * 1.05 // pitch))
    shown = range(0, len(labels), step)
    axis.set_ticks(list(shown), labels=[labels[n] for n in shown])
    axis.set_tick_params(labelsize=size, length=0 if step == 1 else 2, pad=2)
    if axis.axis_name == "x" and widest > pitch * step:
        axis.set_tick_params(rotation=90)


def _round_steps() -> Iterator[int]:
    """1, 2, 5, 10, 20, 50 ..."""
    return (mantissa * 10**power for power in count() for mantissa in (1, 2, 5))
