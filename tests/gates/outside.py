"""Errors that are in no catalogue: what a diagnosis must not put a name to."""

import dataclasses

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.random_bits import uniform
from llama_core.checkpoints.steps import Changes


def _then(change):
    """The right value, spoilt afterwards."""
    return lambda ctx, *arguments: change(ctx.right(ctx, *arguments))


def _zeroed(*index):
    def change(x):
        x = np.array(x)
        x[index] = 0
        return x

    return _then(change)


def _noisy(size):
    return _then(lambda x: x + uniform(5, x.shape, size * float(np.sqrt(np.mean(x * x)))).astype(np.float64))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _all(names, fn):
    return Changes(steps=dict.fromkeys(names, fn))


def _norm(fn):
    return _all(["attention_norm", "ffn_norm", "final_norm"], fn)


def _rotation(fn):
    return _all(["q_rotated", "k_rotated"], fn)


def _turned(angles):
    return _rotation(lambda ctx, x, p: r.rotate(ctx, x, angles(ctx, p)))


def _config(**values):
    return Changes(config=lambda c: c.replace(**values))


def _twice_the_factor(c):
    s = c.rope_scaling
    return c if s is None else c.replace(rope_scaling=dataclasses.replace(s, factor=2 * s.factor))


def _half_turned(ctx, x, p):
    """Only the first half of the pairs."""
    phi = r.angles(ctx, p).copy()
    phi[..., phi.shape[-1] // 2 :] = 0
    return r.rotate(ctx, x, phi)


def _cos_for_sin(ctx, x, p):
    return r.rotate(ctx, x, np.pi / 2 - r.angles(ctx, p))


def _only_head_0(ctx, x, p):
    turned = np.array(x, np.float64)
    turned[:, :, :1] = ctx.right(ctx, x[:, :, :1], p)
    return turned


def _window(ctx, scores, p, keys):
    near = keys[:, None, None, :] > p[:, None, :, None] - 3
    return np.where(r.visible(p, keys) & near, scores, -np.inf)


def _first_hidden(ctx, scores, p, keys):
    return np.where(r.visible(p, keys) & (keys[:, None, None, :] != 0), scores, -np.inf)


def _alibi(ctx, q, k):
    scores = ctx.right(ctx, q, k)
    slopes = 2.0 ** -np.arange(1, scores.shape[1] + 1)
    return scores + slopes[:, None, None] * np.arange(scores.shape[-1])


def _unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def _sink(ctx, masked):
    e = np.exp(masked)
    return e / (1 + e.sum(-1, keepdims=True))


def _scaled_head(ctx, q, k):
    scores = ctx.right(ctx, q, k)
    scores[:, 1] *= 2
    return scores


def _uniform_head(ctx, masked):
    weights = ctx.right(ctx, masked)
    seen = np.isfinite(masked[:, 2])
    weights[:, 2] = seen / np.maximum(seen.sum(-1, keepdims=True), 1)
    return weights


def _middle_layer_skipped(ctx, h, ffn):
    return ctx.value("layer_input") if ctx.layer == 1 else h + ffn


def _last_twice(ctx, h, ffn):
    return h + 2 * ffn if ctx.layer == 2 else h + ffn


def _step(name, fn):
    return Changes(steps={name: fn})


#: (checkpoint, what is wrong, the change)
OUTSIDE = [
    ("1", "mean of absolute values", _norm(lambda ctx, x, w: x / (np.abs(x).mean(-1, keepdims=True) + 1e-5) * w)),
    ("1", "one per cent too large", _norm(_then(lambda y: 1.01 * y))),
    ("1", "weight squared", _norm(lambda ctx, x, w: ctx.right(ctx, x, w * w))),
    ("1", "weight reversed", _norm(lambda ctx, x, w: ctx.right(ctx, x, w[::-1]))),
    (
        "1",
        "largest value for root mean square",
        _norm(lambda ctx, x, w: x / (np.abs(x).max(-1, keepdims=True) + 1e-5) * w),
    ),
    ("1", "epsilon of 1e-4", _config(rms_norm_eps=1e-4)),
    ("1", "a coordinate is zero", _norm(_zeroed(..., 3))),
    ("1", "noise of 1e-3", _norm(_noisy(1e-3))),
    ("1", "median subtracted", _norm(lambda ctx, x, w: ctx.right(ctx, x - np.median(x, -1, keepdims=True), w))),
    ("1", "cube root", _norm(lambda ctx, x, w: x / np.cbrt(np.mean(x * x, -1, keepdims=True) + 1e-5) * w)),
    ("1B", "half of the pairs turned", _rotation(_half_turned)),
    ("1B", "angles a tenth too large", _turned(lambda ctx, p: 1.1 * r.angles(ctx, p))),
    ("1B", "positions two too high", _turned(lambda ctx, p: r.angles(ctx, p + 2))),
    ("1B", "positions reversed", _turned(lambda ctx, p: r.angles(ctx, p[:, ::-1]))),
    ("1B", "theta 1000", _config(rope_theta=1000.0)),
    ("1B", "cosine for sine", _rotation(_cos_for_sin)),
    ("1B", "only head 0 turned", _rotation(_only_head_0)),
    ("1B", "scaled twice as far", Changes(config=_twice_the_factor)),
    ("1B", "positions doubled", _turned(lambda ctx, p: r.angles(ctx, 2 * p))),
    ("1B", "noise of 1e-3", _rotation(_noisy(1e-3))),
    ("2", "heads reversed", _all("qkv", _then(lambda y: y[..., ::-1, :]))),
    ("2", "rows of k rolled", _step("k", _then(lambda y: np.roll(y, 1, -1)))),
    ("2", "head 1 is zero", _all("qkv", _zeroed(slice(None), slice(None), 1))),
    ("2", "q doubled", _step("q", _then(lambda y: 2 * y))),
    ("2", "v negative", _step("v", _then(lambda y: -y))),
    ("2", "bias added twice", _all("qkv", lambda ctx, x, w, b: ctx.right(ctx, x, w, None if b is None else 2 * b))),
    ("3", "one head scaled twice", _step("scores", _scaled_head)),
    ("3", "scale of √(D + 1)", _step("scores", _then(lambda s: s * np.sqrt(8 / 9)))),
    ("3", "a window of three", _step("masked_scores", _window)),
    ("3", "the first key hidden", _step("masked_scores", _first_hidden)),
    ("3", "ALiBi", _step("scores", _alibi)),
    ("3", "powers of two", _step("attention_weights", lambda ctx, m: ctx.right(ctx, m * np.log(2)))),
    ("3", "soft cap of 3", _step("scores", _then(lambda s: 3 * np.tanh(s / 3)))),
    ("3", "head 2 averages", _step("attention_weights", _uniform_head)),
    ("3", "a sink", _step("attention_weights", _sink)),
    ("3", "values of the next key", _step("attention_context", lambda ctx, w, v: ctx.right(ctx, w, np.roll(v, 1, 2)))),
    ("3", "cosine similarity", _step("scores", lambda ctx, q, k: ctx.right(ctx, _unit(q), _unit(k)))),
    ("3", "row 1 of the batch is zero", _step("attention_context", _zeroed(1))),
    ("3", "the last query is zero", _step("attention_context", _zeroed(slice(None), -1))),
    (
        "4",
        "last head dropped",
        _step("attention_output", lambda ctx, c, w, b: ctx.right(ctx, c * (np.arange(4) < 3)[:, None], w, b)),
    ),
    ("4", "negative", _step("attention_output", _then(lambda y: -y))),
    ("4", "output rows reversed", _step("attention_output", _then(lambda y: y[..., ::-1]))),
    ("5", "tanh", _step("ffn_activation", lambda ctx, z: np.tanh(z))),
    ("5", "softplus", _step("ffn_activation", lambda ctx, z: np.log1p(np.exp(z)))),
    ("5", "leaky relu", _step("ffn_activation", lambda ctx, z: np.where(z > 0, z, 0.1 * z))),
    ("5", "mish", _step("ffn_activation", lambda ctx, z: z * np.tanh(np.log1p(np.exp(z))))),
    ("5", "sum for product", _step("ffn_hidden", lambda ctx, a, up: a + up)),
    ("5", "clipped at 1", _step("ffn_hidden", _then(lambda y: np.clip(y, -1, 1)))),
    ("6", "attention halved", _step("attention_residual", lambda ctx, x, a: x + a / 2)),
    ("6", "softmax of the norm", _step("ffn_norm", _then(_softmax))),
    ("6", "output scaled", _step("output", _then(lambda y: 0.9 * y))),
    ("7", "logits capped at 3", _step("logits", _then(lambda y: 3 * np.tanh(y / 3)))),
    ("7", "embedding doubled", _step("embedding", _then(lambda y: 2 * y))),
    ("7", "middle layer skipped", _step("output", _middle_layer_skipped)),
    ("7", "last feed-forward added twice", _step("output", _last_twice)),
    ("9", "three more in top-k", _step("top_k_logits", lambda ctx, s, k: ctx.right(ctx, s, k + 3 * (k > 0)))),
    ("9", "temperature squared", _step("scaled_logits", lambda ctx, s, t: ctx.right(ctx, s, t * t))),
]
