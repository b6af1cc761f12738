"""Mistakes in how the model is put together (checkpoint 7)."""

from __future__ import annotations

import math
import re

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.checkpoints.random_bits import uniform
from llama_core.checkpoints.steps import Changes


def _layer_weights_from(source) -> Changes:
    """Layer n has the weights of layer ``source(n, L)``."""

    def weights(right, config):
        def moved(name: str):
            found = re.match(r"layers\.(\d+)\.(.*)", name)
            if not found:
                return right[name]
            return right[f"layers.{source(int(found[1]), config.num_hidden_layers)}.{found[2]}"]

        return {name: moved(name) for name in right}

    return Changes(weights=weights)


def _skips(chosen) -> Changes:
    """The output of layer ``chosen(L)`` is its input."""

    def output(ctx: Context, h, ffn):
        if ctx.prefix and ctx.layer == chosen(ctx.config.num_hidden_layers):
            return ctx.value("layer_input")
        return ctx.right(ctx, h, ffn)

    return change(output=output)


def _tied(ctx: Context, final_norm, weight):
    return r.linear(ctx, final_norm, ctx.weight("embed_tokens.weight"))


def _untied(ctx: Context, final_norm, weight):
    """A head that was drawn at random and never given the embedding matrix."""
    if not ctx.config.tie_word_embeddings:
        return ctx.right(ctx, final_norm, weight)
    drawn = uniform(7, weight.shape, weight.shape[-1] ** -0.5).astype(np.float64)
    return r.linear(ctx, final_norm, ctx.arithmetic.round(drawn))


def _biased(ctx: Context, final_norm, weight):
    size, fan_in = weight.shape
    return ctx.right(ctx, final_norm, weight) + uniform(size, (size,), (3 * fan_in) ** -0.5).astype(np.float64)


MISTAKES = (
    Mistake(
        id="model-last-layer-skipped",
        checkpoint="7",
        title="the last layer is skipped",
        looks_like="Text is plausible but flat; hidden states agree up to the last layer but one.",
        why="A loop that ends one too early, or hidden states counted with the embedding as the first.",
        mend="Run layers 0 … L - 1.",
        notebook="07_full_model#layers",
        changes=_skips(lambda count: count - 1),
    ),
    Mistake(
        id="model-first-layer-skipped",
        checkpoint="7",
        title="the first layer is skipped",
        looks_like="Text is noise: the first layer changes the embedding more than any other.",
        why="A loop that starts at 1, as file names or pipeline stages do.",
        mend="Run layers 0 … L - 1.",
        notebook="07_full_model#layers",
        changes=_skips(lambda count: 0),
    ),
    Mistake(
        id="model-layers-reversed",
        checkpoint="7",
        title="the layers run in reverse order",
        looks_like="Text is noise; every single layer passes its own test.",
        why="Layers are collected from a list that was sorted or popped from the end.",
        mend="Run layer 0 first.",
        notebook="07_full_model#layers",
        changes=_layer_weights_from(lambda n, count: count - 1 - n),
    ),
    Mistake(
        id="model-layers-sorted-as-text",
        checkpoint="7",
        title="the last two layers are exchanged, as when their names are put into the wrong order",
        looks_like="The first layers agree and the rest does not. With ten layers or more, names sorted as text put 10 "
        "before 2.",
        why="Names of layers are compared as text, or shards are joined in the order of the file system.",
        mend="Sort layers by number.",
        notebook="07_full_model#layers",
        origin="https://github.com/arcee-ai/mergekit/issues/143",
        changes=_layer_weights_from(lambda n, count: {count - 1: count - 2, count - 2: count - 1}.get(n, n)),
        equivalent="With a single layer.",
    ),
    Mistake(
        id="model-first-layer-repeated",
        checkpoint="7",
        title="every layer has the first layer's weights",
        looks_like="Layer 0 agrees, no other does.",
        why="The same module object is put into the list L times, or the number is missing in the name that is loaded.",
        mend="Make a module for every layer and load every layer's own tensors.",
        notebook="07_full_model#layers",
        changes=_layer_weights_from(lambda n, count: 0),
        equivalent="With a single layer.",
    ),
    Mistake(
        id="model-final-norm-missing",
        checkpoint="7",
        title="the final norm is missing",
        looks_like="Logits are too large or too small, greedy text is often still readable.",
        why="The norm belongs to no layer, and is forgotten in the loop over layers.",
        mend="logits = head(norm(last hidden state)).",
        notebook="07_full_model#head",
        changes=change(final_norm=lambda ctx, x, weight: x),
    ),
    Mistake(
        id="model-head-tied",
        checkpoint="7",
        title="the head is the embedding matrix although the model has a head of its own",
        looks_like="Every hidden state agrees, the logits are noise.",
        why="The code comes from a small model whose head is tied, or tie_word_embeddings has the wrong default.",
        mend="Read tie_word_embeddings; with false, load lm_head.weight.",
        notebook="07_full_model#head",
        origin="https://github.com/huggingface/candle/pull/2930",
        changes=change(logits=_tied),
        equivalent="Where the head is tied.",
    ),
    Mistake(
        id="model-head-not-tied",
        checkpoint="7",
        title="the head is random although it should be the embedding matrix",
        looks_like="Every hidden state agrees, the logits are noise, and other noise in every run.",
        why="lm_head.weight is absent from the file, and what is absent keeps its random start.",
        mend="With tie_word_embeddings the head is embed_tokens.weight; load strictly.",
        notebook="07_full_model#head",
        origin="https://github.com/huggingface/transformers/pull/43429",
        changes=change(logits=_untied),
        equivalent="Where the head is not tied.",
    ),
    Mistake(
        id="model-embedding-scaled",
        checkpoint="7",
        title="embeddings are multiplied by √E, as in Gemma",
        looks_like="The first layers' contribution drowns; text degenerates.",
        why="The original transformer and Gemma scale embeddings, and engines share the code.",
        mend="Llama uses the rows of the embedding matrix as they are.",
        notebook="07_full_model#embedding",
        origin="https://github.com/TensorAuto/OpenTau/pull/179",
        changes=change(embedding=lambda ctx, ids, table: ctx.right(ctx, ids, table) * math.sqrt(table.shape[-1])),
    ),
    Mistake(
        id="model-spurious-head-bias",
        checkpoint="7",
        title="the head adds a bias that the model does not have",
        looks_like="A constant error in the logits at every position; some tokens come up too often.",
        why="Linear layers have a bias by default, and one that is missing in the file stays at its random start.",
        mend="Create the head without bias.",
        notebook="07_full_model#head",
        changes=change(logits=_biased),
        equivalent="Where the extra bias was set to zero.",
    ),
)
