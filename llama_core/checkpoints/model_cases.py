"""Cases from a real model: its own weights, and the activations that the float64 reference has of it, as inputs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from os import PathLike

import numpy as np

from llama_core.checkpoints.cases import Arrays, Case, Stream, left_padding
from llama_core.checkpoints.definition import Checkpoint
from llama_core.checkpoints.model_checkpoints import WORDS
from llama_core.checkpoints.procedures import model, run_procedure
from llama_core.config import LlamaConfig

#: Rows and positions of the ids that a model is fed, and new tokens of checkpoint 10.
_ROWS, _LENGTH, _NEW = 2, 16, 8
#: Parameters beyond which weights are not copied in float64.
_LARGE = 30_000_000
_SEED = 9_000


def cases_of_model(checkpoint: Checkpoint, folder: str | PathLike) -> list[Case]:
    """The checkpoint's cases on a model: its first, middle and last layer, or the whole of it.

    The model reads whole numbers drawn from a stated seed, after its begin id. Raises what loading the folder raises.
    """
    config, weights, values = _activations(str(folder))
    found = _BUILDERS.get(checkpoint.id, _layer_cases)(checkpoint, config, weights, values)
    return [
        Case(
            name, "a real model's values", config, _SEED, _not_drawn, large=config.num_parameters > _LARGE, given=given
        )
        for name, given in found
    ]


def _not_drawn(stream: Stream) -> Arrays:
    raise NotImplementedError("the values of this case are given")


@lru_cache(maxsize=1)
def _activations(folder: str) -> tuple[LlamaConfig, Arrays, Arrays]:
    """Configuration, weights in float32, and every activation of the float64 reference."""
    from llama_core.weights import load_model

    loaded = load_model(folder, dtype="float32")
    config = loaded.config
    weights = {name: tensor.detach().numpy() for name, tensor in loaded.state_dict().items()}
    values = run_procedure(model, _ids(config), weights, config)
    return config, weights, values


def _ids(config: LlamaConfig) -> Arrays:
    length = min(_LENGTH, config.max_position_embeddings)
    ids = Stream(_SEED).ids(_ROWS, length, below=config.vocab_size)
    if config.bos_token_id is not None and config.bos_token_id >= 0:
        ids[:, 0] = config.bos_token_id
    return {"input_ids": ids, "attention_mask": np.ones((_ROWS, length), np.int64)}


def _layers(config: LlamaConfig) -> list[int]:
    last = config.num_hidden_layers - 1
    return sorted({0, last // 2, last})


Found = Iterator[tuple[str, tuple[Arrays, Arrays]]]


def _layer_cases(checkpoint: Checkpoint, config: LlamaConfig, weights: Arrays, values: Arrays) -> Found:
    """Checkpoints 1 to 6: inputs and parameters of one layer, under their names within the layer."""
    parts = {case_part for case in checkpoint.every_case for case_part in case.weight_names}
    for n in _layers(config):
        prefix = f"layers.{n}."
        of_layer = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        chosen = {name: w for name, w in of_layer.items() if any(part in name for part in parts)}
        given = {name: _layer_value(name, n, values) for name in checkpoint.inputs}
        yield f"layer {n}", (given, chosen)
        if checkpoint.id == "1":
            second = {"input_layernorm.weight": of_layer["post_attention_layernorm.weight"]}
            yield f"layer {n}, second norm", ({"layer_input": values[prefix + "attention_residual"]}, second)
    if checkpoint.id == "1":
        last = values[f"layers.{config.num_hidden_layers - 1}.output"]
        yield "final norm", ({"layer_input": last}, {"input_layernorm.weight": weights["norm.weight"]})


def _layer_value(name: str, n: int, values: Arrays) -> np.ndarray:
    if name == "layer_input":
        return values[f"layers.{n - 1}.output"] if n else values["embedding"]
    return values[name] if name in values else values[f"layers.{n}.{name}"]


def _foundation(checkpoint: Checkpoint, config: LlamaConfig, weights: Arrays, values: Arrays) -> Found:
    yield "sizes", ({}, {})


def _model(checkpoint: Checkpoint, config: LlamaConfig, weights: Arrays, values: Arrays) -> Found:
    ids = _ids(config)
    yield "whole model", (ids, weights)
    padded = ids | {"attention_mask": left_padding(*ids["input_ids"].shape, 3)}
    yield "left padding", (padded, weights)


def _cached(checkpoint: Checkpoint, config: LlamaConfig, weights: Arrays, values: Arrays) -> Found:
    ids = _ids(config)
    end = ids["input_ids"].shape[1]
    half = end // 2
    singles = [(n, n + 1) for n in range(half, end)]
    yield "prefill and decode", (ids | {"calls": np.array([(0, half), *singles])}, weights)
    yield "chunks", (ids | {"calls": np.array([(0, half), (half, end - 1), (end - 1, end)])}, weights)


def _sampling(checkpoint: Checkpoint, config: LlamaConfig, weights: Arrays, values: Arrays) -> Found:
    for name, temperature, top_k, top_p in (("plain", 1.0, 0, 1.0), ("top-k", 0.75, 5, 1.0), ("greedy", 0.0, 0, 1.0)):
        yield (
            name,
            (
                {
                    "logits": values["logits"][:, -1],
                    "temperature": np.array([temperature]),
                    "top_k": np.array([top_k]),
                    "top_p": np.array([top_p]),
                },
                {},
            ),
        )


def _generation(checkpoint: Checkpoint, config: LlamaConfig, weights: Arrays, values: Arrays) -> Found:
    """Greedy ids after two prompts, the first padded on the left; the text is a stand-in."""
    length = max(1, min(6, config.max_position_embeddings - _NEW))
    ids = _ids(config)["input_ids"][:, :length].copy()
    mask = left_padding(_ROWS, length, min(2, length - 1))
    pieces = (WORDS * (config.vocab_size // len(WORDS) + 1))[: config.vocab_size]
    width = max(len(p) for p in pieces)
    inputs = {
        "prompt_ids": ids,
        "attention_mask": mask,
        "max_new_tokens": np.array([min(_NEW, max(1, config.max_position_embeddings - length))]),
        "eos_ids": np.array([i for i in config.eos_token_ids if i >= 0], np.int64),
        "piece_bytes": np.array([list(p.ljust(width, b"\0")) for p in pieces]),
        "piece_lengths": np.array([len(p) for p in pieces]),
    }
    yield "greedy", (inputs, weights)


_BUILDERS = {"0": _foundation, "7": _model, "8": _cached, "9": _sampling, "10": _generation}
