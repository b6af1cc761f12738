"""Mistakes in sampling (checkpoint 9)."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change


def _multiplied(ctx: Context, logits, temperature):
    return ctx.right(ctx, logits, temperature) if temperature[0] == 0 else logits * temperature[0]


def _temperature_ignored(ctx: Context, logits, temperature):
    return logits


def _one_more(ctx: Context, scaled, top_k):
    return ctx.right(ctx, scaled, top_k + 1) if top_k[0] else scaled


def _one_less(ctx: Context, scaled, top_k):
    return ctx.right(ctx, scaled, top_k - 1) if top_k[0] > 1 else ctx.right(ctx, scaled, top_k)


def _in_order(ctx: Context, limited, ascending: bool = False):
    """Probabilities sorted, their running sum, and the tokens in that order."""
    p = r.softmax(ctx, limited)
    order = np.argsort(p if ascending else -p, axis=-1, kind="stable")
    ordered = np.take_along_axis(p, order, -1)
    return ordered, np.cumsum(ordered, -1), order


def _keep(limited, inside, order):
    keep = np.zeros_like(inside)
    np.put_along_axis(keep, order, inside, -1)
    return np.where(keep, limited, -np.inf)


def _crossing_dropped(ctx: Context, limited, top_p):
    if top_p[0] >= 1:
        return limited
    ordered, total, order = _in_order(ctx, limited)
    inside = total <= top_p[0]
    inside[:, 0] = True
    return _keep(limited, inside, order)


def _least_likely_first(ctx: Context, limited, top_p):
    if top_p[0] >= 1:
        return limited
    ordered, total, order = _in_order(ctx, limited, ascending=True)
    return _keep(limited, total - ordered < top_p[0], order)


def _from_raw_logits(ctx: Context, limited, top_p):
    raw = np.where(np.isneginf(limited), -np.inf, ctx.value("logits"))
    return np.where(np.isneginf(ctx.right(ctx, raw, top_p)), -np.inf, limited)


def _by_columns(ctx: Context, logits):
    return logits.argmax(0)[: len(logits)]


def _in_half_precision(ctx: Context, cut):
    # Sampling is computed in float32 whatever the model's type, so the half precision here is always bfloat16.
    half = lambda x: round_to(np.asarray(x, np.float64), "bfloat16")  # noqa: E731
    e = half(np.exp(half(cut - cut.max(-1, keepdims=True))))
    return half(e / half(e.sum(-1, keepdims=True)))


def _not_renormalised(ctx: Context, cut):
    return np.where(np.isneginf(cut), 0, r.softmax(ctx, ctx.value("scaled_logits")))


MISTAKES = (
    Mistake(
        id="sampling-temperature-ignored",
        checkpoint="9",
        title="the temperature has no effect",
        looks_like="Text is as varied at 0.1 as at 2, and T = 0 is not greedy.",
        why="The scaled logits are not assigned, or an earlier step returns before them.",
        mend="Divide logits by T before the cuts; T = 0 is argmax.",
        notebook="09_sampling#temperature",
        changes=change(scaled_logits=_temperature_ignored),
        equivalent="At T = 1.",
    ),
    Mistake(
        id="sampling-temperature-multiplied",
        checkpoint="9",
        title="logits are multiplied by the temperature",
        looks_like="A high temperature makes text dull, a low one makes it wild.",
        why="The inverse temperature of physics is taken for the temperature.",
        mend="Divide logits by T.",
        notebook="09_sampling#temperature",
        changes=change(scaled_logits=_multiplied),
        equivalent="At T = 1.",
    ),
    Mistake(
        id="sampling-top-k-one-more",
        checkpoint="9",
        title="top-k keeps k + 1 tokens",
        looks_like="Only counts over many draws show it; with k = 1 text is not greedy.",
        why="The threshold is taken at sorted[k], the first that should go.",
        mend="The k-th highest logit is the lowest one kept.",
        notebook="09_sampling#top-k",
        changes=change(top_k_logits=_one_more),
        equivalent="Where top-k is off.",
    ),
    Mistake(
        id="sampling-top-k-one-less",
        checkpoint="9",
        title="top-k keeps k - 1 tokens",
        looks_like="Only counts over many draws show it; with k = 1 nothing may be left.",
        why="Tokens are kept if they are above the k-th logit, not if they reach it.",
        mend="Hide what is below the k-th highest logit; keep the k-th.",
        notebook="09_sampling#top-k",
        changes=change(top_k_logits=_one_less),
        equivalent="Where top-k is off.",
    ),
    Mistake(
        id="sampling-crossing-token-dropped",
        checkpoint="9",
        title="the token that crosses top-p is dropped",
        looks_like="Text is duller than it should be; where one token has more than p, nothing may be left.",
        why="cumsum ≤ p keeps only what lies wholly below p.",
        mend="Keep a token while the sum of those before it is below p.",
        notebook="09_sampling#top-p",
        origin="https://github.com/rasbt/reasoning-from-scratch/issues/164",
        changes=change(top_p_logits=_crossing_dropped),
        equivalent="Where top-p is off.",
    ),
    Mistake(
        id="sampling-top-p-from-the-tail",
        checkpoint="9",
        title="top-p sums from the least likely token up",
        looks_like="The most likely tokens never come up; text is absurd.",
        why="Sorting is ascending by default.",
        mend="Sort from the most likely token down.",
        notebook="09_sampling#top-p",
        changes=change(top_p_logits=_least_likely_first),
        equivalent="Where top-p is off.",
    ),
    Mistake(
        id="sampling-top-p-before-temperature",
        checkpoint="9",
        title="top-p is measured on probabilities without the temperature",
        looks_like="The set of tokens that may come does not change with the temperature.",
        why="The order of the filters is not agreed on: some engines apply the temperature last.",
        mend="Temperature, then top-k, then top-p; state the order.",
        notebook="09_sampling#order",
        changes=change(top_p_logits=_from_raw_logits),
        equivalent="At T = 1, or where top-p is off.",
    ),
    Mistake(
        id="sampling-not-renormalised",
        checkpoint="9",
        title="probabilities are not renormalised after the cuts",
        looks_like="They sum to less than 1; a sampler that walks the running sum falls off its end.",
        why="Probabilities are set to zero after the softmax instead of logits to -inf before it.",
        mend="Cut the logits, then take the softmax.",
        notebook="09_sampling#order",
        changes=change(probabilities=_not_renormalised),
        equivalent="Where nothing is cut.",
    ),
    Mistake(
        id="sampling-argmax-over-batch",
        checkpoint="9",
        title="argmax runs over the rows of the batch instead of the vocabulary",
        looks_like="Greedy ids are small numbers, below the batch size.",
        why="Axis 0 written for axis -1; with one row all ids are 0.",
        mend="argmax over the last axis.",
        notebook="09_sampling#greedy",
        changes=change(greedy_ids=_by_columns),
    ),
    Mistake(
        id="sampling-softmax-in-half-precision",
        checkpoint="9",
        title="the softmax is computed in half precision",
        looks_like="Probabilities have two or three digits, rare tokens share one value and sums miss 1.",
        why="Logits arrive in the model's type and nothing widens them.",
        mend="Convert logits to float32 before the softmax.",
        notebook="09_sampling#precision",
        changes=change(probabilities=_in_half_precision),
    ),
)
