"""Wrong rules for what a query sees: what the mistakes in the causal mask replace it by."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import change
from llama_core.checkpoints.steps import Changes


def shown(visible, ages=None) -> Changes:
    """Another rule for what a query sees: ``visible(position_ids, key_positions)`` -> [B, 1, S, T].

    A sliding window is kept where ``ages(position_ids, key_positions)`` says how far a key lies back.
    """

    def masked(ctx: Context, scores, position_ids, key_positions):
        seen = visible(position_ids, key_positions)
        if ages is not None and ctx.config.sliding_window is not None:
            seen = seen & (ages(position_ids, key_positions) < ctx.config.sliding_window)
        return np.where(seen, scores, -np.inf)

    return change(masked_scores=masked)


def _pairs(position_ids, key_positions):
    """Query positions [B, 1, S, 1] and key positions [B, 1, 1, T]."""
    return position_ids[:, None, :, None], key_positions[:, None, None, :]


def ages(position_ids, key_positions):
    query, key = _pairs(position_ids, key_positions)
    return query - key


def everything(position_ids, key_positions):
    query, key = _pairs(position_ids, key_positions)
    return (key >= 0) & (query == query)


def every_slot(position_ids, key_positions):
    query, key = _pairs(position_ids, key_positions)
    return (key == key) & (query == query)


def strictly_before(position_ids, key_positions):
    query, key = _pairs(position_ids, key_positions)
    return (key >= 0) & (key < query)


def one_ahead(position_ids, key_positions):
    query, key = _pairs(position_ids, key_positions)
    return (key >= 0) & (key <= query + 1)


def only_ahead(position_ids, key_positions):
    query, key = _pairs(position_ids, key_positions)
    return (key >= 0) & (key > query)


def _slots(position_ids, key_positions):
    """The numbers of query and key within the call and the cache: [1, 1, S, 1] and [1, 1, 1, T]."""
    return np.arange(position_ids.shape[1])[None, None, :, None], np.arange(key_positions.shape[1])[None, None, None, :]


def ages_top_left(position_ids, key_positions):
    query, key = _slots(position_ids, key_positions)
    return query - key


def top_left(position_ids, key_positions):
    query, key = _slots(position_ids, key_positions)
    return (key <= query) & (key_positions >= 0)[:, None, None, :]


def top_left_in_chunks(position_ids, key_positions):
    """``is_causal=query.shape[2] > 1``: a single query is not masked."""
    if position_ids.shape[1] == 1:
        return everything(position_ids, key_positions)
    return top_left(position_ids, key_positions)


def ages_top_left_in_chunks(position_ids, key_positions):
    return (ages if position_ids.shape[1] == 1 else ages_top_left)(position_ids, key_positions)


def padding_shown(ctx: Context, scores, position_ids, key_positions):
    """The right rule on the numbers of slots, of which none is padding; together with another rule, that one."""
    rows, keys = key_positions.shape
    slots = np.broadcast_to(np.arange(keys), (rows, keys))
    return ctx.right(ctx, scores, slots[:, keys - position_ids.shape[1] :], slots)


def padding_first(position_ids, key_positions):
    """The causal comparison alone: padding has position -1, which is before every query."""
    query, key = _pairs(position_ids, key_positions)
    return key <= query
