"""A model in numpy that sums back to front: every checkpoint from 1 to 8 and 10, float32 inside."""

import math

import numpy as np
from right import loops


def _dot(a, b):
    """a @ b in float32, the products summed one by one from the last to the first."""
    a, b = np.float32(a), np.float32(b)
    total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.float32)
    for i in reversed(range(a.shape[-1])):
        total = total + a[..., i, None] * b[..., None, i, :]
    return total


def norm(x, weight, eps):
    x = np.float32(x)
    total = _dot(x[..., None, :], x[..., :, None])[..., 0]
    return np.float32(weight) * (x / np.sqrt(total / np.float32(x.shape[-1]) + np.float32(eps)))


def linear(x, weights, name):
    y = _dot(x, weights[f"{name}.weight"].T)
    return y + np.float32(weights[f"{name}.bias"]) if f"{name}.bias" in weights else y


def rotate(x, positions, config):
    """Every pair as a complex number, times e^(i p f)."""
    s = config.rope_scaling
    stretch = 0.1 * math.log(s.factor) + 1 if s and s.kind == "yarn" else 1.0
    half = config.head_dim // 2
    lengths = positions.max(1) + 1
    f = np.array([[loops.frequency(i, config, int(n)) for i in range(half)] for n in lengths])
    turn = np.exp(1j * (np.maximum(positions, 0)[..., None] * f[:, None])).astype(np.complex64)[
        :, :, None
    ] * np.float32(stretch)
    if config.rope_layout == "half":
        z = (x[..., :half] + 1j * x[..., half:]).astype(np.complex64) * turn
        return np.concatenate([z.real, z.imag], -1)
    z = (x[..., 0::2] + 1j * x[..., 1::2]).astype(np.complex64) * turn
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def attend(q, k, v, positions, key_positions, window):
    """q [B, S, H, D], k and v [B, K, T, D]. Without the maximum: these scores are too small to overflow."""
    group = q.shape[2] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    scores = _dot(np.float32(q.transpose(0, 2, 1, 3)) / np.float32(math.sqrt(q.shape[-1])), k.swapaxes(-1, -2))
    back = positions[:, None, :, None] - key_positions[:, None, None]
    seen = (key_positions[:, None, None] >= 0) & (back >= 0) & (back < (window or np.inf))
    weights = np.where(seen, np.exp(scores), np.float32(0))
    total = weights[..., ::-1].cumsum(-1)[..., -1:]
    return (_dot(weights, v) / np.where(total == 0, np.float32(1), total)).transpose(0, 2, 1, 3)


def silu(x):
    return x * (np.float32(0.5) + np.float32(0.5) * np.tanh(x / np.float32(2)))


def feed_forward(x, weights):
    hidden = silu(linear(x, weights, "mlp.gate_proj")) * linear(x, weights, "mlp.up_proj")
    return linear(hidden, weights, "mlp.down_proj")


def heads(x, weights, name, config):
    y = linear(x, weights, f"self_attn.{name}_proj")
    y = y.reshape(*x.shape[:-1], -1, config.head_dim)
    weight = weights.get(f"self_attn.{name}_norm.weight")
    return y if weight is None else norm(y, weight, config.rms_norm_eps)


def block(x, positions, weights, config, past=None, past_positions=None):
    normed = norm(x, weights["input_layernorm.weight"], config.rms_norm_eps)
    q, k, v = (heads(normed, weights, name, config) for name in "qkv")
    q, k = rotate(q, positions, config), rotate(k, positions, config)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    key_positions = positions
    if past is not None:
        k, v = (np.concatenate(pair, axis=2) for pair in zip(past, (k, v), strict=True))
        key_positions = np.concatenate([past_positions, positions], axis=1)
    context = attend(q, k, v, positions, key_positions, config.sliding_window)
    h = x + linear(context.reshape(*x.shape[:2], -1), weights, "self_attn.o_proj")
    normed = norm(h, weights["post_attention_layernorm.weight"], config.rms_norm_eps)
    return h, h + feed_forward(normed, weights), (k, v)


def model(ids, positions, weights, config, pasts=None, past_positions=None):
    x = np.float32(weights["embed_tokens.weight"])[ids]
    hidden, caches = [], []
    for n in range(config.num_hidden_layers):
        prefix = f"layers.{n}."
        of_layer = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        past = pasts[n] if pasts else None
        _, x, cache = block(x, positions, of_layer, config, past, past_positions)
        hidden.append(x)
        caches.append(cache)
    x = norm(x, weights["norm.weight"], config.rms_norm_eps)
    return linear(x, {"head.weight": weights["lm_head.weight"]}, "head"), hidden, caches


def count(mask):
    return np.where(mask != 0, np.cumsum(mask != 0, 1) - 1, -1)


def run_1(inputs, weights, config):
    return norm(inputs["layer_input"], weights["input_layernorm.weight"], config.rms_norm_eps)


def run_1b(inputs, weights, config):
    q, k = (rotate(inputs[name], inputs["position_ids"], config) for name in "qk")
    return {"q_rotated": q, "k_rotated": k, "v": inputs["v"]}


def run_2(inputs, weights, config):
    return tuple(heads(inputs["attention_norm"], weights, name, config) for name in "qkv")


def run_3(inputs, weights, config):
    names = ("q_rotated", "cache_k", "cache_v", "position_ids", "key_positions")
    return attend(*(inputs[name] for name in names), config.sliding_window)


def run_4(inputs, weights, config):
    x = inputs["attention_context"]
    return linear(x.reshape(*x.shape[:2], -1), weights, "self_attn.o_proj")


def run_5(inputs, weights, config):
    return feed_forward(inputs["ffn_norm"], weights)


def run_6(inputs, weights, config):
    h, y, _ = block(np.float32(inputs["layer_input"]), inputs["position_ids"], weights, config)
    return {"attention_residual": h, "output": y}


def run_7(inputs, weights, config):
    logits, hidden, _ = model(inputs["input_ids"], count(inputs["attention_mask"]), weights, config)
    return {f"layers.{n}.output": x for n, x in enumerate(hidden)} | {"logits": logits}


def run_8(inputs, weights, config):
    ids, positions = inputs["input_ids"], count(inputs["attention_mask"])
    logits = np.zeros((*ids.shape, config.vocab_size), np.float32)
    pasts = None
    for begin, end in inputs["calls"]:
        if pasts:
            pasts = [tuple(x[:, :, :begin] for x in past) for past in pasts]
        new = slice(begin, end)
        logits[:, new], _, pasts = model(ids[:, new], positions[:, new], weights, config, pasts, positions[:, :begin])
    caches = {f"layers.{n}.cache_{name}": x for n, past in enumerate(pasts) for name, x in zip("kv", past, strict=True)}
    return caches | {"logits": logits, "position_ids": positions}


RUNS = {"1": run_1, "1B": run_1b, "2": run_2, "3": run_3, "4": run_4, "5": run_5, "6": run_6, "7": run_7, "8": run_8}
