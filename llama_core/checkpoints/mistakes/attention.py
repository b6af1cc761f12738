"""Mistakes in attention (checkpoint 3)."""

from __future__ import annotations

import math

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.compare import HIDDEN
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes import visibility
from llama_core.checkpoints.mistakes.mistake import Mistake, change, half_rounding
from llama_core.checkpoints.steps import Changes


def _scaled_by(divisor) -> Changes:
    """q · k divided by ``divisor(ctx, D)``."""
    return change(scores=lambda ctx, q, k: r.raw_scores(ctx, q, k) / divisor(ctx, q.shape[-1]))


def _transposed_scores(ctx: Context, q, k):
    scores = ctx.right(ctx, q, k)
    return scores.swapaxes(-1, -2) if scores.shape[-1] == scores.shape[-2] else scores


def _mask_after_softmax(ctx: Context, masked):
    return np.where(masked <= HIDDEN, 0, r.softmax(ctx, ctx.value("scores")))


def _over_queries(ctx: Context, masked):
    return r.softmax(ctx, masked, axis=-2)


def _softmax_in_half(ctx: Context, masked):
    half = half_rounding(ctx)
    x = half(masked)
    top = x.max(-1, keepdims=True)
    e = half(np.exp(half(x - np.where(np.isneginf(top), 0, top))))
    total = half(e.sum(-1, keepdims=True))
    return half(e / np.where(total == 0, 1, total))


def _uniform_when_masked(ctx: Context, masked):
    lowest = np.finfo(np.float32).min
    return r.softmax(ctx, np.where(np.isneginf(masked), lowest, masked))


def _nan_when_masked(ctx: Context, masked):
    return np.where((masked <= HIDDEN).all(-1, keepdims=True), np.nan, ctx.right(ctx, masked))


def _read_heads(order) -> Changes:
    """Query head h reads key/value head ``order(H, K)[h]``."""

    def scores(ctx: Context, q, k):
        expanded = k[:, order(q.shape[2], k.shape[1])]
        return ctx.right(ctx, q, expanded)

    def context(ctx: Context, weights, v):
        return ctx.right(ctx, weights, v[:, order(weights.shape[1], v.shape[1])])

    return change(scores=scores, attention_context=context)


def _merged_untransposed(ctx: Context, weights, v):
    context = ctx.right(ctx, weights, v)
    return np.ascontiguousarray(context.transpose(0, 2, 1, 3)).reshape(context.shape)


MISTAKES = (
    Mistake(
        id="attention-no-scale",
        checkpoint="3",
        title="scores are not divided by √D",
        looks_like="Attention weights are nearly one-hot; text is coherent in pieces and jumps.",
        why="The scale is expected inside a library call that does not apply it, or was folded into weights elsewhere.",
        mend="Divide q · k by √D, once.",
        notebook="03_attention#scale",
        changes=_scaled_by(lambda ctx, d: 1),
    ),
    Mistake(
        id="attention-scale-d",
        checkpoint="3",
        title="scores are divided by D instead of √D",
        looks_like="Attention weights are nearly uniform: every head averages over the past.",
        why="The root is forgotten, or the scale is applied twice: to q and again to the scores.",
        mend="Divide q · k by √D, once.",
        notebook="03_attention#scale",
        changes=_scaled_by(lambda ctx, d: d),
    ),
    Mistake(
        id="attention-scale-hidden-size",
        checkpoint="3",
        title="scores are divided by √E instead of √D",
        looks_like="Attention weights are too flat, by √H in the exponent.",
        why="d_k in the formula is read as the model's width.",
        mend="D is the width of one head: 128 in Llama-2 7B, not 4096.",
        notebook="03_attention#scale",
        changes=_scaled_by(lambda ctx, d: math.sqrt(ctx.config.hidden_size)),
        equivalent="With a single head of width E.",
    ),
    Mistake(
        id="attention-scores-transposed",
        checkpoint="3",
        title="scores are k · q: rows and columns are exchanged",
        looks_like="Each key looks at queries; with the causal mask the weights are those of other pairs of tokens.",
        why="The transpose stands at the wrong factor. Square scores hide it.",
        mend="scores[s, t] = q[s] · k[t]. Test with S ≠ T.",
        notebook="03_attention#scores",
        changes=change(scores=_transposed_scores),
        equivalent="Where S ≠ T the shapes do not fit and it cannot happen in silence.",
    ),
    Mistake(
        id="attention-mask-never-applied",
        checkpoint="3",
        title="the causal mask is never applied",
        looks_like="Logits of a prompt change when a later token changes; greedy text from a cache still looks right, "
        "because the last token may see everything anyway.",
        why="The masked tensor is not assigned, or the fused call got neither a mask nor is_causal.",
        mend="Hide keys after the query before the softmax.",
        notebook="03_attention#mask",
        changes=visibility.shown(visibility.everything),
        equivalent="For one new token behind its cache.",
    ),
    Mistake(
        id="attention-no-mask-at-all",
        checkpoint="3",
        title="no mask at all: every query sees every key, padding too",
        looks_like="Logits of a prompt change when a later token changes, and with what it is batched with; one prompt "
        "at a time, the last token is right.",
        why="softmax(q kᵀ / √D) v is written down as the formula stands in the paper's first equation.",
        mend="Hide keys after the query, and keys that are padding, before the softmax.",
        notebook="03_attention#mask",
        changes=visibility.shown(visibility.every_slot),
        equivalent="For one new token behind its cache, without padding.",
    ),
    Mistake(
        id="attention-mask-hides-diagonal",
        checkpoint="3",
        title="a token does not see itself",
        looks_like="The first token sees nothing and is NaN or zero; the others are dull.",
        why="triu without diagonal=1 hides the diagonal as well.",
        mend="The mask is strictly upper triangular: key ≤ query is visible.",
        notebook="03_attention#mask",
        changes=visibility.shown(visibility.strictly_before, visibility.ages),
    ),
    Mistake(
        id="attention-mask-shows-one-future-token",
        checkpoint="3",
        title="every token also sees the next one",
        looks_like="Training loss falls to almost nothing; the logits of a prompt know the answer.",
        why="The diagonal offset of triu is one too large, often through the offset of a cache.",
        mend="The mask is strictly upper triangular: key > query is hidden.",
        notebook="03_attention#mask",
        changes=visibility.shown(visibility.one_ahead, visibility.ages),
        equivalent="For one new token behind its cache.",
    ),
    Mistake(
        id="attention-mask-inverted",
        checkpoint="3",
        title="the mask is inverted: a token sees only what comes after it",
        looks_like="The last token sees nothing; everything else reads the future.",
        why="True means 'may look' in one function and 'is hidden' in another.",
        mend="In scaled_dot_product_attention True takes part; in nn.MultiheadAttention True is hidden.",
        notebook="03_attention#mask",
        origin="https://github.com/rasbt/LLMs-from-scratch/issues/1061",
        changes=visibility.shown(visibility.only_ahead, visibility.ages),
    ),
    Mistake(
        id="attention-mask-top-left",
        checkpoint="3",
        title="the mask is aligned at the top left although the keys are longer than the queries",
        looks_like="Prefill is right. With a cache a new token sees the first slots only, and chunked prefill differs "
        "from prefill in one piece.",
        why="is_causal=True builds tril(ones(S, T)) from the top-left corner.",
        mend="Build the mask from positions: slot j is visible if position(j) ≤ position of the query.",
        notebook="03_attention#mask-and-cache",
        origin="https://github.com/pytorch/pytorch/issues/144858",
        changes=visibility.shown(visibility.top_left, visibility.ages_top_left),
        also=(visibility.shown(visibility.top_left_in_chunks, visibility.ages_top_left_in_chunks),),
        equivalent="Where S = T without padding.",
    ),
    Mistake(
        id="attention-mask-after-softmax",
        checkpoint="3",
        title="the mask is applied after the softmax",
        looks_like="Rows of the attention weights sum to less than 1, least for the first tokens.",
        why="Zeroing weights looks like hiding them; but the softmax has already shared its sum with the future.",
        mend="Put -inf into the scores, then take the softmax.",
        notebook="03_attention#mask",
        origin="https://github.com/lucidrains/memory-compressed-attention/issues/2",
        changes=change(attention_weights=_mask_after_softmax),
        equivalent="Where nothing is hidden: one new token without padding.",
    ),
    Mistake(
        id="attention-softmax-over-queries",
        checkpoint="3",
        title="the softmax runs over queries instead of keys",
        looks_like="Columns of the attention weights sum to 1, rows do not; a single query gets weight 1 everywhere.",
        why="The wrong axis: -2, or 2 in a layout that was transposed.",
        mend="Normalise over the last axis of [B, H, S, T].",
        notebook="03_attention#softmax",
        changes=change(attention_weights=_over_queries),
    ),
    Mistake(
        id="attention-heads-tiled",
        checkpoint="3",
        title="key/value heads are tiled instead of repeated",
        looks_like="Models with K = H work, grouped ones give fluent nonsense.",
        why="repeat gives 0 1 0 1, repeat_interleave 0 0 1 1; both give H heads.",
        mend="Each key/value head serves H/K consecutive query heads.",
        notebook="03_attention#grouped-heads",
        origin="https://github.com/onnx/onnx/pull/7274",
        changes=_read_heads(lambda h, k: np.arange(h) % k),
        equivalent="Where K = H or K = 1.",
    ),
    Mistake(
        id="attention-first-head-for-all",
        checkpoint="3",
        title="every query head reads key/value head 0",
        looks_like="The first group of heads is right, the others are not.",
        why="Broadcasting from a head axis that was cut to one, or an index that is never advanced.",
        mend="Query head h reads key/value head h // (H/K).",
        notebook="03_attention#grouped-heads",
        changes=_read_heads(lambda h, k: np.zeros(h, np.int64)),
        equivalent="Where K = 1.",
    ),
    Mistake(
        id="attention-heads-merged-untransposed",
        checkpoint="3",
        title="heads are merged without bringing the position axis back in front",
        looks_like="Row 0 of the output holds several positions of head 0. One token at a time is right, a prompt is "
        "not.",
        why="[B, H, S, D].reshape(B, S, H·D) has the right shape and the wrong content.",
        mend="transpose(1, 2) first, then reshape.",
        notebook="03_attention#merge",
        changes=change(attention_context=_merged_untransposed),
        equivalent="For a single position, or a single head.",
    ),
    Mistake(
        id="attention-padding-ignored",
        checkpoint="3",
        title="padding takes part in attention",
        looks_like="A prompt's answer depends on what it is batched with; alone it is right.",
        why="The causal mask alone is used, and attention_mask never reaches the scores.",
        mend="Hide keys that are padding, besides those after the query.",
        notebook="03_attention#padding",
        origin="https://github.com/turboderp/exllama/pull/101",
        changes=change(masked_scores=visibility.padding_shown),
        also=(visibility.shown(visibility.padding_first, visibility.ages),),
        equivalent="Without padding; on the right a mask of slots shows it to padded queries only.",
    ),
    Mistake(
        id="attention-softmax-in-half-precision",
        checkpoint="3",
        title="exponentials and their sum are rounded to half precision",
        looks_like="Rows of attention weights sum to 0.99 or 1.01; long contexts suffer most.",
        why="A kernel of one's own that keeps the model's type, where a library's would widen.",
        mend="Take the softmax in float32 and cast the weights back.",
        notebook="03_attention#precision",
        changes=change(attention_weights=_softmax_in_half),
        equivalent="In a half-precision model it stays within the noise of right implementations on short rows.",
    ),
    Mistake(
        id="attention-lowest-number-for-mask",
        checkpoint="3",
        title="a row that sees nothing averages over everything: the mask adds finfo.min instead of -inf",
        looks_like="Padded queries come out as the mean of all values; harmless until something reads them.",
        why="finfo.min avoids NaN, because it makes a fully hidden row uniform.",
        mend="Hide with -inf and give zeros where nothing is visible.",
        notebook="03_attention#padding",
        origin="https://github.com/ml-explore/mlx/issues/2395",
        changes=change(attention_weights=_uniform_when_masked),
        equivalent="Where every query sees at least one key.",
    ),
    Mistake(
        id="attention-nan-for-hidden-row",
        checkpoint="3",
        title="a row that sees nothing becomes NaN",
        looks_like="With left padding one NaN row spreads through values and caches to every row of the batch.",
        why="The softmax of a row of -inf is 0/0.",
        mend="Give zeros where nothing is visible, from the mask; do not mend NaN afterwards.",
        notebook="03_attention#padding",
        origin="https://github.com/pytorch/pytorch/issues/103749",
        changes=change(attention_weights=_nan_when_masked),
        equivalent="Where every query sees at least one key.",
    ),
)
