"""Mistakes in the KV cache (checkpoint 8). Without a cache none of them shows."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change

_WITHOUT = "Without a cache, and in the first call."


def _past(ctx: Context, name: str) -> np.ndarray | None:
    return ctx.past.get(ctx.prefix + name)


def _written_at_start(name: str):
    """New keys or values over the first slots; the slots that they should have taken stay zero."""

    def extend(ctx: Context, new):
        new = new.transpose(0, 2, 1, 3)
        past = _past(ctx, name)
        if past is None:
            return new
        slots = np.concatenate([past, np.zeros_like(new)], axis=2)
        slots[:, :, : new.shape[2]] = new
        return slots

    return extend


def _counted_without_past(ctx: Context, attention_mask):
    new = attention_mask[:, -ctx.values["input_ids"].shape[1] :]
    return np.where(new != 0, np.cumsum(new != 0, axis=1) - 1, -1)


def _only_new_slots(ctx: Context, position_ids):
    past = ctx.past.get("key_positions")
    if past is None:
        return position_ids
    return np.concatenate([position_ids, np.full_like(past, -1)], axis=1)


def _one_further(ctx: Context, attention_mask):
    positions = ctx.right(ctx, attention_mask)
    return np.where(positions >= 0, positions + 1, -1) if ctx.past else positions


def _rotated_again(ctx: Context, k_rotated):
    past = _past(ctx, "cache_k")
    if past is None:
        return ctx.right(ctx, k_rotated)
    again = r.rotated(ctx, past.transpose(0, 2, 1, 3), ctx.past["key_positions"])
    return np.concatenate([ctx.arithmetic.round(again), k_rotated], axis=1).transpose(0, 2, 1, 3)


def _rows_moved(name: str):
    """Every row finds the cache of the row before it."""

    def extend(ctx: Context, new):
        past = _past(ctx, name)
        new = new.transpose(0, 2, 1, 3)
        return new if past is None else np.concatenate([np.roll(past, 1, axis=0), new], axis=2)

    return extend


def _keys_for_values(ctx: Context, v):
    """The values' place holds the keys."""
    return ctx.value("cache_k")


def _overwrites_last(name: str):
    """The first new slot replaces the last one written; the last slot stays zero."""

    def extend(ctx: Context, new):
        new = new.transpose(0, 2, 1, 3)
        past = _past(ctx, name)
        if past is None or not past.shape[2]:
            return new
        return np.concatenate([past[:, :, :-1], new, np.zeros_like(new[:, :, :1])], axis=2)

    return extend


MISTAKES = (
    Mistake(
        id="cache-length-not-advanced",
        checkpoint="8",
        title="the cache's length is never advanced: every call starts at slot 0 and position 0",
        looks_like="The prompt is answered with one sensible token, then text repeats: every step sees itself only.",
        why="The length is a copy, or is advanced in one layer's object and read from another.",
        mend="Advance the length once per call, after every layer has written.",
        notebook="08_kv_cache#length",
        changes=change(
            position_ids=_counted_without_past,
            key_positions=_only_new_slots,
            cache_k=_written_at_start("cache_k"),
            cache_v=_written_at_start("cache_v"),
        ),
        equivalent=_WITHOUT,
    ),
    Mistake(
        id="cache-start-plus-one",
        checkpoint="8",
        title="positions behind a cache start one too late",
        looks_like="Nearly right: between the prompt and the generated text lies a gap of one position.",
        why="The length already counts the new token when positions are made from it.",
        mend="The first new token's position is the number of tokens before it.",
        notebook="08_kv_cache#positions",
        origin="https://github.com/fla-org/flash-linear-attention/issues/766",
        changes=change(position_ids=_one_further),
        equivalent=_WITHOUT,
    ),
    Mistake(
        id="cache-keys-rotated-again",
        checkpoint="8",
        title="keys from the cache are rotated again in every call",
        looks_like="Text decays with every generated token, the oldest context first.",
        why="Rotation is applied after the new keys are joined to those in the cache, which are rotated already.",
        mend="Rotate the new keys only, or keep unrotated keys in the cache and rotate a copy.",
        notebook="08_kv_cache#rotation",
        changes=change(cache_k=_rotated_again),
        equivalent=_WITHOUT,
    ),
    Mistake(
        id="cache-overwritten-at-start",
        checkpoint="8",
        title="every call writes at slot 0",
        looks_like="The beginning of the prompt is lost first; the last slots are zero.",
        why="The slice is [:S] instead of [start : start + S].",
        mend="Write at [length : length + S].",
        notebook="08_kv_cache#writing",
        changes=change(cache_k=_written_at_start("cache_k"), cache_v=_written_at_start("cache_v")),
        equivalent=_WITHOUT,
    ),
    Mistake(
        id="cache-last-slot-overwritten",
        checkpoint="8",
        title="every call writes one slot too early",
        looks_like="Each new token replaces the one before it; the last slot is zero.",
        why="length - 1 is taken for the next free slot.",
        mend="Write at [length : length + S].",
        notebook="08_kv_cache#writing",
        changes=change(cache_k=_overwrites_last("cache_k"), cache_v=_overwrites_last("cache_v")),
        equivalent=_WITHOUT,
    ),
    Mistake(
        id="cache-rows-mixed-up",
        checkpoint="8",
        title="the rows of a batch find each other's cache",
        looks_like="A batch answers its neighbours' prompts; one prompt alone is right.",
        why="Rows are reordered (beam search, finished rows dropped) and the cache is not, or the reverse.",
        mend="Reorder the cache with the rows, in every layer.",
        notebook="08_kv_cache#batches",
        origin="https://github.com/huggingface/transformers/issues/46612",
        changes=change(cache_k=_rows_moved("cache_k"), cache_v=_rows_moved("cache_v")),
        equivalent="With a batch of one; without a cache.",
    ),
    Mistake(
        id="cache-values-hold-keys",
        checkpoint="8",
        title="the cache of values holds the keys",
        looks_like="Attention weights are right, what they gather is not.",
        why="Both halves of the cache are views of one buffer, or one append is written twice.",
        mend="Store v in the cache of values.",
        notebook="08_kv_cache#writing",
        changes=change(cache_v=_keys_for_values),
    ),
)
