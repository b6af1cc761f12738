"""Expected values of the seed's tests: the formulas in float64, one after the other, as anyone would write them."""

import numpy as np

from llama_core.checkpoints.random_bits import uniform

#: Of the root mean square; llama_core in float32 stays within 4e-6 in all of these tests.
NEAR = 2e-5


def assert_near(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    unit = np.sqrt(np.mean(expected.astype(np.float64) ** 2)) or 1.0
    worst = np.abs(found - expected).max() / unit
    assert worst <= NEAR, f"{worst:.2g} of the root mean square"


def draw(seed, *shape, std=1.0):
    return uniform(1000 + seed, shape, std)


def weights(seed, rows, columns):
    return draw(seed, rows, columns, std=columns**-0.5)


def positions(start, x):
    return np.tile(start + np.arange(x.shape[1]), (len(x), 1))


def turned(x, at, layout="interleaved", theta=10000.0):
    """Pair i of position p turned by p · theta^(-2i/D), as a multiplication of complex numbers."""
    d = x.shape[-1]
    phase = np.exp(1j * at[:, :, None, None] * theta ** (-np.arange(0, d, 2) / d))
    x = x.astype(np.float64)
    if layout == "interleaved":
        y = (x[..., ::2] + 1j * x[..., 1::2]) * phase
        return np.stack([y.real, y.imag], -1).reshape(x.shape)
    y = (x[..., : d // 2] + 1j * x[..., d // 2 :]) * phase
    return np.concatenate([y.real, y.imag], -1)


def heads(x, weight, head_dim):
    """x Wᵀ, head h from rows h·D to (h + 1)·D."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    rows = [x @ weight[n : n + head_dim].T for n in range(0, len(weight), head_dim)]
    return np.stack(rows, -2)


def attended(q, k, v):
    """Causal attention, a query and a head at a time; the queries are the last positions; heads side by side."""
    (b, s, h, d), t, group = q.shape, k.shape[1], q.shape[2] // k.shape[2]
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out = np.zeros((b, s, h * d))
    for row, n, head in np.ndindex(b, s, h):
        seen = slice(0, t - s + n + 1)
        scores = k[row, seen, head // group] @ q[row, n, head] / np.sqrt(d)
        e = np.exp(scores - scores.max())
        out[row, n, head * d : (head + 1) * d] = e / e.sum() @ v[row, seen, head // group]
    return out
