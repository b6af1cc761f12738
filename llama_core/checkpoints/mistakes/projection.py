"""Mistakes in the projections into and out of attention (checkpoints 2 and 4)."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.checkpoints.random_bits import uniform
from llama_core.checkpoints.steps import Changes, StepFunction


def _projections(fn: StepFunction) -> Changes:
    return change(q=fn, k=fn, v=fn)


def _is_square(weight: np.ndarray) -> bool:
    return weight.shape[0] == weight.shape[1]


def transposed(ctx: Context, x, weight, bias):
    return ctx.right(ctx, x, weight.T if _is_square(weight) else weight, bias)


def _coordinates_first(ctx: Context, x, weight, bias):
    rows = np.arange(len(weight)).reshape(ctx.config.head_dim, -1).T.reshape(-1)
    return ctx.right(ctx, x, weight[rows], None if bias is None else bias[rows])


def _from(other: str) -> StepFunction:
    """Projected with another projection's parameters, where they have the same shape."""

    def project(ctx: Context, x, weight, bias):
        found = ctx.weight(f"self_attn.{other}.weight")
        if found.shape != weight.shape:
            return ctx.right(ctx, x, weight, bias)
        return ctx.right(ctx, x, found, ctx.weight(f"self_attn.{other}.bias"))

    return project


def _weight_from(other: str) -> StepFunction:
    """The projection with another's weight and its own bias."""
    return lambda ctx, x, weight, bias: ctx.right(ctx, x, ctx.weight(f"self_attn.{other}.weight"), bias)


def _spurious_bias(ctx: Context, x, weight, bias):
    """A bias that nn.Linear drew for itself: uniform within ±1/√fan_in."""
    size, fan_in = weight.shape
    drawn = uniform(size, (size,), (3 * fan_in) ** -0.5).astype(np.float64)
    return ctx.right(ctx, x, weight, drawn if bias is None else bias + drawn)


def without_bias(ctx: Context, x, weight, bias):
    return ctx.right(ctx, x, weight, None)


def _fused(part: str) -> StepFunction:
    """Rows stored as all of q, then k, then v, but split as query heads, key and value of each group in turn."""

    def project(ctx: Context, x, weight, bias):
        config = ctx.config
        groups, d = config.num_key_value_heads, config.head_dim
        names = [f"self_attn.{p}_proj" for p in "qkv"]
        stored = np.concatenate([ctx.weight(f"{name}.weight") for name in names])
        biases = [ctx.weight(f"{name}.bias") for name in names]
        rows = np.arange(len(stored)).reshape(groups, -1, d)
        picked = {"q": rows[:, :-2], "k": rows[:, -2:-1], "v": rows[:, -1:]}[part].reshape(-1)
        has_bias = bias is not None and biases[0] is not None
        return ctx.right(ctx, x, stored[picked], np.concatenate(biases)[picked] if has_bias else None)

    return project


QKV_MISTAKES = (
    Mistake(
        id="qkv-weight-transposed",
        checkpoint="2",
        title="the weights of q, k and v are used transposed",
        looks_like="No error, because the matrices are square; the output is noise from the first token on.",
        why="x·W or x·Wᵀ: files store [out, in], many frameworks and formulas use [in, out].",
        mend="y = x·Wᵀ for the weights as stored. Test with a matrix that is not square.",
        notebook="02_qkv_projection#weights",
        origin="https://github.com/vllm-project/vllm/issues/44110",
        changes=_projections(transposed),
        equivalent="Where H·D ≠ E the shapes do not fit and it cannot happen in silence.",
    ),
    Mistake(
        id="qkv-coordinates-before-heads",
        checkpoint="2",
        title="rows are split as [D, heads] instead of [heads, D]",
        looks_like="Every head holds a mixture of all heads; shapes are right, text is noise.",
        why="The two axes of the reshape are written in the wrong order.",
        mend="Consecutive rows belong to one head: reshape to [B, S, heads, D].",
        notebook="02_qkv_projection#heads",
        changes=_projections(_coordinates_first),
        equivalent="With a single head.",
    ),
    Mistake(
        id="qkv-q-and-k-swapped",
        checkpoint="2",
        title="q_proj and k_proj are swapped",
        looks_like="Attention looks along the wrong direction: scores are those of key against query.",
        why="Names are mapped by hand between two conventions (wq, wk against q_proj, k_proj).",
        mend="Map q_proj to queries. With grouped heads the shapes would have told.",
        notebook="02_qkv_projection#weights",
        changes=change(q=_from("k_proj"), k=_from("q_proj")),
        equivalent="Where K ≠ H the shapes do not fit and it cannot happen in silence.",
    ),
    Mistake(
        id="qkv-k-and-v-swapped",
        checkpoint="2",
        title="k_proj and v_proj are swapped",
        looks_like="Attention weights are meaningless and so is what they gather; shapes always fit.",
        why="k and v have the same shape in every model, so nothing but values tells them apart.",
        mend="Map k_proj to keys and v_proj to values.",
        notebook="02_qkv_projection#weights",
        changes=change(k=_from("v_proj"), v=_from("k_proj")),
        also=(change(k=_weight_from("v_proj"), v=_weight_from("k_proj")),),
    ),
    Mistake(
        id="qkv-v-from-k",
        checkpoint="2",
        title="values are computed with k_proj",
        looks_like="Attention weights are right, what they gather is not.",
        why="A line is copied for the third projection and not changed everywhere.",
        mend="Use v_proj for values.",
        notebook="02_qkv_projection#weights",
        changes=change(v=_from("k_proj")),
        also=(change(v=_weight_from("k_proj")),),
    ),
    Mistake(
        id="qkv-spurious-bias",
        checkpoint="2",
        title="a bias is added that the model does not have",
        looks_like="A constant error at every position, another one in every run; text is roughly right.",
        why="Linear layers have a bias by default, and one that is missing in the file stays at its random start.",
        mend="Create the projections without bias, and load strictly: a parameter without a value is an error.",
        notebook="02_qkv_projection#bias",
        origin="https://github.com/huggingface/optimum/pull/1827",
        changes=_projections(_spurious_bias),
        equivalent="Where the extra bias was set to zero.",
    ),
    Mistake(
        id="qkv-bias-ignored",
        checkpoint="2",
        title="the biases of q, k and v are not added",
        looks_like="Llama works; its relatives with attention_bias give plausible but wrong text.",
        why="Llama has none, so the code has no place for them and loading drops what it does not know.",
        mend="Add the bias where attention_bias is set; report tensors that nothing reads.",
        notebook="02_qkv_projection#bias",
        origin="https://github.com/sbryngelson/ANEForge/pull/253",
        changes=_projections(without_bias),
        equivalent="Where the model has no biases.",
    ),
    Mistake(
        id="qkv-fused-split-by-group",
        checkpoint="2",
        title="fused rows stored as q, k, v are split group by group",
        looks_like="Head 0 of q is right and nearly everything else holds rows of another tensor.",
        why="Some files fuse all of q, then k, then v; others store the query heads, key and value of each group "
        "together (InternLM, Megatron).",
        mend="Split in the order in which the rows were joined: H·D rows of q, K·D of k, K·D of v.",
        notebook="02_qkv_projection#fused",
        origin="https://github.com/vllm-project/vllm/pull/2527",
        changes=change(q=_fused("q"), k=_fused("k"), v=_fused("v")),
        equivalent="With a single key/value head: there both orders are the same.",
    ),
)


def _output_skipped(ctx: Context, context, weight, bias):
    y = context.reshape(*context.shape[:-2], -1)
    return y if _is_square(weight) else ctx.right(ctx, context, weight, bias)


def _heads_by_rank(ctx: Context, context, weight, bias):
    """Heads of equal rank within their group side by side: 0, G, 2G, ..., 1, G + 1, ..."""
    groups = ctx.config.num_key_value_heads
    order = np.arange(context.shape[-2]).reshape(groups, -1).T.reshape(-1)
    return ctx.right(ctx, context[..., order, :], weight, bias)


def _heads_reversed(ctx: Context, context, weight, bias):
    return ctx.right(ctx, context[..., ::-1, :], weight, bias)


def _merged_by_coordinate(ctx: Context, context, weight, bias):
    return ctx.right(ctx, context.swapaxes(-1, -2), weight, bias)


OUTPUT_MISTAKES = (
    Mistake(
        id="output-projection-skipped",
        checkpoint="4",
        title="the output projection is left out",
        looks_like="Shapes fit where H·D = E, and the text is noise.",
        why="'Llama has no output projection' stands in more than one description. It has: wo, o_proj.",
        mend="Multiply the joined heads by o_projᵀ.",
        notebook="04_output_projection#it-exists",
        changes=change(attention_output=_output_skipped),
        equivalent="Where H·D ≠ E the shapes do not fit and it cannot happen in silence.",
    ),
    Mistake(
        id="output-projection-transposed",
        checkpoint="4",
        title="o_proj is used transposed",
        looks_like="No error, because the matrix is square; the output is noise.",
        why="x·W or x·Wᵀ: files store [out, in].",
        mend="y = x·Wᵀ for the weight as stored.",
        notebook="04_output_projection#weights",
        changes=change(attention_output=transposed),
        equivalent="Where H·D ≠ E the shapes do not fit and it cannot happen in silence.",
    ),
    Mistake(
        id="output-heads-by-rank",
        checkpoint="4",
        title="heads are joined rank by rank over the groups, not group by group",
        looks_like="With grouped heads the text is noise; every head's own context is right.",
        why="Query heads are computed as [rank, group] for grouped attention and joined in that order.",
        mend="Put heads back in the order 0 … H - 1 before they are joined.",
        notebook="04_output_projection#head-order",
        changes=change(attention_output=_heads_by_rank),
        equivalent="Where K = H or K = 1: one of the two axes has length 1.",
    ),
    Mistake(
        id="output-heads-reversed",
        checkpoint="4",
        title="heads are joined in reverse order",
        looks_like="Every head's own context is right, the projected sum is noise.",
        why="A stack or a loop that fills from the end, or a row-major library beside a column-major one.",
        mend="Head 0 comes first.",
        notebook="04_output_projection#head-order",
        changes=change(attention_output=_heads_reversed),
        equivalent="With a single head.",
    ),
    Mistake(
        id="output-coordinates-before-heads",
        checkpoint="4",
        title="heads are joined coordinate by coordinate, not head by head",
        looks_like="Every head's own context is right, the projected sum is noise.",
        why="[D, H] and [H, D] flatten to the same length.",
        mend="All D coordinates of head 0 come first, then head 1.",
        notebook="04_output_projection#head-order",
        changes=change(attention_output=_merged_by_coordinate),
        equivalent="With a single head.",
    ),
    Mistake(
        id="output-bias-ignored",
        checkpoint="4",
        title="the bias of o_proj is not added",
        looks_like="A constant error at every position, in models with attention_bias only.",
        why="Llama has none, and some relatives have biases on q, k and v but not here.",
        mend="Add it where attention_bias is set and the file has it.",
        notebook="04_output_projection#weights",
        origin="https://github.com/mlc-ai/mlc-llm/pull/3494",
        changes=change(attention_output=without_bias),
        equivalent="Where the model has no biases.",
    ),
    Mistake(
        id="output-spurious-bias",
        checkpoint="4",
        title="o_proj adds a bias that the model does not have",
        looks_like="The same vector is added at every position of every layer, another one in every run; text is "
        "roughly right.",
        why="Qwen2 has biases on q, k and v, and one switch gives all four projections one; the file has none for "
        "o_proj, so it stays at its random start.",
        mend="Give o_proj a bias only where attention_bias is set, and load strictly: a parameter without a value is "
        "an error.",
        notebook="04_output_projection#weights",
        origin="https://github.com/sgl-project/sglang-jax/pull/578",
        changes=change(attention_output=_spurious_bias),
        equivalent="Where the extra bias was set to zero.",
    ),
)
