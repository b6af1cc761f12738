"""What goes wrong with rotation in a port, besides the catalogue: positions, one of queries and keys, coarse angles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes import CATALOGUE
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.checkpoints.steps import Changes
from llama_core.traces.hypothesis import made

Positions = Callable[[Context, np.ndarray], np.ndarray]
_ROTATED = ("q_rotated", "k_rotated")
_MEND = "The first token of a sequence has position 0, and padding has none."
#: Those that make a sentence of their own when they happen to queries, or keys, alone.
_ALONE = (
    "rope-pairs-swapped",
    "rope-tables-of-other-layout",
    "rope-sign-flipped",
    "rope-position-plus-one",
    "rope-position-zero-when-decoding",
    "rope-positions-restart",
    "rope-heads-for-positions",
)


def rotations() -> Iterator[Mistake]:
    """Hypotheses about ``q_rotated`` and ``k_rotated``."""
    yield from _positions()
    yield from _alone()
    yield from _angles()


def _rotation(id: str, title: str, changes: Changes, mend: str = _MEND, section: str = "positions") -> Mistake:
    return made(id, "1B", title, mend, changes, f"01b_rope#{section}")


def _moved(positions: Positions) -> Changes:
    """Rotation at other positions."""

    def fn(ctx: Context, x, position_ids):
        return ctx.right(ctx, x, positions(ctx, position_ids))

    return change(**dict.fromkeys(_ROTATED, fn))


def _by(ctx: Context, p: np.ndarray, offset: int) -> np.ndarray:
    return np.where(p >= 0, np.maximum(p + offset, 0), p)


def _first_of(ctx: Context, p: np.ndarray) -> np.ndarray:
    return np.broadcast_to(p[:, :1], p.shape)


def _slots(ctx: Context, p: np.ndarray) -> np.ndarray:
    first = ctx.value("key_positions").shape[1] - p.shape[1]
    return first + np.zeros_like(p) + np.arange(p.shape[1])


def _when_decoding(positions: Positions) -> Positions:
    """Only where there is a past."""
    return lambda ctx, p: positions(ctx, p) if ctx.past else p


def _positions() -> Iterator[Mistake]:
    for by in (-2, -1, 2):
        yield _rotation(f"positions-{by:+d}", f"positions are off by {by:+d}", _moved(partial(_by, offset=by)))
    for by, word in ((1, "plus"), (-1, "minus")):
        title = f"positions are off by {by:+d} behind a cache, and right without one"
        mend = "The first new token's position is the number of tokens before it, itself not counted."
        changes = _moved(_when_decoding(partial(_by, offset=by)))
        yield _rotation(f"rope-position-{word}-one-when-decoding", title, changes, mend)
    title = "all tokens of a call are rotated at the position of its first"
    mend = "Each token has its own position: the first new one's, and one more for each behind it."
    yield _rotation("rope-positions-of-first-token", title, _moved(_first_of), mend)
    changes = _moved(_when_decoding(_first_of))
    yield _rotation("rope-positions-of-first-token-when-decoding", f"behind a cache {title}", changes, mend)
    title = "positions are slot numbers: padding is counted"
    yield made("positions-count-padding", "8", title, _MEND, _moved(_slots), "08_kv_cache#positions")


def _alone() -> Iterator[Mistake]:
    for step, of in (("q_rotated", "queries"), ("k_rotated", "keys")):
        for id in _ALONE:
            known = CATALOGUE[id]
            title = f"for the {of} alone, {known.title}"
            mend = f"{known.mend} Queries and keys are rotated alike."
            yield _rotation(f"{step[0]}-{id}", title, change(**{step: known.changes.steps[step]}), mend)


def _angles() -> Iterator[Mistake]:
    mend = "Keep positions, frequencies, angles, cosines and sines in float32 whatever the model's type."
    for half in ("bfloat16", "float16"):

        def coarse(ctx: Context, x, p, half=half):
            return r.rotate(ctx, x, round_to(r.angles(ctx, p), half))

        changes = change(**dict.fromkeys(_ROTATED, coarse))
        title = f"the angles, position times frequency, are rounded to {half}"
        yield _rotation(f"rope-angles-in-{half}", title, changes, mend, "precision")
