"""Mistakes in the norms of the heads of q and k (checkpoints 2 and 6; Qwen3). None shows in a model without them."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.checkpoints.steps import StepFunction

_NAMES = {"q": "self_attn.q_norm.weight", "k": "self_attn.k_norm.weight"}


def _normed_with(name: str, norm=r.rms_norm) -> StepFunction:
    """The projection, its heads normalised by ``norm`` with the weight of this name."""

    def project(ctx: Context, x, weight, bias):
        heads = r.project_heads(ctx, x, weight, bias)
        own = ctx.weight(name)
        return heads if own is None else norm(ctx, ctx.arithmetic.round(heads), own)

    return project


def _over_all_heads(ctx: Context, heads, weight):
    """One root mean square for all heads together; each head still has the weight."""
    whole = heads.reshape(*heads.shape[:-2], -1)
    return r.rms_norm(ctx, whole, np.tile(weight, heads.shape[-2])).reshape(heads.shape)


def _rotated_then_normed(name: str) -> StepFunction:
    def rotated(ctx: Context, x, position_ids):
        turned = ctx.right(ctx, x, position_ids)
        own = ctx.weight(name)
        return turned if own is None else r.rms_norm(ctx, ctx.arithmetic.round(turned), own)

    return rotated


PROJECTION_MISTAKES = (
    Mistake(
        id="qk-norm-missing",
        checkpoint="2",
        family="qwen3",
        title="the heads of q and k are not normalised",
        looks_like="Llama works; Qwen3 repeats one token or writes noise from the first layer on.",
        why="Llama has no such norm, and code shared between models drops q_norm and k_norm, or has them on one path "
        "only.",
        mend="Normalise every head of q and k where qk_norm is set; report tensors that nothing reads.",
        notebook="02_qkv_projection#head-norms",
        origin="https://github.com/paiml/aprender/pull/1228",
        changes=change(q=r.project_heads, k=r.project_heads),
        equivalent="Where the model has no such norms.",
    ),
    Mistake(
        id="qk-norm-over-all-heads",
        checkpoint="2",
        family="qwen3",
        title="q and k are normalised over all their heads together, not each head by itself",
        looks_like="Heads keep their different sizes: attention is too sharp in some, too flat in others.",
        why="OLMo 2 normalises the whole projection before it is split into heads; Qwen3 normalises each head after.",
        mend="Split into heads first; the mean of squares runs over the D coordinates of one head.",
        notebook="02_qkv_projection#head-norms",
        origin="https://github.com/EleutherAI/gpt-neox/pull/1367",
        changes=change(**{part: _normed_with(name, _over_all_heads) for part, name in _NAMES.items()}),
        equivalent="Where the model has no such norms, or q and k have a single head each.",
    ),
    Mistake(
        id="qk-norms-swapped",
        checkpoint="2",
        family="qwen3",
        title="q is normalised with k_norm and k with q_norm",
        looks_like="Text is nearly right: without a rotation the product of q and k would be the same.",
        why="Both weights have D entries, so nothing but values tells them apart when names are mapped by hand.",
        mend="q_norm belongs to queries, k_norm to keys.",
        notebook="02_qkv_projection#head-norms",
        changes=change(q=_normed_with(_NAMES["k"]), k=_normed_with(_NAMES["q"])),
        equivalent="Where the model has no such norms, or their weights are the same.",
    ),
)

BLOCK_MISTAKES = (
    Mistake(
        id="qk-norm-after-rotation",
        checkpoint="6",
        family="qwen3",
        title="the heads of q and k are normalised after the rotation instead of before",
        looks_like="The first token is right and so are the lengths of heads; further on, scores depend on absolute "
        "positions, not on distances alone.",
        why="Both orders are in use, and a rotation keeps the length of a head, so they look interchangeable. The "
        "norm's weight does not rotate with it.",
        mend="Normalise with the weight, then rotate.",
        notebook="06_transformer_block#order",
        origin="https://github.com/karpathy/nanochat/issues/743",
        changes=change(
            q=r.project_heads,
            k=r.project_heads,
            q_rotated=_rotated_then_normed(_NAMES["q"]),
            k_rotated=_rotated_then_normed(_NAMES["k"]),
        ),
        equivalent="Where the model has no such norms, or their weights are equal within every rotated pair.",
    ),
)
