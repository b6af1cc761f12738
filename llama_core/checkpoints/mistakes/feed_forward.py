"""Mistakes in the feed-forward network (checkpoint 5)."""

from __future__ import annotations

import math

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.checkpoints.mistakes.projection import transposed, without_bias

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _with_parameters_of(name: str):
    def project(ctx: Context, x, weight, bias):
        return ctx.right(ctx, x, ctx.weight(f"mlp.{name}.weight"), ctx.weight(f"mlp.{name}.bias"))

    return project


def _with_weight_of(name: str):
    """Each keeps its own bias."""
    return lambda ctx, x, weight, bias: ctx.right(ctx, x, ctx.weight(f"mlp.{name}.weight"), bias)


def _gelu(ctx: Context, gate):
    return gate * (1 + _erf(gate / math.sqrt(2))) / 2


def _quick_gelu(ctx: Context, gate):
    return gate / (1 + np.exp(-1.702 * gate))


def _gelu_tanh(ctx: Context, gate):
    return gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) / 2


def _sigmoid(ctx: Context, gate):
    return 1 / (1 + np.exp(-gate))


def _silu_of_product(ctx: Context, activation, up):
    z = ctx.value("ffn_gate") * up
    return z / (1 + np.exp(-z))


MISTAKES = (
    Mistake(
        id="ffn-gate-and-up-swapped",
        checkpoint="5",
        title="gate and up are swapped: silu is applied to up",
        looks_like="Text is broken but not pure noise: the product is nearly symmetric, the activation is not.",
        why="Meta calls them w1 and w3, and a fused gate_up_proj is split in either order.",
        mend="silu belongs to gate_proj (w1).",
        notebook="05_feed_forward#gate",
        origin="https://github.com/ml-explore/mlx-lm/pull/767",
        changes=change(ffn_gate=_with_parameters_of("up_proj"), ffn_up=_with_parameters_of("gate_proj")),
        also=(change(ffn_gate=_with_weight_of("up_proj"), ffn_up=_with_weight_of("gate_proj")),),
    ),
    Mistake(
        id="ffn-gelu",
        checkpoint="5",
        title="gelu instead of silu",
        looks_like="Text is nearly right; every layer is a few per cent off.",
        why="gelu is the usual activation of other transformers, and the curves look alike.",
        mend="silu(z) = z · sigmoid(z); read hidden_act.",
        notebook="05_feed_forward#activation",
        changes=change(ffn_activation=_gelu),
        also=(change(ffn_activation=_quick_gelu),),
    ),
    Mistake(
        id="ffn-gelu-tanh",
        checkpoint="5",
        title="gelu in its tanh form instead of silu",
        looks_like="Text is nearly right; every layer is a few per cent off.",
        why="It is Gemma's activation in the same gated network.",
        mend="silu(z) = z · sigmoid(z); read hidden_act.",
        notebook="05_feed_forward#activation",
        changes=change(ffn_activation=_gelu_tanh),
    ),
    Mistake(
        id="ffn-relu",
        checkpoint="5",
        title="relu instead of silu",
        looks_like="Half of the hidden values are exactly zero; text is poor.",
        why="The default of a feed-forward class that was written for another model.",
        mend="silu(z) = z · sigmoid(z).",
        notebook="05_feed_forward#activation",
        changes=change(ffn_activation=lambda ctx, gate: np.maximum(gate, 0)),
    ),
    Mistake(
        id="ffn-sigmoid",
        checkpoint="5",
        title="sigmoid instead of silu: a plain gated linear unit",
        looks_like="All activations lie between 0 and 1; text is noise.",
        why="GLU in a library has a sigmoid; the factor z makes it a swish.",
        mend="silu(z) = z · sigmoid(z).",
        notebook="05_feed_forward#activation",
        changes=change(ffn_activation=_sigmoid),
    ),
    Mistake(
        id="ffn-no-gate",
        checkpoint="5",
        title="up_proj is left out: down(silu(gate x))",
        looks_like="A plain two-layer network; up_proj is loaded and never used.",
        why="The feed-forward network of the original transformer has no second branch.",
        mend="Multiply silu(gate x) by up x before down_proj.",
        notebook="05_feed_forward#gate",
        changes=change(ffn_hidden=lambda ctx, activation, up: activation),
    ),
    Mistake(
        id="ffn-no-activation",
        checkpoint="5",
        title="the activation is left out: down(gate x ⊙ up x)",
        looks_like="Hidden values grow with the square of the input; text is noise.",
        why="The fused kernel multiplies only, and the activation was expected in it.",
        mend="Apply silu to gate x before the product.",
        notebook="05_feed_forward#activation",
        changes=change(ffn_activation=lambda ctx, gate: gate),
    ),
    Mistake(
        id="ffn-silu-of-product",
        checkpoint="5",
        title="silu is applied to the product: silu(gate x ⊙ up x)",
        looks_like="Negative hidden values are almost gone; text is noise.",
        why="The parentheses of the formula are read the other way.",
        mend="silu(gate x) first, then the product with up x.",
        notebook="05_feed_forward#gate",
        changes=change(ffn_hidden=_silu_of_product),
    ),
    Mistake(
        id="ffn-weight-transposed",
        checkpoint="5",
        title="the weights are used transposed",
        looks_like="No error where F = E, otherwise the shapes tell.",
        why="x·W or x·Wᵀ: files store [out, in].",
        mend="y = x·Wᵀ for the weights as stored.",
        notebook="05_feed_forward#weights",
        changes=change(ffn_gate=transposed, ffn_up=transposed, ffn_output=transposed),
        equivalent="Where F ≠ E the shapes do not fit and it cannot happen in silence.",
    ),
    Mistake(
        id="ffn-bias-ignored",
        checkpoint="5",
        title="the biases of the feed-forward network are not added",
        looks_like="Llama works; its relatives with mlp_bias give plausible but wrong text.",
        why="Llama has none, so the code has no place for them and loading drops what it does not know.",
        mend="Add the biases where mlp_bias is set; report tensors that nothing reads.",
        notebook="05_feed_forward#weights",
        origin="https://github.com/mlc-ai/mlc-llm/pull/3494",
        changes=change(ffn_gate=without_bias, ffn_up=without_bias, ffn_output=without_bias),
        equivalent="Where the model has no biases.",
    ),
)
