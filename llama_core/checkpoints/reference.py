"""Llama in numpy, written from the formulas: the judge of every implementation.

Imports nothing from ``layers/``: two derivations that agree are evidence, one that agrees with itself is not. Each
function computes one step of the dataflow (``steps.py``) and takes the context it runs in: hyper-parameters, the
values so far, and the arithmetic, which is float64 for the reference itself.
"""

from __future__ import annotations

import math

import numpy as np

from llama_core.checkpoints.context import Context

Array = np.ndarray

#: See ``Arithmetic.angles``.
INEXACT = 1 + 2**-23


# Checkpoint 1


def rms_norm(ctx: Context, x: Array, weight: Array) -> Array:
    """x / √(mean(x²) + ε) · w."""
    ar = ctx.arithmetic
    x = ar.widen(x)
    normed = x / np.sqrt(ar.sum(x * x) / x.shape[-1] + ctx.config.rms_norm_eps)
    return normed * weight if ar.norm_casts_last else ar.round(normed) * weight


# Checkpoint 1B


def pair_frequencies(ctx: Context, length: int) -> Array:
    """Radians per position of each pair, with the configuration's scaling; ``length`` matters for dynamic only."""
    config, s = ctx.config, ctx.config.rope_scaling
    d, theta = config.head_dim, config.rope_theta
    kind = s.kind if s else "default"
    original = (s.original_max_position_embeddings if s else None) or config.max_position_embeddings
    if kind == "dynamic":
        longest = max(length, config.max_position_embeddings)
        growth = s.factor * longest / config.max_position_embeddings - (s.factor - 1)
        theta = theta * growth ** (d / (d - 2))
    base = np.array([theta ** (-2 * i / d) for i in range(d // 2)])
    if kind == "linear":
        return base / s.factor
    if kind == "llama3":
        return np.array([_llama3_frequency(f, s, original) for f in base])
    if kind == "yarn":
        return _yarn_frequencies(base, s, original, d, theta)
    return base


def _llama3_frequency(frequency: float, s, original: int) -> float:
    """Long wavelengths are stretched, short ones kept, a smooth band between."""
    wavelength = 2 * math.pi / frequency
    if wavelength < original / s.high_freq_factor:
        return frequency
    if wavelength > original / s.low_freq_factor:
        return frequency / s.factor
    smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    return (1 - smooth) * frequency / s.factor + smooth * frequency


def _yarn_frequencies(base: Array, s, original: int, d: int, theta: float) -> Array:
    """Interpolated (divided by the factor) below, extrapolated (kept) above, a ramp over the pairs between."""
    borders = [
        d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (s.beta_fast, s.beta_slow)
    ]
    if s.truncate:
        borders = [math.floor(borders[0]), math.ceil(borders[1])]
    low, high = max(borders[0], 0), min(borders[1], d - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)
    return base / s.factor * ramp + base * (1 - ramp)


def attention_factor(ctx: Context) -> float:
    """What yarn multiplies cosines and sines by; 1 for every other scaling."""
    s = ctx.config.rope_scaling
    if s is None or s.kind != "yarn":
        return 1.0
    if s.attention_factor is not None:
        return s.attention_factor
    log = math.log(s.factor)
    if s.mscale and s.mscale_all_dim:
        return (0.1 * s.mscale * log + 1) / (0.1 * s.mscale_all_dim * log + 1)
    return 0.1 * log + 1


def angles(ctx: Context, position_ids: Array, frequencies: Array | None = None) -> Array:
    """[B, S, 1, D/2]: position times frequency; padding (-1) counts as position 0."""
    positions = np.maximum(position_ids, 0)
    rows = []
    for row in positions:
        f = pair_frequencies(ctx, int(row.max()) + 1) if frequencies is None else frequencies
        if ctx.arithmetic.float32_tables and ctx.arithmetic.angles == "chained":
            rows.append(_chained_angles(row, f, ctx.config.rope_theta))
        elif ctx.arithmetic.float32_tables:
            f = (f * INEXACT if ctx.arithmetic.angles == "inexact" else f).astype(np.float32)
            rows.append((row[:, None].astype(np.float32) * f).astype(np.float64))
        else:
            rows.append(row[:, None] * f)
    return np.stack(rows)[:, :, None, :]


def _chained_angles(positions: Array, frequencies: Array, theta: float) -> Array:
    """[S, D/2]: position, times ``theta^(-2/D)`` once more for each pair, in float32; then times what scaling does."""
    unscaled = theta ** (-np.arange(len(frequencies)) / len(frequencies))
    factors = np.full((len(positions), len(frequencies)), theta ** (-1 / len(frequencies)), np.float32)
    factors[:, 0] = positions
    in_turn = np.multiply.accumulate(factors, axis=1)
    return (in_turn * (frequencies / unscaled).astype(np.float32)).astype(np.float64)


def rotate(ctx: Context, x: Array, phi: Array, layout: str | None = None) -> Array:
    """(a, b) -> (a cos φ - b sin φ, b cos φ + a sin φ) for every pair (a, b)."""
    ar, factor = ctx.arithmetic, attention_factor(ctx)
    cos, sin = np.cos(phi) * factor, np.sin(phi) * factor
    if ar.float32_tables:
        cos, sin = cos.astype(np.float32), sin.astype(np.float32)
    if ar.rounded_tables:
        cos, sin = ar.round(cos), ar.round(sin)
    x = ar.widen(x)
    out = np.empty(x.shape, np.float64)
    a, b = pair_members(x.shape[-1], layout or ctx.config.rope_layout)
    out[..., a] = x[..., a] * cos - x[..., b] * sin
    out[..., b] = x[..., b] * cos + x[..., a] * sin
    return out


def pair_members(head_dim: int, layout: str) -> tuple[Array, Array]:
    """The coordinates of the first and of the second member of every pair."""
    i = np.arange(head_dim // 2)
    return (i, i + head_dim // 2) if layout == "half" else (2 * i, 2 * i + 1)


def rotated(ctx: Context, x: Array, position_ids: Array) -> Array:
    """Every pair turned by position · frequency."""
    return rotate(ctx, x, angles(ctx, position_ids))


# Checkpoints 2 and 4


def linear(ctx: Context, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x Wᵀ + b."""
    y = ctx.arithmetic.matmul(ctx.arithmetic.round_input(x), weight.T)
    return y if bias is None else y + bias


def project_heads(ctx: Context, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x Wᵀ + b, split into consecutive heads of D coordinates."""
    y = linear(ctx, x, weight, bias)
    return y.reshape(*y.shape[:-1], -1, ctx.config.head_dim)


def project_query(ctx: Context, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The query heads; where the model has a norm for them (Qwen3), each head normalised."""
    return _head_norm(ctx, project_heads(ctx, x, weight, bias), "self_attn.q_norm.weight")


def project_key(ctx: Context, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The key heads, likewise."""
    return _head_norm(ctx, project_heads(ctx, x, weight, bias), "self_attn.k_norm.weight")


def _head_norm(ctx: Context, heads: Array, name: str) -> Array:
    weight = ctx.weight(name)
    return heads if weight is None else rms_norm(ctx, ctx.arithmetic.round(heads), weight)


def project_output(ctx: Context, context: Array, weight: Array, bias: Array | None = None) -> Array:
    """The heads side by side, times Woᵀ."""
    return linear(ctx, context.reshape(*context.shape[:-2], -1), weight, bias)


# Checkpoints 3 and 8


def count_positions(ctx: Context, attention_mask: Array) -> Array:
    """How many real tokens of the row come before each new token; -1 for padding. The past counts too."""
    before = np.cumsum(attention_mask != 0, axis=1) - 1
    past = attention_mask.shape[1] - ctx.values["input_ids"].shape[1]
    return np.where(attention_mask != 0, before, -1)[:, past:]


def extend_positions(ctx: Context, position_ids: Array) -> Array:
    """[B, T]: the position in every slot that attention reads, -1 for padding."""
    past = ctx.past.get("key_positions")
    return position_ids if past is None else np.concatenate([past, position_ids], axis=1)


def extend_keys(ctx: Context, k_rotated: Array) -> Array:
    """The new keys behind those of earlier calls."""
    return _extend(ctx.past.get(ctx.prefix + "cache_k"), k_rotated)


def extend_values(ctx: Context, v: Array) -> Array:
    """The new values behind those of earlier calls."""
    return _extend(ctx.past.get(ctx.prefix + "cache_v"), v)


def _extend(past: Array | None, new: Array) -> Array:
    new = new.transpose(0, 2, 1, 3)
    return new if past is None else np.concatenate([past, new], axis=2)


def repeat_heads(x: Array, num_heads: int) -> Array:
    """[B, K, ...] -> [B, H, ...]: each key/value head serves H/K consecutive query heads."""
    return np.repeat(x, num_heads // x.shape[1], axis=1)


def raw_scores(ctx: Context, q_rotated: Array, cache_k: Array) -> Array:
    """q · k for every head, query and key, without the scale."""
    q = q_rotated.transpose(0, 2, 1, 3)
    return ctx.arithmetic.matmul(q, repeat_heads(cache_k, q.shape[1]).swapaxes(-1, -2))


def scores(ctx: Context, q_rotated: Array, cache_k: Array) -> Array:
    """q · k / √D."""
    raw = raw_scores(ctx, q_rotated, cache_k)
    raw = ctx.arithmetic.round(raw) if ctx.arithmetic.rounded_products else raw
    return raw / math.sqrt(q_rotated.shape[-1])


def visible(position_ids: Array, key_positions: Array, window: int | None = None) -> Array:
    """[B, 1, S, T]: the slot is written, is not padding, not after the query, and less than the window before it."""
    keys = key_positions[:, None, None, :]
    distance = position_ids[:, None, :, None] - keys
    return (keys >= 0) & (distance >= 0) & (distance < (window or np.inf))


def masked_scores(ctx: Context, scores: Array, position_ids: Array, key_positions: Array) -> Array:
    """The score where the query may see the key, -inf where not."""
    return np.where(visible(position_ids, key_positions, ctx.config.sliding_window), scores, -np.inf)


def softmax(ctx: Context, x: Array, axis: int = -1) -> Array:
    """exp(x) / Σ exp(x); zeros where every entry is -inf."""
    x = ctx.arithmetic.widen(x)
    top = x.max(axis, keepdims=True)
    e = np.exp(x - np.where(np.isneginf(top), 0, top))
    total = ctx.arithmetic.sum(e, axis)
    return e / np.where(total == 0, 1, total)


def attention_weights(ctx: Context, masked_scores: Array) -> Array:
    """softmax over the keys; zeros for a query that sees none."""
    return softmax(ctx, masked_scores)


def attention_context(ctx: Context, attention_weights: Array, cache_v: Array) -> Array:
    """Σ weight · v, back to [B, S, H, D]."""
    v = repeat_heads(cache_v, attention_weights.shape[1])
    return ctx.arithmetic.matmul(attention_weights, v).transpose(0, 2, 1, 3)


# Checkpoints 5, 6 and 7


def silu(ctx: Context, gate: Array) -> Array:
    """z · sigmoid(z)."""
    z = ctx.arithmetic.widen(gate)
    with np.errstate(over="ignore"):
        return z / (1 + np.exp(-z))


def product(ctx: Context, a: Array, b: Array) -> Array:
    """a ⊙ b."""
    return a * b


def add(ctx: Context, a: Array, b: Array) -> Array:
    """a + b."""
    return a + b


def embed(ctx: Context, input_ids: Array, table: Array) -> Array:
    """The row of the table for each id."""
    return table[input_ids]


def head(ctx: Context, final_norm: Array, weight: Array) -> Array:
    """Logits; a tied head is the embedding matrix."""
    return linear(ctx, final_norm, weight)
