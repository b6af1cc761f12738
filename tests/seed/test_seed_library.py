"""The seed's six library tests, each with an assertion that a layer can break: the originals saw shapes and NaN."""

import numpy as np
from seed_expected import assert_near, draw, heads, positions, turned, weights


def test_rms_norm_shape(subject):
    """Each row is divided by its own root mean square, whatever the others hold."""
    x, weight = draw(1, 2, 4096) * np.array([[1], [50]], np.float32), 1 + draw(2, 4096, std=0.3)
    rows = x.astype(np.float64)
    assert_near(subject.rms_norm(x, weight), rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5) * weight)


def test_rms_norm_no_nan(subject):
    """Zeros stay zeros, and of values of 1e-3 the mean square 1e-6 is small beside ε = 1e-5."""
    x = np.full((1, 2, 64), 1e-3, np.float32) * np.resize([1, -1], 64).astype(np.float32)
    x[0, 0] = 0
    found = subject.rms_norm(x, np.full(64, 2.0))
    assert (found[0, 0] == 0).all()
    # 2 · 1e-3 / √(1e-6 + 1e-5) = 0.6030227
    np.testing.assert_allclose(np.abs(found[0, 1]), 0.6030227, rtol=1e-6)


def test_rope_shape(subject):
    """Values at positions above 0, where the rotation is not the identity."""
    q, k = draw(3, 1, 2, 32, 128), draw(4, 1, 2, 32, 128)
    at = positions(7, q)
    found = subject.rope(q, k, at)
    assert_near(found[0], turned(q, at))
    assert_near(found[1], turned(k, at))


def test_rope_no_nan(subject):
    """Values at the end of Llama-2's context; an angle of 4095 in float32 is good to 2e-4."""
    q, k = draw(5, 1, 2, 4, 128), draw(6, 1, 2, 4, 128)
    at = positions(4094, q)
    for found, x in zip(subject.rope(q, k, at), (q, k), strict=True):
        assert np.abs(found - turned(x, at)).max() < 1e-3


def test_qkv_projection_shape(subject):
    """Head h of q is x times rows h·D to (h + 1)·D of q_proj; k and v likewise, with fewer heads."""
    x, q, k, v = draw(7, 2, 5, 96), weights(8, 128, 96), weights(9, 64, 96), weights(10, 64, 96)
    for found, weight in zip(subject.qkv(x, q, k, v, 32), (q, k, v), strict=True):
        assert_near(found, heads(x, weight, 32))


def test_qkv_projection_no_nan(subject):
    """A NaN in one token stays in that token."""
    x, w = draw(11, 1, 4, 64), [weights(12 + n, 64, 64) for n in range(3)]
    x[0, 1, 3] = np.nan
    for found, weight in zip(subject.qkv(x, *w, 16), w, strict=True):
        assert np.isnan(found[0, 1]).all()
        assert_near(found[:, [0, 2, 3]], heads(x[:, [0, 2, 3]], weight, 16))
