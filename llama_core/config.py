"""Hyper-parameters of a Llama, as published, and the presets with their source."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from llama_core.errors import ConfigError

#: What scales rotary frequencies or cosines lies here. Beyond, float32 would not hold what follows from it.
_SCALES, _SCALES_SHOWN = (1e-6, 1e6), "a number from 1e-6 to 1e6"
#: ε is added in float32: a smaller one would be zero or denormal there, a larger one than 1 hides the values.
_EPSILONS, _EPSILONS_SHOWN = (2.0**-126, 1.0), "a number from 1.2e-38, the least of float32, to 1"

ROPE_LAYOUTS = ("half", "interleaved")
ROPE_SCALINGS = ("default", "linear", "dynamic", "yarn", "llama3")
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length a model was first trained on.

    Attributes:
        kind: one of ``linear dynamic yarn llama3`` (``default`` for none).
        factor: how many times longer the context becomes.
        original_max_position_embeddings: the length before stretching, in tokens; None takes the model's
            ``max_position_embeddings``.
        low_freq_factor, high_freq_factor: llama3: wavelengths longer than original/low are divided by ``factor``,
            shorter than original/high are kept, those between are blended.
        beta_fast, beta_slow: yarn: pairs that turn more often than ``beta_fast`` times within the original length are
            kept, less often than ``beta_slow`` divided by ``factor``, those between are blended.
        attention_factor: yarn: multiplies cosines and sines; None for ``0.1 ln(factor) + 1``.
        mscale, mscale_all_dim: yarn: another way to state the attention factor.
        truncate: yarn: whether the borders of the blend are rounded to whole pairs.
    """

    kind: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self):
        _require(self.kind in ROPE_SCALINGS, "rope_scaling.kind", " | ".join(ROPE_SCALINGS), self.kind)
        for key in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"):
            value = getattr(self, key)
            _require(_is_within(value, *_SCALES), f"rope_scaling.{key}", _SCALES_SHOWN, value)
        _require(self.factor >= 1 or self.kind == "default", "rope_scaling.factor", "at least 1", self.factor)
        for key in ("attention_factor", "mscale", "mscale_all_dim"):
            value = getattr(self, key)
            _require(value is None or _is_within(value, *_SCALES), f"rope_scaling.{key}", _SCALES_SHOWN, value)
        length = self.original_max_position_embeddings
        _require(
            length is None or _is_count(length), "rope_scaling.original_max_position_embeddings", "a count", length
        )
        if self.kind == "llama3":
            _require(
                self.low_freq_factor < self.high_freq_factor,
                "rope_scaling.low_freq_factor",
                f"less than high_freq_factor ({self.high_freq_factor})",
                self.low_freq_factor,
            )


@dataclass(frozen=True)
class LlamaConfig:
    """Hyper-parameters of a Llama, under the names of the published ``config.json`` files.

    Attributes:
        vocab_size: V. hidden_size: E. intermediate_size: F. num_hidden_layers: L.
        num_attention_heads: H. num_key_value_heads: K, a divisor of H; None for H.
        head_dim: D; None for E / H.
        max_position_embeddings: the context length in tokens.
        rms_norm_eps: ε, added under the root of every norm, at most 1.
        rope_theta: base of the rotary wavelengths, at least 1.
        rope_scaling: None, or how the frequencies are stretched.
        rope_layout: ``half`` pairs coordinate i with i + D/2 (Hugging Face files), ``interleaved`` pairs 2i with
            2i + 1 (Meta, llama.cpp). It says how the rows of q_proj and k_proj are ordered.
        attention_bias: q_proj, k_proj, v_proj and o_proj have a bias. mlp_bias: the feed-forward projections have one.
        qkv_bias: q_proj, k_proj and v_proj have a bias, o_proj has none (Qwen2).
        qk_norm: every head of q and k is normalised before it is rotated, with weights of its own (Qwen3).
        sliding_window: a query sees its own position and the ``sliding_window - 1`` before it (Mistral); None: all.
        tie_word_embeddings: the output head is the embedding matrix.
        dtype: what the weights are stored in.
        bos_token_id: starts a text. eos_token_ids: any of these ends it. pad_token_id: fills short rows.

    Raises:
        ConfigError: naming the field, what it may be and what it was.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_layout: str = "half"
    attention_bias: bool = False
    mlp_bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    tie_word_embeddings: bool = False
    dtype: str = "float32"
    bos_token_id: int | None = 1
    eos_token_ids: tuple[int, ...] = (2,)
    pad_token_id: int | None = None

    def __post_init__(self):
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        for key in (*sizes, "max_position_embeddings"):
            _require(_is_count(getattr(self, key)), key, "a whole number > 0", getattr(self, key))
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if self.head_dim is None:
            _require(
                self.hidden_size % self.num_attention_heads == 0,
                "head_dim",
                f"given, because hidden_size {self.hidden_size} is no multiple of "
                f"num_attention_heads {self.num_attention_heads}",
                None,
            )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        kv_heads, head_dim = self.num_key_value_heads, self.head_dim
        _require(
            _is_count(kv_heads) and self.num_attention_heads % kv_heads == 0,
            "num_key_value_heads",
            f"a divisor of num_attention_heads ({self.num_attention_heads})",
            kv_heads,
        )
        _require(_is_count(head_dim) and head_dim % 2 == 0, "head_dim", "an even number > 0 (it is rotated)", head_dim)
        _require(_is_within(self.rms_norm_eps, *_EPSILONS), "rms_norm_eps", _EPSILONS_SHOWN, self.rms_norm_eps)
        _require(_is_within(self.rope_theta, 1.0, 1e30), "rope_theta", "a number from 1 to 1e30", self.rope_theta)
        scaling = self.rope_scaling
        _require(scaling is None or isinstance(scaling, RopeScaling), "rope_scaling", "a RopeScaling or None", scaling)
        if scaling is not None and scaling.kind == "yarn":
            _require(self.rope_theta != 1, "rope_theta", "other than 1 with yarn", self.rope_theta)
        if scaling is not None and scaling.kind == "dynamic":
            _require(self.head_dim > 2, "head_dim", "above 2 with dynamic rope_scaling", self.head_dim)
        _require(self.rope_layout in ROPE_LAYOUTS, "rope_layout", " | ".join(ROPE_LAYOUTS), self.rope_layout)
        for key in ("attention_bias", "mlp_bias", "qkv_bias", "qk_norm", "tie_word_embeddings"):
            _require(isinstance(getattr(self, key), bool), key, "true or false", getattr(self, key))
        window = self.sliding_window
        _require(window is None or _is_count(window), "sliding_window", "a whole number > 0, or None", window)
        _require(self.dtype in DTYPES, "dtype", " | ".join(DTYPES), self.dtype)
        _require(isinstance(self.eos_token_ids, tuple), "eos_token_ids", "a tuple of token ids", self.eos_token_ids)
        for key, ids in (
            ("bos_token_id", (self.bos_token_id,)),
            ("eos_token_ids", self.eos_token_ids),
            ("pad_token_id", (self.pad_token_id,)),
        ):
            for i in ids:
                ok = i is None or (_is_whole(i) and -1 <= i < self.vocab_size)
                _require(ok, key, f"a token id below vocab_size ({self.vocab_size})", i)

    @property
    def num_parameters(self) -> int:
        """The number of trained parameters, a tied head counted once."""
        e, f = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = 2 * e * q + 2 * e * kv + self.attention_bias * e + 2 * self.head_dim * self.qk_norm
        attention += (self.attention_bias or self.qkv_bias) * (q + 2 * kv)
        feed_forward = 3 * e * f + self.mlp_bias * (2 * f + e)
        embeddings = self.vocab_size * e * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * (attention + feed_forward + 2 * e) + e

    def kv_cache_bytes(self, length: int, batch_size: int = 1, bytes_per_value: int = 2) -> int:
        """Bytes that keys and values of ``length`` positions take: ``2 · L · B · K · T · D · bytes_per_value``."""
        per_position = 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim
        return per_position * length * batch_size * bytes_per_value

    def replace(self, **changes: Any) -> LlamaConfig:
        """A copy with some fields changed, checked like any other."""
        return dataclasses.replace(self, **changes)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and 0 < value < 2**31


def _is_within(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _require(condition: bool, key: str, expected: str, actual: Any) -> None:
    if not condition:
        raise ConfigError(f"{key} is {actual!r}, but must be {expected}", key=key, expected=expected, actual=actual)
