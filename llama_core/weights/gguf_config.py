"""The hyper-parameters in a GGUF header: to ``LlamaConfig``, and from it.

Source of the keys: ``docs/gguf.md`` in the ggml repository, ``llama-arch.cpp`` and ``llama-hparams`` in llama.cpp. What
llama.cpp's graph for the architecture ``llama`` cannot compute is refused in both directions.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from llama_core.config import LlamaConfig, RopeScaling
from llama_core.errors import ConfigError
from llama_core.layers.rope import default_frequencies, llama3_frequencies
from llama_core.weights.gguf_header import GgufHeader, LongArray
from llama_core.weights.gguf_tensor import GgufTensor
from llama_core.weights.json_values import Values
from llama_core.weights.strict_json import parse_object

ARCHITECTURE = "llama"
ROPE_FACTORS = "rope_freqs.weight"
#: A key of ours: GGUF has the numbers that Llama 3's scaling makes, not those that it is made from.
SCALING_KEY = "llama_core.rope_scaling"

_P = f"{ARCHITECTURE}."
_READ = frozenset(
    _P + key
    for key in """
    vocab_size context_length embedding_length block_count feed_forward_length attention.head_count
    attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon rope.freq_base
    rope.dimension_count rope.scale_linear rope.scaling.type rope.scaling.factor rope.scaling.original_context_length
    rope.scaling.attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow
    """.split()
)
_HARMLESS = frozenset(_P + key for key in ("rope.scaling.finetuned", "tensor_data_layout"))
#: What changes the result, unless it has one of these values.
_REFUSED_UNLESS: dict[str, tuple[Any, ...]] = {
    _P + "expert_count": (0,),
    _P + "expert_used_count": (0,),
    _P + "attention.scale": (0.0,),
    _P + "attention.clamp_kqv": (0.0,),
    _P + "attention.max_alibi_bias": (0.0,),
    _P + "attention.causal": (True,),
    _P + "attention.sliding_window": (0,),
    _P + "attn_logit_softcapping": (0.0,),
    _P + "final_logit_softcapping": (0.0,),
    _P + "logit_scale": (0.0, 1.0),
    _P + "embedding_scale": (0.0, 1.0),
    _P + "residual_scale": (0.0, 1.0),
    _P + "use_parallel_residual": (False,),
    _P + "rope.scaling.alpha": (0.0,),
    _P + "rope.scaling.yarn_log_multiplier": (0.0,),
    _P + "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    _P + "rope.scaling.yarn_attn_factor": (-1.0, 1.0),
    "split.count": (0, 1),
    "adapter.type": (),
}


# From a header


def read_gguf_config(header: GgufHeader, dtype: str, rope_factors: np.ndarray | None) -> LlamaConfig:
    """The hyper-parameters that a header states.

    Args:
        dtype: what the tensors are read as.
        rope_factors: the values of ``rope_freqs.weight``, [D/2], or None: what each rotary frequency is divided by.

    Raises:
        ConfigError: with file, key, expected and actual value.
    """
    values = Values(header.metadata, header.path)
    architecture = header.metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise values.error(
            "general.architecture",
            f"the architecture is {architecture!r}",
            ARCHITECTURE,
            "only Llama's graph is known here; get another model in Hugging Face's form",
        )
    _check_keys(values)
    heads = values.count(_P + "attention.head_count")
    key_heads = _one(values, _P + "attention.head_count_kv")
    hidden = values.count(_P + "embedding_length")
    head_dim = values.count(_P + "attention.key_length", None) or hidden // heads
    for key in (_P + "attention.value_length", _P + "rope.dimension_count"):
        if values.count(key, head_dim) != head_dim:
            raise values.error(
                key, f"{key} is not the head dimension", str(head_dim), "every Llama rotates whole heads"
            )
    context = values.count(_P + "context_length")
    theta = values.positive(_P + "rope.freq_base", 10000.0)
    has = header.tensors.keys()
    fields: dict[str, Any] = dict(
        vocab_size=_vocab_size(values, header.tensors),
        hidden_size=hidden,
        intermediate_size=_one(values, _P + "feed_forward_length"),
        num_hidden_layers=values.count(_P + "block_count"),
        num_attention_heads=heads,
        num_key_value_heads=heads if key_heads is None else key_heads,
        head_dim=head_dim,
        max_position_embeddings=context,
        rms_norm_eps=values.positive(_P + "attention.layer_norm_rms_epsilon"),
        rope_theta=theta,
        rope_scaling=_read_scaling(values, head_dim, theta, context, rope_factors),
        attention_bias="blk.0.attn_output.bias" in has,
        qkv_bias="blk.0.attn_q.bias" in has and "blk.0.attn_output.bias" not in has,
        mlp_bias="blk.0.ffn_gate.bias" in has,
        tie_word_embeddings="output.weight" not in has,
        dtype=dtype,
        **_token_ids(values),
    )
    try:
        return LlamaConfig(**fields)
    except ConfigError as e:
        e.file = str(header.path)
        raise


def _check_keys(values: Values) -> None:
    for key, value in values.values.items():
        if key in _REFUSED_UNLESS and value not in _REFUSED_UNLESS[key]:
            allowed = _REFUSED_UNLESS[key]
            raise values.error(
                key,
                f"{key} is {value!r}, which changes the result and is not supported",
                " | ".join(map(repr, allowed)) or "absent",
                "join the parts of a split model with llama.cpp's gguf-split --merge" if key == "split.count" else None,
            )
        known = key in _READ or key in _HARMLESS or key in _REFUSED_UNLESS
        if key.startswith(_P) and not known:
            warnings.warn(f"{values.file}: {key[:120]} is not used", UserWarning, stacklevel=4)


def _one(values: Values, key: str) -> int | None:
    """A count; where there is one for each layer, they have to be the same. None where it is absent."""
    found = values.values.get(key)
    if isinstance(found, list) and found:
        if len(set(found)) > 1:
            raise values.error(key, f"{key} differs between layers", "one number for all layers")
        values = Values({key: found[0]}, values.file)
    return values.count(key, None) if key.endswith("_kv") else values.count(key)


def _vocab_size(values: Values, tensors: Mapping[str, GgufTensor]) -> int:
    pieces = values.values.get("tokenizer.ggml.tokens")
    count = pieces.length if isinstance(pieces, LongArray) else len(pieces) if isinstance(pieces, list) else None
    table = tensors.get("token_embd.weight")
    rows = table.shape[0] if table is not None and len(table.shape) == 2 else None
    return values.count(_P + "vocab_size", count or rows)


def _token_ids(values: Values) -> dict[str, Any]:
    sentencepiece = values.values.get("tokenizer.ggml.model") == "llama"
    key = "tokenizer.ggml.{}_token_id".format
    end = values.token_id(key("eos"), 2 if sentencepiece else None)
    more = [values.token_id(key(name)) for name in ("eot", "eom")]
    return {
        "bos_token_id": values.token_id(key("bos"), 1 if sentencepiece else None),
        "eos_token_ids": tuple(dict.fromkeys(i for i in (end, *more) if i is not None)),
        "pad_token_id": values.token_id(key("padding")),
    }


def _read_scaling(values: Values, head_dim: int, theta: float, context: int, factors) -> RopeScaling | None:
    kind = values.choice(_P + "rope.scaling.type", ("none", "linear", "yarn"), "none")
    factor = values.positive(_P + "rope.scaling.factor", values.positive(_P + "rope.scale_linear", 1.0))
    original = values.count(_P + "rope.scaling.original_context_length", None)
    if factors is not None and not (factors == 1).all():
        if kind != "none":
            raise values.error(
                _P + "rope.scaling.type", f"{ROPE_FACTORS} and {kind} scaling are combined", "one of them"
            )
        return _llama3_of(values, head_dim, theta, original, factors)
    if kind == "linear" or (kind == "none" and factor != 1.0):
        return RopeScaling("linear", factor)
    if kind == "none":
        return None
    times = values.positive(_P + "rope.scaling.attn_factor", 1.0)
    return RopeScaling(
        "yarn",
        factor,
        original or context,
        beta_fast=values.positive(_P + "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=values.positive(_P + "rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=None if times == 1.0 else times * (0.1 * math.log(factor) + 1.0),
    )


def _llama3_of(values: Values, head_dim: int, theta: float, original: int | None, factors) -> RopeScaling:
    """The scaling that the factors come from: as stated under our own key, or with the numbers of Llama 3.1 to 3.3."""
    stated = values.values.get(SCALING_KEY)
    candidates = [RopeScaling("llama3", max(1.0, float(f"{factors.max():.6g}")), original or 8192)]
    if isinstance(stated, str):
        try:
            fields = parse_object(stated.encode(), values.file, ConfigError)
            candidates.insert(0, RopeScaling(**fields))
        except TypeError as e:
            raise values.error(SCALING_KEY, f"{SCALING_KEY} is not a scaling: {e}", "fields of RopeScaling") from e
    for scaling in candidates:
        right = rope_factors(scaling, head_dim, theta)
        if right.shape == factors.shape and np.allclose(factors, right, rtol=1e-5, atol=0):
            return scaling
    raise values.error(
        ROPE_FACTORS,
        f"{ROPE_FACTORS} does not hold the factors of Llama 3's scaling",
        f"those of {candidates[-1]}",
        "the scaling's own numbers are not in the file; get the Hugging Face form of the model",
        actual=f"{len(factors)} factors from {factors.min():g} to {factors.max():g}",
    )


def rope_factors(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """[D/2]: what Llama 3's scaling divides each rotary frequency by."""
    base = default_frequencies(head_dim, theta)
    return base / llama3_frequencies(base, scaling, scaling.original_max_position_embeddings or 8192)


# To a header


def gguf_metadata(config: LlamaConfig) -> dict[str, Any]:
    """Key -> value of everything but the vocabulary.

    Raises:
        ConfigError: for what llama.cpp's graph for Llama does not compute.
    """
    scaling = config.rope_scaling or RopeScaling()
    refused = {
        "qk_norm": config.qk_norm and "norms of query and key heads",
        "sliding_window": config.sliding_window is not None and "a sliding window",
        "rope_scaling": scaling.kind == "dynamic" and "dynamic scaling",
    }
    if scaling.kind == "yarn":
        stated = scaling.attention_factor or (scaling.mscale and scaling.mscale_all_dim)
        refused["rope_scaling"] = (
            bool(stated or not scaling.truncate) and "yarn with such an attention factor or borders"
        )
    for key, what in refused.items():
        if what:
            raise ConfigError(
                f"a GGUF file of the architecture llama cannot say {what}",
                key=key,
                expected="a Llama as llama.cpp computes it",
                actual=getattr(config, key),
                hint="keep the model in Hugging Face's form",
            )
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_theta),
        "rope.dimension_count": config.head_dim,
    }
    if scaling.kind in ("linear", "yarn"):
        values |= {"rope.scaling.type": scaling.kind, "rope.scaling.factor": float(scaling.factor)}
    if scaling.kind == "yarn":
        length = scaling.original_max_position_embeddings or config.max_position_embeddings
        values |= {
            "rope.scaling.original_context_length": length,
            "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
            "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
        }
    found = {_P + key: value for key, value in values.items()}
    if scaling.kind == "llama3":
        found[SCALING_KEY] = json.dumps(dataclasses.asdict(with_length(config)))
    return found


def with_length(config: LlamaConfig) -> RopeScaling:
    """The scaling with its original length spelled out."""
    scaling = config.rope_scaling
    length = scaling.original_max_position_embeddings or config.max_position_embeddings
    return dataclasses.replace(scaling, original_max_position_embeddings=length)
