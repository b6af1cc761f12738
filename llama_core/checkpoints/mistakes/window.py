"""Mistakes in a sliding window (checkpoint 3; Mistral). None shows in a model without one."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.checkpoints.steps import Changes


def _seen(near) -> Changes:
    """Another rule for the window: ``near(position_ids, key_positions, window)``, beside the causal one."""

    def masked(ctx: Context, scores, position_ids, key_positions):
        seen = r.visible(position_ids, key_positions)
        if ctx.config.sliding_window is not None:
            seen = seen & near(position_ids, key_positions, ctx.config.sliding_window)
        return np.where(seen, scores, -np.inf)

    return change(masked_scores=masked)


def _age(position_ids, key_positions):
    """[B, 1, S, T]: how many positions the key lies before the query."""
    return position_ids[:, None, :, None] - key_positions[:, None, None, :]


def _slot_age(position_ids, key_positions, past: int):
    """[S, T]: the same in slots, of which ``past`` come before the call's first."""
    return np.arange(position_ids.shape[1])[:, None] + past - np.arange(key_positions.shape[1])


def _in_slots(position_ids, key_positions, window):
    past = key_positions.shape[1] - position_ids.shape[1]
    return _slot_age(position_ids, key_positions, past) < window


def _in_the_call(position_ids, key_positions, window):
    return _slot_age(position_ids, key_positions, 0) < window


def _last_slots(position_ids, key_positions, window):
    return np.arange(key_positions.shape[1]) >= key_positions.shape[1] - window


MISTAKES = (
    Mistake(
        id="attention-window-ignored",
        checkpoint="3",
        family="mistral",
        title="the sliding window is ignored: a query sees its whole past",
        looks_like="Right until a text is longer than sliding_window, then worse and worse.",
        why="The fast kernel is told that it is causal and never hears of the window; short tests cannot show it.",
        mend="Hide keys that lie sliding_window positions or more before the query. Test with a longer text.",
        notebook="03_attention#sliding-window",
        origin="https://github.com/unslothai/unsloth/pull/8253",
        changes=_seen(lambda p, keys, window: True),
        equivalent="Without a window, and in texts that are not longer than it.",
    ),
    Mistake(
        id="attention-window-one-more",
        checkpoint="3",
        family="mistral",
        title="the sliding window is one too long: the query itself is not counted",
        looks_like="Logits of a long text are off by a little, as one key too many is seen.",
        why="Kernels take how many keys to look back, which is one less than the window, because it holds the query.",
        mend="A window of W is the query's own position and the W - 1 before it: pass W - 1 to such a kernel.",
        notebook="03_attention#sliding-window",
        origin="https://github.com/huggingface/transformers/issues/39408",
        changes=_seen(lambda p, keys, window: _age(p, keys) <= window),
        equivalent="Without a window, and in texts that are not longer than it.",
    ),
    Mistake(
        id="attention-window-one-less",
        checkpoint="3",
        family="mistral",
        title="the sliding window is one too short",
        looks_like="Logits of a long text are off by a little, as one key too few is seen; a window of 1 sees nothing.",
        why="The one for the query's own position is subtracted twice: by the caller and by the kernel.",
        mend="A window of W is the query's own position and the W - 1 before it.",
        notebook="03_attention#sliding-window",
        changes=_seen(lambda p, keys, window: _age(p, keys) < window - 1),
        equivalent="Without a window, and in texts that are shorter than it.",
    ),
    Mistake(
        id="attention-window-in-the-call",
        checkpoint="3",
        family="mistral",
        title="behind a cache the sliding window is counted from the first slot of the call",
        looks_like="Prefill in one piece is right; in chunks or token by token old keys come back into sight.",
        why="The band is built with triu for S rows, and the past in front of them is forgotten.",
        mend="Compare positions: the key's with the query's, both absolute.",
        notebook="03_attention#sliding-window",
        origin="https://github.com/trymirai/lalamo/pull/200",
        changes=_seen(_in_the_call),
        equivalent="Without a window, and where S = T.",
    ),
    Mistake(
        id="attention-window-of-the-last-query",
        checkpoint="3",
        family="mistral",
        title="all queries of a call share the sliding window of the last one",
        looks_like="Decoding is right. In a prompt or chunk the earlier tokens see too little, or nothing at all.",
        why="The cache keeps the last W keys and is filled before attention, so a chunk throws out keys that its own "
        "first queries need.",
        mend="Let attention see the old keys and the chunk's, each query with its own window; drop old keys then.",
        notebook="03_attention#sliding-window",
        origin="https://github.com/pytorch/executorch/pull/20346",
        changes=_seen(_last_slots),
        equivalent="Without a window, and for one new token behind a cache without padding.",
    ),
    Mistake(
        id="attention-window-counts-padding",
        checkpoint="3",
        family="mistral",
        title="the sliding window is counted in slots: padding between tokens takes room in it",
        looks_like="A row that was padded on the right forgets too early once it goes on; alone it is right.",
        why="Slot numbers and positions are the same for one text, and for rows that are padded on the left.",
        mend="Compare positions, which count the row's own tokens, not slots of the batch.",
        notebook="03_attention#sliding-window",
        changes=_seen(_in_slots),
        equivalent="Without a window, and where no padding stands between tokens.",
    ),
)
