"""Published Llamas by name: hyper-parameters only, each with where its numbers were read.

Sources are the ``config.json`` (Hugging Face) of the named model repository, and for the parameter counts the sum over
those shapes. The 3.2 models stretch their rotary frequencies by 32, the 3.1 models by 8.
"""

from __future__ import annotations

from typing import Any

from llama_core.config import LlamaConfig, RopeScaling
from llama_core.errors import ConfigError

_LLAMA_3_1_ROPE = RopeScaling(
    kind="llama3", factor=8.0, original_max_position_embeddings=8192, low_freq_factor=1.0, high_freq_factor=4.0
)
_LLAMA_3_2_ROPE = RopeScaling(
    kind="llama3", factor=32.0, original_max_position_embeddings=8192, low_freq_factor=1.0, high_freq_factor=4.0
)


def _llama_2(**sizes) -> LlamaConfig:
    return LlamaConfig(vocab_size=32000, max_position_embeddings=4096, dtype="float16", **sizes)


def _llama_3(**changes) -> LlamaConfig:
    shared: dict[str, Any] = dict(
        vocab_size=128256,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        dtype="bfloat16",
        bos_token_id=128000,
        eos_token_ids=(128001,),
        num_key_value_heads=8,
    )
    return LlamaConfig(**(shared | changes))


_8B = dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32)
_70B = dict(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
_405B = dict(hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128)
_1B = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, head_dim=64)
_3B = dict(hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24, head_dim=128)
_LLAMA_3_1 = dict(max_position_embeddings=131072, rope_scaling=_LLAMA_3_1_ROPE)
_LLAMA_3_2 = dict(max_position_embeddings=131072, rope_scaling=_LLAMA_3_2_ROPE, tie_word_embeddings=True)

#: name -> (configuration, the repository whose config.json states it)
_PRESETS: dict[str, tuple[LlamaConfig, str]] = {
    "llama-2-7b": (
        _llama_2(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
        "meta-llama/Llama-2-7b-hf",
    ),
    "llama-2-13b": (
        _llama_2(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
        "meta-llama/Llama-2-13b-hf",
    ),
    "llama-2-70b": (_llama_2(**_70B, num_key_value_heads=8), "meta-llama/Llama-2-70b-hf"),
    "llama-3-8b": (_llama_3(**_8B), "meta-llama/Meta-Llama-3-8B"),
    "llama-3-70b": (_llama_3(**_70B), "meta-llama/Meta-Llama-3-70B"),
    "llama-3.1-8b": (_llama_3(**_8B, **_LLAMA_3_1), "meta-llama/Llama-3.1-8B"),
    "llama-3.1-70b": (_llama_3(**_70B, **_LLAMA_3_1), "meta-llama/Llama-3.1-70B"),
    "llama-3.1-405b": (_llama_3(**_405B, **_LLAMA_3_1), "meta-llama/Llama-3.1-405B"),
    "llama-3.2-1b": (_llama_3(**_1B, **_LLAMA_3_2), "meta-llama/Llama-3.2-1B"),
    "llama-3.2-3b": (_llama_3(**_3B, **_LLAMA_3_2), "meta-llama/Llama-3.2-3B"),
    "codellama-34b": (
        LlamaConfig(
            vocab_size=32000,
            hidden_size=8192,
            intermediate_size=22016,
            num_hidden_layers=48,
            num_attention_heads=64,
            num_key_value_heads=8,
            max_position_embeddings=16384,
            rope_theta=1e6,
            dtype="bfloat16",
        ),
        "codellama/CodeLlama-34b-hf",
    ),
    "tinyllama-1.1b": (
        LlamaConfig(
            vocab_size=32000,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_attention_heads=32,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            dtype="float32",
        ),
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    ),
}


def preset_names() -> list[str]:
    """The names that ``preset`` knows."""
    return list(_PRESETS)


def preset(name: str) -> LlamaConfig:
    """The hyper-parameters of a published model, e.g. ``preset("llama-2-7b")``."""
    return _entry(name)[0]


def preset_source(name: str) -> str:
    """The model repository on the Hugging Face hub whose ``config.json`` states the preset's numbers."""
    return _entry(name)[1]


def _entry(name: str) -> tuple[LlamaConfig, str]:
    if name not in _PRESETS:
        raise ConfigError(f"there is no preset {name!r}", key="preset", expected=" | ".join(_PRESETS), actual=name)
    return _PRESETS[name]
