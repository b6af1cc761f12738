"""The dataflow, written once: every step of a Llama with its axes, its inputs, its weights and its checkpoint.

What the project says about Llama is a query on this table. The float64 reference evaluates it; a known mistake is the
table with one function replaced; a gate holds an implementation's values to those of its checkpoint's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.names import ACTIVATIONS, LAYER_ACTIVATIONS

StepFunction = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """One point of the dataflow.

    Attributes:
        name: the activation, as in ``llama_core.names``; within a layer without ``layers.N.``.
        inputs: the activations it reads; ``layer_input`` is what the layer was given.
        weights: the parameters it reads; a parameter that the model does not have arrives as None.
        checkpoint: the checkpoint that teaches and proves it.
        fn: called as ``fn(context, *inputs, *weights)``.
    """

    name: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    checkpoint: str
    fn: StepFunction

    @property
    def axes(self) -> str:
        """Its axes in the project's letters, e.g. ``B H S T``."""
        if self.name == "key_positions":
            return "B T"
        return LAYER_ACTIVATIONS.get(self.name) or ACTIVATIONS[self.name]


def _projection(name: str) -> tuple[str, ...]:
    return f"{name}.weight", f"{name}.bias"


INPUT_STEPS = (
    Step("position_ids", ("attention_mask",), (), "8", r.count_positions),
    Step("key_positions", ("position_ids",), (), "8", r.extend_positions),
    Step("embedding", ("input_ids",), ("embed_tokens.weight",), "7", r.embed),
)

LAYER_STEPS = (
    Step("attention_norm", ("layer_input",), ("input_layernorm.weight",), "1", r.rms_norm),
    Step("q", ("attention_norm",), _projection("self_attn.q_proj"), "2", r.project_query),
    Step("k", ("attention_norm",), _projection("self_attn.k_proj"), "2", r.project_key),
    Step("v", ("attention_norm",), _projection("self_attn.v_proj"), "2", r.project_heads),
    Step("q_rotated", ("q", "position_ids"), (), "1B", r.rotated),
    Step("k_rotated", ("k", "position_ids"), (), "1B", r.rotated),
    Step("cache_k", ("k_rotated",), (), "8", r.extend_keys),
    Step("cache_v", ("v",), (), "8", r.extend_values),
    Step("scores", ("q_rotated", "cache_k"), (), "3", r.scores),
    Step("masked_scores", ("scores", "position_ids", "key_positions"), (), "3", r.masked_scores),
    Step("attention_weights", ("masked_scores",), (), "3", r.attention_weights),
    Step("attention_context", ("attention_weights", "cache_v"), (), "3", r.attention_context),
    Step("attention_output", ("attention_context",), _projection("self_attn.o_proj"), "4", r.project_output),
    Step("attention_residual", ("layer_input", "attention_output"), (), "6", r.add),
    Step("ffn_norm", ("attention_residual",), ("post_attention_layernorm.weight",), "1", r.rms_norm),
    Step("ffn_gate", ("ffn_norm",), _projection("mlp.gate_proj"), "5", r.linear),
    Step("ffn_up", ("ffn_norm",), _projection("mlp.up_proj"), "5", r.linear),
    Step("ffn_activation", ("ffn_gate",), (), "5", r.silu),
    Step("ffn_hidden", ("ffn_activation", "ffn_up"), (), "5", r.product),
    Step("ffn_output", ("ffn_hidden",), _projection("mlp.down_proj"), "5", r.linear),
    Step("output", ("attention_residual", "ffn_output"), (), "6", r.add),
)

OUTPUT_STEPS = (
    Step("final_norm", ("layer_output",), ("norm.weight",), "1", r.rms_norm),
    Step("logits", ("final_norm",), ("lm_head.weight",), "7", r.head),
)


@dataclass(frozen=True)
class Changes:
    """What a mistake does to the table.

    Attributes:
        steps: name -> the function that takes the step's place; ``context.right`` is the one it replaces.
        weights: parameters -> parameters, before anything is computed.
        config: hyper-parameters -> hyper-parameters.
        layers: the layers it concerns; None for all.
    """

    steps: Mapping[str, StepFunction] = field(default_factory=dict)
    weights: Callable | None = None
    config: Callable | None = None
    layers: frozenset[int] | None = None

    def function(self, step: Step, ctx: Context) -> StepFunction:
        """The function that computes a step in this context."""
        here = self.layers is None or not ctx.prefix or ctx.layer in self.layers
        return self.steps.get(step.name, step.fn) if here else step.fn

    def on_layers(self, *numbers: int) -> Changes:
        """The same changes, in these layers of a whole model only (steps outside layers stay right)."""
        return Changes(self.steps, self.weights, self.config, frozenset(numbers))


NO_CHANGES = Changes()


def evaluate(ctx: Context, steps: Iterable[Step], changes: Changes = NO_CHANGES) -> dict[str, np.ndarray]:
    """Compute the steps in order and put their values into ``ctx.values``; a value that is there stays."""
    for step in steps:
        if ctx.prefix + step.name in ctx.values:
            continue
        fn = changes.function(step, ctx)
        ctx.right = step.fn
        arguments = [ctx.value(name) for name in step.inputs] + [ctx.weight(name) for name in step.weights]
        ctx.values[ctx.prefix + step.name] = ctx.arithmetic.round(fn(ctx, *arguments), step.name)
    return ctx.values


def evaluate_layer(ctx: Context, changes: Changes = NO_CHANGES) -> dict[str, np.ndarray]:
    """All steps of one layer, from ``layer_input``, ``position_ids`` and, unless there is a cache, nothing else."""
    ctx.values.setdefault("key_positions", ctx.values["position_ids"])
    return evaluate(ctx, LAYER_STEPS, changes)


def evaluate_model(ctx: Context, changes: Changes = NO_CHANGES) -> dict[str, np.ndarray]:
    """All steps of a model, from ``input_ids`` and ``attention_mask`` (or ``position_ids``), after ``ctx.past``."""
    evaluate(ctx, INPUT_STEPS, changes)
    x = ctx.values["embedding"]
    for n in range(ctx.config.num_hidden_layers):
        ctx.prefix = f"layers.{n}."
        ctx.values["layer_input"] = x
        evaluate(ctx, LAYER_STEPS, changes)
        x = ctx.values[f"layers.{n}.output"]
    ctx.prefix = ""
    ctx.values["layer_output"] = x
    return evaluate(ctx, OUTPUT_STEPS, changes)
