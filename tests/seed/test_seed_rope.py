"""The seed's seven tests of RoPE, each with an assertion that the layer can break. Pair-interleaved, as in the seed."""

import numpy as np
import torch
from seed_expected import assert_near, draw, positions, turned
from seed_originals import waves
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


def test_rope_shape_preservation(subject):
    """The ranges of the seed's own inputs, recomputed in float64 for both layouts; [1, 2, 32, 128], positions 0, 1."""
    q, k = waves()
    q_rotated, k_rotated = subject.rope(q, k, positions(0, q))
    assert q_rotated.shape == k_rotated.shape == (1, 2, 32, 128)
    expected = [-0.706382, 0.706054, -0.500000, 0.706645]
    found = [q_rotated.min(), q_rotated.max(), k_rotated.min(), k_rotated.max()]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    half, _ = subject.rope(q, k, positions(0, q), layout="half")
    np.testing.assert_allclose([half.min(), half.max()], [-0.705081, 0.706258], atol=1e-6)


def test_rope_no_nan_inf(subject):
    """A rotation keeps the length of every pair."""
    q, k = waves()
    for found, x in zip(subject.rope(q, k, positions(300, q)), (q, k), strict=True):
        lengths = [np.hypot(a[..., ::2], a[..., 1::2]) for a in (found, x)]
        assert_near(*lengths)


def test_rope_determinism(subject):
    """Three runs give the same bits, and tokens in another order the same bits in that order."""
    q, k = draw(21, 1, 6, 4, 32), draw(22, 1, 6, 4, 32)
    at, order = positions(5, q), [3, 0, 5, 1, 4, 2]
    first, second, third = (subject.rope(q, k, at) for _ in range(3))
    shuffled = subject.rope(q[:, order], k[:, order], at[:, order])
    for a, b, c, d in zip(first, second, third, shuffled, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c) and np.array_equal(a[:, order], d)


def test_rope_position_dependency(subject):
    """q and k change with the position; their products depend on the difference of positions alone."""
    q, k = draw(23, 1, 5, 4, 32), draw(24, 1, 5, 4, 32)
    near, far = (subject.rope(q, k, positions(start, q)) for start in (1, 11))
    for a, b in zip(near, far, strict=True):
        assert (np.abs(a - b) > 1e-6).mean() > 0.5
    assert_near(*(np.einsum("bshd,bthd->bhst", *pair) for pair in (near, far)))
    apart = subject.rope(q, k, positions(3, q))
    moved = np.einsum("bshd,bthd->bhst", near[0], apart[1]) - np.einsum("bshd,bthd->bhst", *near)
    assert np.abs(moved).max() > 0.1


def test_rope_frequency_computation(subject):
    """The angles that the layer turns a pair by in one position: for D = 8 these are 1, 0.1, 0.01 and 0.001."""
    assert_near(_angles(subject, 8), [1, 0.1, 0.01, 0.001])
    # Llama-2: 10000^(-126/128) = 1.154782e-4, not 0.001.
    np.testing.assert_allclose(_angles(subject, 128)[-1], 1.154782e-4, rtol=1e-5)


def _angles(subject, head_dim):
    x = np.resize([1.0, 0.0], head_dim).astype(np.float32)[None, None, None]
    q, k = subject.rope(x, x, np.array([[1]]))
    assert np.array_equal(q, k)
    return np.arctan2(q[0, 0, 0, 1::2], q[0, 0, 0, ::2])


def test_rope_llama2_dimensions(subject):
    """H = 32, D = 128 in the half-rotated layout, held to transformers."""
    q, k = draw(25, 1, 2, 32, 128), draw(26, 1, 2, 32, 128)
    at = positions(50, q)
    angles = torch.tensor(at)[..., None] * 10000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
    expected = apply_rotary_pos_emb(torch.tensor(q).double(), torch.tensor(k).double(), cos, sin, unsqueeze_dim=2)
    for found, peer in zip(subject.rope(q, k, at, layout="half"), expected, strict=True):
        assert_near(found, peer.numpy())


def test_rope_complete_validation(subject):
    """Both layouts, another theta, fewer key heads, and rows of a batch at different positions."""
    q, k = draw(27, 2, 5, 4, 16), draw(28, 2, 5, 2, 16)
    at = np.stack([np.arange(3, 8), np.arange(40, 45)])
    for layout in ("interleaved", "half"):
        for found, x in zip(subject.rope(q, k, at, layout, theta=500.0), (q, k), strict=True):
            assert_near(found, turned(x, at, layout, theta=500.0))
