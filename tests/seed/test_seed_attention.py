"""The seed's seven tests of attention, each with an assertion that the layer can break."""

import numpy as np
from seed_expected import assert_near, attended, draw, heads, positions, turned, weights


def triple(seed, *shape):
    return [draw(seed + n, *shape) for n in range(3)]


def test_attention_scores_shape(subject):
    """[1, 4, 4, 32] -> [1, 4, 4, 4]: rows are queries, columns keys, q · k / √32."""
    q, k, _ = triple(71, 1, 4, 4, 32)
    found = subject.scores(q, k)
    assert found.shape == (1, 4, 4, 4)
    for head, query, key in np.ndindex(4, 4, 4):
        expected = q[0, query, head].astype(np.float64) @ k[0, key, head] / np.sqrt(32)
        assert abs(found[0, head, query, key] - expected) < 1e-5


def test_attention_scores_scaling(subject):
    """q = k = ones: 32/√32 = 5.656854 at D = 32, and 128/√128 = 11.313708 at Llama-2's D = 128."""
    for head_dim, expected in ((32, 5.656854), (128, 11.313708)):
        ones = np.ones((1, 2, 4, head_dim))
        np.testing.assert_allclose(subject.scores(ones, ones), expected, atol=2e-6)


def test_causal_mask(subject):
    """In every head the future is -inf and all else unchanged, strictly above the diagonal that ends bottom right."""
    for queries, keys in ((4, 4), (2, 5)):
        scores = draw(74, 2, 4, queries, keys)
        masked = subject.causal_mask(scores)
        for query, key in np.ndindex(queries, keys):
            hidden = key > keys - queries + query
            expected = np.full((2, 4), -np.inf) if hidden else scores[:, :, query, key]
            assert np.array_equal(masked[:, :, query, key], expected)


def test_full_attention_output(subject):
    """All values, and behind a cache with grouped heads too."""
    q, k, v = triple(75, 1, 4, 4, 32)
    found = subject.attention(q, k, v)
    assert found.shape == (1, 4, 128)
    assert_near(found, attended(q, k, v))
    q, k, v = draw(78, 2, 3, 4, 16), draw(79, 2, 7, 2, 16), draw(80, 2, 7, 2, 16)
    assert_near(subject.attention(q, k, v), attended(q, k, v))


def test_attention_determinism(subject):
    """Three runs give the same bits, and what comes later changes nothing."""
    q, k, v = triple(81, 1, 5, 4, 32)
    first, second, third = (subject.attention(q, k, v) for _ in range(3))
    assert np.array_equal(first, second) and np.array_equal(first, third)
    k[:, 3:], v[:, 3:] = 7, -7
    later = subject.attention(q, k, v)
    assert_near(later[:, :3], first[:, :3])
    assert np.abs(later[:, 3:] - first[:, 3:]).max() > 0.1


def test_attention_with_rope(subject):
    """x through QKV, RoPE and attention: all values."""
    x, w = draw(84, 1, 4, 128), [2 * weights(85 + n, 128, 128) for n in range(3)]
    at = positions(0, x)
    q, k, v = subject.qkv(x, *w, 32)
    found = subject.attention(*subject.rope(q, k, at), v)
    assert found.shape == (1, 4, 128)
    q, k, v = (heads(x, weight, 32) for weight in w)
    assert_near(found, attended(turned(q, at), turned(k, at), v))


def test_attention_llama2_dimensions(subject):
    """[1, 2, 32, 128] -> [1, 2, 4096], heads side by side: all values."""
    q, k, v = triple(88, 1, 2, 32, 128)
    found = subject.attention(q, k, v)
    assert found.shape == (1, 2, 4096)
    assert np.array_equal(found[0, 0], v[0, 0].reshape(-1))  # the first token sees only itself
    assert_near(found, attended(q, k, v))
