"""Checkpoints 1 to 6 as loops over plain Python floats: no array operation but indexing."""

import math

import numpy as np


def _zeros(*shape):
    return np.zeros(shape)


def norm(x, weight, eps):
    out = _zeros(*x.shape)
    for b in range(x.shape[0]):
        for s in range(x.shape[1]):
            total = 0.0
            for value in x[b, s].tolist():
                total += value * value
            scale = 1 / math.sqrt(total / x.shape[2] + eps)
            for e in range(x.shape[2]):
                out[b, s, e] = float(x[b, s, e]) * scale * float(weight[e])
    return out


def linear(x, weight, bias=None):
    rows = weight.tolist()
    flat = x.reshape(-1, x.shape[-1])
    out = _zeros(len(flat), len(rows))
    for n, row in enumerate(flat.tolist()):
        for m, w in enumerate(rows):
            total = 0.0 if bias is None else float(bias[m])
            for a, b in zip(row, w, strict=True):
                total += a * b
            out[n, m] = total
    return out.reshape(*x.shape[:-1], -1)


def frequency(i, config, length):
    """Radians per position of pair i."""
    d, theta, s = config.head_dim, config.rope_theta, config.rope_scaling
    kind = s.kind if s else "default"
    if kind == "dynamic":
        context = config.max_position_embeddings
        theta *= (s.factor * max(length, context) / context - s.factor + 1) ** (d / (d - 2))
    f = 1 / theta ** (2 * i / d)
    if kind == "linear":
        return f / s.factor
    if kind == "llama3":
        turns = s.original_max_position_embeddings * f / (2 * math.pi)
        if turns < s.low_freq_factor:
            return f / s.factor
        if turns > s.high_freq_factor:
            return f
        share = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
        return f * (share + (1 - share) / s.factor)
    if kind == "yarn":
        index = [
            d * math.log(s.original_max_position_embeddings / (2 * math.pi * turns)) / (2 * math.log(theta))
            for turns in (s.beta_fast, s.beta_slow)
        ]
        low, high = max(math.floor(index[0]), 0), min(math.ceil(index[1]), d - 1)
        share = min(max((i - low) / (high - low), 0), 1)
        return f * (1 - share) + f / s.factor * share
    return f


def rotate(x, positions, config):
    s = config.rope_scaling
    stretch = 0.1 * math.log(s.factor) + 1 if s and s.kind == "yarn" else 1.0
    half = config.head_dim // 2
    out = _zeros(*x.shape)
    for b in range(x.shape[0]):
        length = int(positions[b].max()) + 1
        for t in range(x.shape[1]):
            for i in range(half):
                angle = max(int(positions[b, t]), 0) * frequency(i, config, length)
                cos, sin = math.cos(angle) * stretch, math.sin(angle) * stretch
                first, second = (i, i + half) if config.rope_layout == "half" else (2 * i, 2 * i + 1)
                for h in range(x.shape[2]):
                    u, w = float(x[b, t, h, first]), float(x[b, t, h, second])
                    out[b, t, h, first] = u * cos - w * sin
                    out[b, t, h, second] = w * cos + u * sin
    return out


def attend(q, k, v, positions, key_positions, window):
    """q [B, S, H, D], k and v [B, K, T, D]; one pass over the keys with a running maximum, as in flash attention."""
    batch, queries, heads, d = q.shape
    group = heads // k.shape[1]
    out = _zeros(*q.shape)
    for b in range(batch):
        for s in range(queries):
            for h in range(heads):
                top, total, mean = -math.inf, 0.0, [0.0] * d
                for t in range(k.shape[2]):
                    if not 0 <= key_positions[b, t] <= positions[b, s]:
                        continue
                    if window and key_positions[b, t] + window <= positions[b, s]:
                        continue
                    key, value = k[b, h // group, t].tolist(), v[b, h // group, t].tolist()
                    score = sum(x * y for x, y in zip(q[b, s, h].tolist(), key, strict=True)) / math.sqrt(d)
                    new_top = max(top, score)
                    keep, weight = math.exp(top - new_top), math.exp(score - new_top)
                    total = total * keep + weight
                    mean = [m * keep + weight * x for m, x in zip(mean, value, strict=True)]
                    top = new_top
                if total:
                    out[b, s, h] = [m / total for m in mean]
    return out


def feed_forward(x, weights):
    gate = linear(x, weights["mlp.gate_proj.weight"], weights.get("mlp.gate_proj.bias"))
    up = linear(x, weights["mlp.up_proj.weight"], weights.get("mlp.up_proj.bias"))
    hidden = _zeros(*gate.shape)
    for place in np.ndindex(gate.shape):
        hidden[place] = gate[place] / (1 + math.exp(-gate[place])) * up[place]
    return linear(hidden, weights["mlp.down_proj.weight"], weights.get("mlp.down_proj.bias"))


def _heads(x, weights, name, config):
    y = linear(x, weights[f"self_attn.{name}.weight"], weights.get(f"self_attn.{name}.bias"))
    y = y.reshape(*x.shape[:-1], -1, config.head_dim)
    weight = weights.get(f"self_attn.{name[0]}_norm.weight")
    if weight is not None:
        for h in range(y.shape[2]):
            y[:, :, h] = norm(y[:, :, h], weight, config.rms_norm_eps)
    return y


def run_1(inputs, weights, config):
    return norm(inputs["layer_input"], weights["input_layernorm.weight"], config.rms_norm_eps)


def run_1b(inputs, weights, config):
    positions = inputs["position_ids"]
    q, k = (rotate(inputs[name], positions, config) for name in "qk")
    return {"q_rotated": q, "k_rotated": k, "v": inputs["v"]}


def run_2(inputs, weights, config):
    return tuple(_heads(inputs["attention_norm"], weights, f"{name}_proj", config) for name in "qkv")


def run_3(inputs, weights, config):
    names = ("q_rotated", "cache_k", "cache_v", "position_ids", "key_positions")
    return attend(*(inputs[name] for name in names), config.sliding_window)


def run_4(inputs, weights, config):
    x = inputs["attention_context"]
    x = x.reshape(*x.shape[:2], -1)
    return linear(x, weights["self_attn.o_proj.weight"], weights.get("self_attn.o_proj.bias"))


def run_5(inputs, weights, config):
    return feed_forward(inputs["ffn_norm"], weights)


def run_6(inputs, weights, config):
    x, positions = inputs["layer_input"].astype(np.float64), inputs["position_ids"]
    normed = norm(x, weights["input_layernorm.weight"], config.rms_norm_eps)
    q, k, v = (_heads(normed, weights, f"{name}_proj", config) for name in "qkv")
    q, k = rotate(q, positions, config), rotate(k, positions, config)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    context = attend(q, k, v, positions, positions, config.sliding_window)
    h = x + run_4({"attention_context": context}, weights, config)
    normed = norm(h, weights["post_attention_layernorm.weight"], config.rms_norm_eps)
    return {"attention_residual": h, "output": h + feed_forward(normed, weights)}


RUNS = {"1": run_1, "1B": run_1b, "2": run_2, "3": run_3, "4": run_4, "5": run_5, "6": run_6}
