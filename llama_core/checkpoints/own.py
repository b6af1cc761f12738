"""llama_core's own layers, model, cache and sampling as implementations, and classes that take their place.

Each adapter takes the class that a checkpoint is about and gives ``run(inputs, weights, config)``. With llama_core's
class it is the implementation that ``llama-core check`` judges; with another class of the same surface, a learner's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llama_core import sampling
from llama_core.cache import KVCache
from llama_core.capture import NoTap, capture
from llama_core.checkpoints.implementation import Implementation, Run
from llama_core.checkpoints.specification import Checkpoint
from llama_core.config import LlamaConfig
from llama_core.errors import CheckpointError
from llama_core.generate import generate
from llama_core.layers import Attention, Block, FeedForward, QKVProjection, RMSNorm, RoPE, SelfAttention
from llama_core.layers.attention import visible_positions
from llama_core.model import Llama
from llama_core.tokenizer import Tokenizer
from llama_core.vocabulary import SentencePieceVocabulary

Tensors = dict[str, Tensor]


def implementations(checkpoint: Checkpoint) -> list[Implementation]:
    """llama_core's own: one, or one for each attention path."""
    run = _OWN[checkpoint.id]
    if "path" in inspect.signature(run).parameters:
        return [Implementation(path, partial(run, path=path)) for path in ("fused", "eager")]
    return [Implementation("llama_core", run)]


def drop_in(checkpoint: Checkpoint, cls: type) -> Run:
    """``run`` for a class that has the surface of llama_core's for this checkpoint.

    Raises:
        CheckpointError: the checkpoint is not about one class, or the class has no ``forward``.
    """
    if checkpoint.id not in _CLASSES or not callable(cls):
        raise CheckpointError(
            f"checkpoint {checkpoint.id} takes a function, not a class",
            key="implementation",
            expected="run(inputs, weights, config), or a class with a method run",
            actual=cls.__qualname__,
        )
    return partial(_CLASSES[checkpoint.id], cls)


class _Seen(NoTap):
    """A tap that keeps what it is shown; it asks for scores only if told to, so that attention may stay fused."""

    def __init__(self, scores: bool):
        self.values: Tensors = {}
        self.scores = scores

    def __call__(self, name: str, value: Tensor) -> Tensor:
        self.values[name] = value
        return value

    def wants(self, *names: str) -> bool:
        return self.scores


def _build(cls: Callable, weights: Tensors, prefix: str, *arguments: Any) -> nn.Module:
    """A module with the weights whose names start with ``prefix``; llama_core's own is never filled at random first."""
    own = getattr(cls, "__module__", "").startswith("llama_core.")
    with torch.device("meta") if own else nullcontext():
        module = cls(*arguments)
    chosen = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    module.load_state_dict(chosen, assign=True)
    return module.eval()


def _takes(function: Callable, name: str) -> bool:
    return name in inspect.signature(function).parameters


# Checkpoint 0


def foundation(inputs: Tensors, weights: Tensors, config: LlamaConfig) -> dict[str, int]:
    """Sizes, counted on the parameters of a model without weights; its layers are all alike, so it needs only one."""
    model = Llama(config.replace(num_hidden_layers=1))
    layer = model.layers[0]
    layer_parameters = sum(p.numel() for p in layer.parameters())
    return {
        "head_dim": layer.self_attn.head_dim,
        "query_size": layer.self_attn.q_proj.weight.shape[0],
        "key_value_size": layer.self_attn.k_proj.weight.shape[0],
        "cache_values_per_position": config.kv_cache_bytes(1, bytes_per_value=1),
        "layer_parameters": layer_parameters,
        "num_parameters": sum(p.numel() for p in model.parameters())
        + (config.num_hidden_layers - 1) * layer_parameters,
    }


# Checkpoints 1 to 5


def rms_norm(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig) -> Tensors:
    norm = _build(cls, weights, "input_layernorm.", config.hidden_size, config.rms_norm_eps)
    return {"attention_norm": norm(inputs["layer_input"])}


def _rope(cls: type, config: LlamaConfig, device: torch.device) -> nn.Module:
    rope = cls(
        config.head_dim, config.rope_theta, config.rope_layout, config.rope_scaling, config.max_position_embeddings
    )
    return rope.to(device)


def rope(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig) -> Tensors:
    q, k = _rope(cls, config, inputs["q"].device)(inputs["q"], inputs["k"], inputs["position_ids"])
    return {"q_rotated": q, "k_rotated": k, "v": inputs["v"]}


def projection(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig) -> Tensors:
    *sizes, bias = _sizes(config)
    norm = (config.rms_norm_eps,) if config.qk_norm else ()
    qkv = _build(cls, weights, "self_attn.", *sizes, bias or config.qkv_bias, *norm)
    return dict(zip("qkv", qkv(inputs["attention_norm"]), strict=True))


def _sizes(config: LlamaConfig) -> tuple:
    return (
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.attention_bias,
    )


def attention(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig, path: str = "eager") -> Tensors:
    """Causal where the positions are, with an explicit mask where there is padding."""
    layer = cls(config.head_dim, path) if _takes(cls, "implementation") else cls(config.head_dim)
    q, k, v = inputs["q_rotated"], inputs["cache_k"].transpose(1, 2), inputs["cache_v"].transpose(1, 2)
    positions, keys = inputs["position_ids"], inputs["key_positions"]
    causal = is_contiguous(keys) and torch.equal(positions, keys[:, -positions.shape[1] :])
    causal = causal and config.sliding_window is None
    options = {} if causal else {"mask": visible_positions(positions, keys, config.sliding_window)}
    seen = _Seen(scores=path == "eager")
    if _takes(layer.forward, "tap"):
        options["tap"] = seen
    out = layer.forward(q, k, v, True, **options)
    return seen.values | {"attention_context": out.unflatten(-1, (config.num_attention_heads, config.head_dim))}


def is_contiguous(positions: Tensor) -> bool:
    """Whether every row counts up by one, without padding."""
    return bool((positions >= 0).all() and (positions.diff(dim=-1) == 1).all())


def output_projection(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig) -> Tensors:
    build = partial(_o_proj, cls, config)
    build.__module__ = cls.__module__  # type: ignore[attr-defined]
    o_proj = _build(build, weights, "self_attn.o_proj.")
    return {"attention_output": o_proj(inputs["attention_context"].flatten(-2))}


def _o_proj(cls: type, config: LlamaConfig) -> nn.Module:
    return cls(*_sizes(config)).o_proj


def feed_forward(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig) -> Tensors:
    mlp = _build(cls, weights, "mlp.", config.hidden_size, config.intermediate_size, config.mlp_bias)
    seen = _Seen(scores=False)
    options = {"tap": seen} if _takes(mlp.forward, "tap") else {}
    return seen.values | {"ffn_output": mlp(inputs["ffn_norm"], **options)}


# Checkpoints 6, 7 and 8


def block(cls: type, inputs: Tensors, weights: Tensors, config: LlamaConfig, path: str = "fused") -> Tensors:
    layer = _build(cls, weights, "", config, path)
    x, positions = inputs["layer_input"], inputs["position_ids"]
    rope = _rope(RoPE, config, x.device)
    causal = is_contiguous(positions) and config.sliding_window is None
    mask = None if causal else visible_positions(positions, positions, config.sliding_window)
    seen = _Seen(scores=path == "eager")
    layer(x, rope, rope.cos_sin(positions.clamp(min=0)), mask, None, seen)
    return seen.values


def _model(weights: Tensors, config: LlamaConfig, path: str) -> Llama:
    model = Llama(config, path)
    model.load_state_dict(weights, assign=True)
    return model.to(next(iter(weights.values())).device).eval()


@torch.no_grad()
def model(inputs: Tensors, weights: Tensors, config: LlamaConfig, path: str = "fused") -> Tensors:
    llama = _model(weights, config, path)
    with capture(llama, ["embedding", "layers.*.output", "final_norm", "logits"]) as seen:
        llama(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return seen


@torch.no_grad()
def cached(inputs: Tensors, weights: Tensors, config: LlamaConfig, path: str = "fused") -> Tensors:
    """The calls in turn; one that begins before the end of the cache truncates it."""
    llama = _model(weights, config, path)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    cache = KVCache(config, ids.shape[0], ids.shape[1], llama.dtype, llama.device)
    logits = torch.zeros(*ids.shape, config.vocab_size, dtype=llama.dtype, device=llama.device)
    for begin, end in inputs["calls"].tolist():
        cache.truncate(begin)
        logits[:, begin:end] = llama(ids[:, begin:end], attention_mask=mask[:, :end], cache=cache)
    outputs = {"logits": logits, "position_ids": cache.positions[:, : cache.length]}
    for n, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
        outputs[f"layers.{n}.cache_k"] = keys[:, :, : cache.length]
        outputs[f"layers.{n}.cache_v"] = values[:, :, : cache.length]
    return outputs


# Checkpoint 9


def sample(inputs: Tensors, weights: Tensors, config: LlamaConfig) -> Tensors:
    probabilities = sampling.probabilities(
        inputs["logits"],
        float(inputs["temperature"]),
        int(inputs["top_k"]) or None,
        float(inputs["top_p"]),
    )
    return {
        "greedy_ids": sampling.greedy(inputs["logits"]),
        "kept": (probabilities > 0).long(),
        "probabilities": probabilities,
    }


# Checkpoint 10


def generation(inputs: Tensors, weights: Tensors, config: LlamaConfig, path: str = "fused") -> Tensors:
    """Greedy ids: each prompt on its own with ``generate``, on the eager path; all at once on the fused one."""
    llama = _model(weights, config, path)
    rows, limit = inputs["prompt_ids"].shape[0], int(inputs["max_new_tokens"])
    ends = tuple(inputs["eos_ids"].tolist())
    outputs = {
        name: torch.full((rows, limit), -1, dtype=torch.long)
        for name in ("token_ids", "position_ids", "streamed_bytes")
    }
    tokenizer = Tokenizer(_Pieces(inputs["piece_bytes"], inputs["piece_lengths"]))
    continuations = (_all_at_once if path == "fused" else _one_by_one)(llama, inputs, limit, ends)
    for row, tokens in enumerate(continuations):
        stream, shown = tokenizer.decode_stream(), 0
        for n, (token, position) in enumerate(tokens):
            # A byte that belongs to no character is shown as one U+FFFD.
            text = "" if token in ends else stream.push(token)
            shown += sum(1 if character == "\ufffd" else len(character.encode()) for character in text)
            for name, value in zip(outputs, (token, position, shown), strict=True):
                outputs[name][row, n] = value
    return outputs


Continuation = list[tuple[int, int]]


def _one_by_one(llama: Llama, inputs: Tensors, limit: int, ends: tuple[int, ...]) -> list[Continuation]:
    """Every row's new ids and their positions, from ``generate`` on the prompt without its padding."""
    found = []
    for ids, mask in zip(inputs["prompt_ids"], inputs["attention_mask"], strict=True):
        prompt = ids[mask != 0]
        cache = KVCache(llama.config, 1, len(prompt) + limit, llama.dtype, llama.device)
        stream = generate(llama, prompt, limit, temperature=0, eos_ids=ends, cache=cache)
        found.append([(token, cache.length) for token in stream])
    return found


@torch.no_grad()
def _all_at_once(llama: Llama, inputs: Tensors, limit: int, ends: tuple[int, ...]) -> list[Continuation]:
    """The same from one batch, padded on the left, until every row has met an end id."""
    ids, mask = inputs["prompt_ids"], inputs["attention_mask"]
    cache = KVCache(llama.config, ids.shape[0], ids.shape[1] + limit, llama.dtype, llama.device)
    found: list[Continuation] = [[] for _ in ids]
    running = set(range(len(ids)))
    for _ in range(limit):
        logits = llama(ids, attention_mask=mask, cache=cache, last_only=True)
        ids = sampling.greedy(logits[:, -1])[:, None]
        for row in sorted(running):
            token = int(ids[row])
            found[row].append((token, int(cache.next_positions()[row])))
            if token in ends:
                running.discard(row)
        if not running:
            break
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return found


class _Pieces(SentencePieceVocabulary):
    """The case's vocabulary: bytes for every id, and no rule about a first space."""

    def __init__(self, piece_bytes: Tensor, piece_lengths: Tensor):
        rows = zip(piece_bytes.tolist(), piece_lengths.tolist(), strict=True)
        self.surfaces = [bytes(data[:length]) for data, length in rows]
        self.size = len(self.surfaces)
        self.bos_id, self.eos_id, self.merges_spaces = 1, 2, False

    def at_start(self, token: int) -> bytes | None:
        return self.surfaces[token]


#: Checkpoint -> what it does with a class.
_CLASSES: dict[str, Callable] = {
    "1": torch.no_grad()(rms_norm),
    "1B": torch.no_grad()(rope),
    "2": torch.no_grad()(projection),
    "3": torch.no_grad()(attention),
    "4": torch.no_grad()(output_projection),
    "5": torch.no_grad()(feed_forward),
    "6": torch.no_grad()(block),
}

_OWN: dict[str, Callable] = {
    "0": foundation,
    "1": partial(_CLASSES["1"], RMSNorm),
    "1B": partial(_CLASSES["1B"], RoPE),
    "2": partial(_CLASSES["2"], QKVProjection),
    "3": partial(_CLASSES["3"], Attention),
    "4": partial(_CLASSES["4"], SelfAttention),
    "5": partial(_CLASSES["5"], FeedForward),
    "6": partial(_CLASSES["6"], Block),
    "7": model,
    "8": cached,
    "9": sample,
    "10": generation,
}
