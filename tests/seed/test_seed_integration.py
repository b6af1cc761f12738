"""The seed's four tests of QKV and RoPE together, each with an assertion that a layer can break."""

import numpy as np
from seed_expected import assert_near, draw, heads, positions, turned, weights


def projected_and_turned(subject, x, w, at):
    q, k, v = subject.qkv(x, *w, 32)
    return *subject.rope(q, k, at), v


def some_weights(seed):
    return [weights(seed + n, 128, 128) for n in range(3)]


def test_qkv_rope_integration(subject):
    """q and k are projected, then turned; v is projected alone."""
    x, w = draw(51, 2, 5, 128), some_weights(52)
    at = positions(3, x)
    q, k, v = projected_and_turned(subject, x, w, at)
    assert_near(q, turned(heads(x, w[0], 32), at))
    assert_near(k, turned(heads(x, w[1], 32), at))
    assert_near(v, heads(x, w[2], 32))


def test_rope_position_in_integration(subject):
    """The start moves q and k, and not their products."""
    x, w = draw(55, 1, 4, 128), some_weights(56)
    near, far = (projected_and_turned(subject, x, w, positions(start, x)) for start in (0, 100))
    for a, b in zip(near[:2], far[:2], strict=True):
        assert (np.abs(a - b) > 1e-6).mean() > 0.5
    found, expected = (np.einsum("bshd,bthd->bhst", q, k) for q, k, _ in (far, near))
    assert np.abs(found - expected).max() < 1e-4 * expected.std()
    assert_near(near[0], turned(heads(x, w[0], 32), positions(0, x)))


def test_edge_case_single_token(subject):
    """A token by itself, at its position, is what it is at the end of the whole text: decoding is prefill."""
    x, w = draw(59, 1, 8, 128), some_weights(60)
    at = positions(0, x)
    for whole, alone in zip(
        projected_and_turned(subject, x, w, at),
        projected_and_turned(subject, x[:, 7:], w, at[:, 7:]),
        strict=True,
    ):
        assert_near(alone, whole[:, 7:])
    assert_near(projected_and_turned(subject, x[:, 7:], w, at[:, 7:])[0], turned(heads(x[:, 7:], w[0], 32), at[:, 7:]))


def test_edge_case_large_batch(subject):
    """Each of 8 rows, at positions of its own, is what it is alone."""
    x, w = draw(63, 8, 16, 128), some_weights(64)
    at = positions(0, x) + 5 * np.arange(8)[:, None]
    together = projected_and_turned(subject, x, w, at)
    for row in range(8):
        alone = projected_and_turned(subject, x[row : row + 1], w, at[row : row + 1])
        for a, b in zip(together, alone, strict=True):
            assert_near(a[row : row + 1], b)
    assert_near(together[1], turned(heads(x, w[1], 32), at))
