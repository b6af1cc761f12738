"""Mistakes in the sizes that follow from the configuration (checkpoint 0)."""

from __future__ import annotations

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change


def _without_biases(ctx: Context, query, key_value):
    config = ctx.config
    biases = config.attention_bias * (query + 2 * key_value + config.hidden_size)
    biases = biases + config.mlp_bias * (2 * config.intermediate_size + config.hidden_size)
    return ctx.right(ctx, query, key_value) - biases


MISTAKES = (
    Mistake(
        id="foundation-head-dim-from-hidden-size",
        checkpoint="0",
        title="head_dim is taken as hidden_size / num_attention_heads although the configuration states it",
        looks_like="Loading fails on the shape of q_proj, or attention has heads of the wrong width. "
        "Llama-2 works and a model whose H·D differs from E does not.",
        why="In every early Llama D = E / H, so code written for them computes D instead of reading it.",
        mend="Use head_dim where config.json has it; divide only where it is absent.",
        notebook="00_foundation#sizes",
        origin="https://github.com/huggingface/candle/issues/2358",
        changes=change(
            head_dim=lambda ctx: ctx.right(ctx) * 0 + ctx.config.hidden_size // ctx.config.num_attention_heads
        ),
        equivalent="Where H·D = E, as in every published Llama-2 and Llama-3.",
    ),
    Mistake(
        id="foundation-key-value-heads-ignored",
        checkpoint="0",
        title="keys and values are given as many heads as queries",
        looks_like="k_proj and v_proj have the wrong shape, the parameter count is too high and the cache takes H/K "
        "times the memory. 7B loads, 70B does not.",
        why="num_key_value_heads does not exist in the first configurations, and code from that time uses H.",
        mend="Size k_proj, v_proj and the cache by num_key_value_heads.",
        notebook="00_foundation#sizes",
        changes=change(key_value_size=lambda ctx, head_dim: ctx.config.num_attention_heads * head_dim),
        equivalent="Where K = H: Llama-2 7B and 13B.",
    ),
    Mistake(
        id="foundation-tied-head-counted-twice",
        checkpoint="0",
        title="a tied output head is counted as parameters of its own",
        looks_like="The parameter count is V·E too high; a checkpoint seems to lack lm_head.weight.",
        why="The head is a module of its own, and summing over modules sees the shared matrix twice.",
        mend="Count a shared matrix once; with tie_word_embeddings the head has no parameters of its own.",
        notebook="00_foundation#parameters",
        changes=change(head_parameters=lambda ctx, embedding: embedding),
        equivalent="Where the head is not tied.",
    ),
    Mistake(
        id="foundation-biases-not-counted",
        checkpoint="0",
        title="the biases that the configuration asks for are left out",
        looks_like="The parameter count is a little too low, and loading reports unexpected q_proj.bias.",
        why="Llama has no biases, so attention_bias and mlp_bias are easily overlooked; Llama's relatives set them.",
        mend="Create and count biases by attention_bias and mlp_bias.",
        notebook="00_foundation#parameters",
        changes=change(layer_parameters=_without_biases),
        equivalent="Where there are no biases, as in Llama itself.",
    ),
    Mistake(
        id="foundation-norms-not-counted",
        checkpoint="0",
        title="the weights of the two norms in every layer are not counted",
        looks_like="The parameter count is too low by 2·E per layer: 266,240 for Llama-2 7B.",
        why="The matrices make up almost all of the parameters, and the vectors are forgotten.",
        mend="Add 2·E per layer, and E for the final norm.",
        notebook="00_foundation#parameters",
        changes=change(layer_parameters=lambda ctx, q, kv: ctx.right(ctx, q, kv) - 2 * ctx.config.hidden_size),
    ),
    Mistake(
        id="foundation-two-feed-forward-matrices",
        checkpoint="0",
        title="the feed-forward network is counted with two matrices instead of three",
        looks_like="The parameter count is about a fifth too low; gate_proj or up_proj is unexpected when loading.",
        why="The original transformer has two; a gated one has gate, up and down.",
        mend="Count gate_proj, up_proj and down_proj: 3·E·F.",
        notebook="00_foundation#parameters",
        changes=change(
            layer_parameters=lambda ctx, q, kv: (
                ctx.right(ctx, q, kv) - ctx.config.hidden_size * ctx.config.intermediate_size
            )
        ),
    ),
    Mistake(
        id="foundation-cache-without-values",
        checkpoint="0",
        title="the cache is sized for keys only",
        looks_like="The planned memory is half of what generation needs; it runs out halfway through the context.",
        why="Keys and values have the same size, and the factor of 2 is forgotten.",
        mend="2 · L · K · D numbers per position.",
        notebook="00_foundation#sizes",
        changes=change(
            cache_values_per_position=lambda ctx, key_value_size: ctx.config.num_hidden_layers * key_value_size
        ),
    ),
)
