"""How each checkpoint is evaluated: which steps, in which loop. Inputs and weights in, named outputs out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.sampling_steps import SAMPLING_STEPS
from llama_core.checkpoints.steps import (
    LAYER_STEPS,
    NO_CHANGES,
    Changes,
    Step,
    evaluate,
    evaluate_layer,
    evaluate_model,
)
from llama_core.config import LlamaConfig

Arrays = dict[str, np.ndarray]
Procedure = Callable[[Arrays, Arrays, LlamaConfig, Arithmetic, Changes], Arrays]


def run_procedure(
    procedure: Procedure,
    inputs: Arrays,
    weights: Arrays,
    config: LlamaConfig,
    arithmetic: Arithmetic = REFERENCE,
    changes: Changes = NO_CHANGES,
) -> Arrays:
    """Evaluate a checkpoint, with a mistake's changes to configuration and weights applied first."""
    config = changes.config(config) if changes.config else config
    weights = changes.weights(weights, config) if changes.weights else weights
    with np.errstate(invalid="ignore", over="ignore"):
        return procedure(inputs, weights, config, arithmetic, changes)


def _steps_procedure(steps: tuple[Step, ...]) -> Procedure:
    def procedure(inputs, weights, config, arithmetic, changes):
        ctx = Context(config, weights, dict(inputs), arithmetic)
        return evaluate(ctx, steps, changes)

    return procedure


def _layer_steps(*names: str) -> tuple[Step, ...]:
    return tuple(step for step in LAYER_STEPS if step.name in names)


# Checkpoint 0: what follows from the hyper-parameters alone

FOUNDATION_STEPS = (
    Step("head_dim", (), (), "0", lambda ctx: np.array([ctx.config.head_dim])),
    Step("query_size", ("head_dim",), (), "0", lambda ctx, head_dim: ctx.config.num_attention_heads * head_dim),
    Step("key_value_size", ("head_dim",), (), "0", lambda ctx, head_dim: ctx.config.num_key_value_heads * head_dim),
    Step(
        "cache_values_per_position",
        ("key_value_size",),
        (),
        "0",
        lambda ctx, key_value_size: 2 * ctx.config.num_hidden_layers * key_value_size,
    ),
    Step("embedding_parameters", (), (), "0", lambda ctx: np.array([ctx.config.vocab_size * ctx.config.hidden_size])),
    Step(
        "head_parameters",
        ("embedding_parameters",),
        (),
        "0",
        lambda ctx, embedding: embedding * (0 if ctx.config.tie_word_embeddings else 1),
    ),
    Step(
        "layer_parameters",
        ("query_size", "key_value_size"),
        (),
        "0",
        lambda ctx, query, key_value: (
            2 * ctx.config.hidden_size * (query + key_value)
            + (ctx.config.attention_bias or ctx.config.qkv_bias) * (query + 2 * key_value)
            + ctx.config.attention_bias * ctx.config.hidden_size
            + ctx.config.qk_norm * 2 * ctx.config.head_dim
            + 3 * ctx.config.hidden_size * ctx.config.intermediate_size
            + ctx.config.mlp_bias * (2 * ctx.config.intermediate_size + ctx.config.hidden_size)
            + 2 * ctx.config.hidden_size
        ),
    ),
    Step(
        "num_parameters",
        ("embedding_parameters", "head_parameters", "layer_parameters"),
        (),
        "0",
        lambda ctx, embedding, head, layer: (
            embedding + head + ctx.config.num_hidden_layers * layer + ctx.config.hidden_size
        ),
    ),
)

foundation = _steps_procedure(FOUNDATION_STEPS)
sampling = _steps_procedure(SAMPLING_STEPS)


# Checkpoints 1 to 5: some steps of one layer, given the values they read

rms_norm = _steps_procedure(_layer_steps("attention_norm"))
projection = _steps_procedure(_layer_steps("q", "k", "v"))
attention = _steps_procedure(_layer_steps("scores", "masked_scores", "attention_weights", "attention_context"))
output_projection = _steps_procedure(_layer_steps("attention_output"))
feed_forward = _steps_procedure(_layer_steps("ffn_gate", "ffn_up", "ffn_activation", "ffn_hidden", "ffn_output"))


def rope(inputs, weights, config, arithmetic, changes):
    """q and k turn; v, which is an input, must come out as it went in."""
    ctx = Context(config, weights, dict(inputs), arithmetic)
    evaluate(ctx, _layer_steps("q_rotated", "k_rotated"), changes)
    ctx.right = lambda ctx, v: v
    if "v" in changes.steps:
        ctx.values["v"] = arithmetic.round(changes.steps["v"](ctx, inputs["v"]))
    return ctx.values


# Checkpoints 6 and 7: a layer, a model


def block(inputs, weights, config, arithmetic, changes):
    return evaluate_layer(Context(config, weights, dict(inputs), arithmetic), changes)


def model(inputs, weights, config, arithmetic, changes):
    return evaluate_model(Context(config, weights, dict(inputs), arithmetic), changes)


# Checkpoint 8: calls that share a cache


def cut_past(past: Arrays, length: int) -> Arrays:
    """The cache with only its first ``length`` slots."""
    return {
        name: value[:, :length] if name == "key_positions" else value[:, :, :length] for name, value in past.items()
    }


def call_model(ctx_past: Arrays, call: int, ids, mask, weights, config, arithmetic, changes) -> tuple[Arrays, Arrays]:
    """One forward pass over new ids behind a cache; returns its values and the new cache."""
    ctx = Context(config, weights, {"input_ids": ids, "attention_mask": mask}, arithmetic, ctx_past, call=call)
    values = evaluate_model(ctx, changes)
    past = {n: v for n, v in values.items() if n == "key_positions" or n.endswith((".cache_k", ".cache_v"))}
    return values, past


def cached(inputs, weights, config, arithmetic, changes):
    """Calls over slots [begin, end) of ``input_ids``; a call that begins before the end of the cache truncates it."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    outputs: Arrays = {}
    past: Arrays = {}
    for call, (begin, end) in enumerate(inputs["calls"].tolist()):
        past = cut_past(past, begin) if past else past
        values, past = call_model(past, call, ids[:, begin:end], mask[:, :end], weights, config, arithmetic, changes)
        for name in ("position_ids", "logits"):
            value = values[name]
            if name not in outputs:
                outputs[name] = np.zeros((*ids.shape, *value.shape[2:]), value.dtype)
            outputs[name][:, begin:end] = value
    return outputs | {name: value for name, value in past.items() if name != "key_positions"}


# Checkpoint 10: ids to text


def fed_ids(ctx: Context, prompt_ids: np.ndarray) -> np.ndarray:
    """What prefill is fed: the prompts as they are, begin token included."""
    return prompt_ids


def stops(ctx: Context, next_ids: np.ndarray, eos_ids: np.ndarray) -> np.ndarray:
    """[B]: which rows end with this token."""
    return np.isin(next_ids, eos_ids)


def streamed_length(ctx: Context, text: bytes) -> int:
    """How many bytes may be shown: all but an unfinished character at the end."""
    for back in range(1, min(3, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            wanted = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return len(text) - back if back < wanted else len(text)
        if byte < 0x80:
            break
    return len(text)


def generation(inputs, weights, config, arithmetic, changes):
    """Greedy, all rows at once behind a cache, until each row has met an end id or the limit."""
    ctx = Context(config, weights, {}, arithmetic)

    def step(name, fn, *arguments):
        ctx.right = fn
        return changes.steps.get(name, fn)(ctx, *arguments)

    prompts, mask = inputs["prompt_ids"], inputs["attention_mask"].astype(np.int64)
    pieces, lengths = inputs["piece_bytes"], inputs["piece_lengths"]
    rows, limit = len(prompts), int(inputs["max_new_tokens"][0])
    token_ids = np.full((rows, limit), -1, np.int64)
    positions = np.full((rows, limit), -1, np.int64)
    shown = np.full((rows, limit), -1, np.int64)
    texts = [b""] * rows
    ids = step("fed_ids", fed_ids, prompts)
    if ids.shape[1] > mask.shape[1]:  # tokens put in front push the prompts one slot back, padding first
        mask = np.concatenate([mask, np.ones((rows, ids.shape[1] - mask.shape[1]), np.int64)], axis=1)
        mask = np.sort(mask, axis=1)
    past: Arrays = {}
    running = np.ones(rows, bool)
    for n in range(limit):
        values, past = call_model(past, n, ids, mask, weights, config, arithmetic, changes)
        next_ids = step("next_ids", lambda ctx, logits: logits.argmax(-1), values["logits"][:, -1])
        token_ids[running, n] = next_ids[running]
        positions[running, n] = values["position_ids"][running, -1] + 1
        ended = step("stops", stops, next_ids, inputs["eos_ids"])
        for row in np.flatnonzero(running):
            if not np.isin(next_ids[row], inputs["eos_ids"]):
                texts[row] += bytes(pieces[next_ids[row], : lengths[next_ids[row]]].astype(np.uint8))
            shown[row, n] = step("streamed_length", streamed_length, texts[row])
        running &= ~ended
        if not running.any():
            break
        ids = next_ids[:, None]
        mask = np.concatenate([mask, np.ones((rows, 1), np.int64)], axis=1)
    return {"token_ids": token_ids, "position_ids": positions, "streamed_bytes": shown}
