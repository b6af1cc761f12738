"""The seed's seven tests of the QKV projection, each with an assertion that the layer can break."""

import numpy as np
from seed_expected import assert_near, draw, heads, weights
from seed_originals import constants, small_x


def test_qkv_shape_preservation(subject):
    """The range of the seed's own inputs, recomputed in float64; twice and three times the weight is as much output."""
    q, k, v = subject.qkv(small_x(), *constants(4096, 0.01, 0.02, 0.03), 128)
    assert q.shape == k.shape == v.shape == (1, 2, 32, 128)
    np.testing.assert_allclose([q.min(), q.max()], [0.165400, 0.468915], atol=1e-6)
    assert_near(k, 2 * q)
    assert_near(v, 3 * q)


def test_qkv_no_nan_inf(subject):
    """There is no bias: nothing in, nothing out."""
    w = [weights(31 + n, 64, 64) for n in range(3)]
    for found in subject.qkv(np.zeros((1, 2, 64)), *w, 16):
        assert (found == 0).all()


def test_qkv_determinism(subject):
    """Three runs give the same bits in q, k and v; a token by itself gives what it gives among others."""
    x, w = draw(34, 1, 5, 64), [weights(35 + n, 64, 64) for n in range(3)]
    first, second, third = (subject.qkv(x, *w, 16) for _ in range(3))
    alone = subject.qkv(x[:, 3:4], *w, 16)
    for a, b, c, d in zip(first, second, third, alone, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
        assert_near(a[:, 3:4], d)


def test_qkv_values_differ(subject):
    """Each of the three comes from its own weight: where only that one is not zero, only its output is not."""
    x, weight, nothing = draw(38, 1, 3, 64), weights(39, 64, 64), np.zeros((64, 64))
    for n in range(3):
        found = subject.qkv(x, *(weight if m == n else nothing for m in range(3)), 16)
        assert [bool(np.any(part)) for part in found] == [m == n for m in range(3)]


def test_qkv_llama2_dimensions(subject):
    """E = 4096, H = 32, D = 128: the first, a middle and the last head."""
    x, w = draw(40, 1, 2, 4096), [weights(41 + n, 4096, 4096) for n in range(3)]
    for found, weight in zip(subject.qkv(x, *w, 128), w, strict=True):
        assert found.shape == (1, 2, 32, 128)
        for head in (0, 17, 31):
            assert_near(found[:, :, head], heads(x, weight[head * 128 : (head + 1) * 128], 128)[:, :, 0])


def test_qkv_value_ranges(subject):
    """Of unit rows, the one that x = 3 · row points along gives the largest value, which is 3 (Cauchy-Schwarz)."""
    unit = draw(44, 64, 64).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = subject.qkv(3 * unit[None], unit, unit, unit, 16)
    for part in found:
        flat = part.reshape(64, 64)
        assert np.array_equal(flat.argmax(1), np.arange(64))
        np.testing.assert_allclose(flat.max(1), 3.0, rtol=1e-5)


def test_qkv_complete_validation(subject):
    """Grouped heads, D ≠ E/H, a batch of 3: all values."""
    x, q, k, v = draw(45, 3, 4, 40), weights(46, 96, 40), weights(47, 32, 40), weights(48, 32, 40)
    for found, weight in zip(subject.qkv(x, q, k, v, 16), (q, k, v), strict=True):
        assert_near(found, heads(x, weight, 16))
