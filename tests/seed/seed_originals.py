"""What the seed's 31 tests assert, as its list of them says, and no more.

The originals are Rust. Inputs that the list gives are those; what it calls random, or leaves open, is uniform here, and
weights that it leaves open are the constants of its other projection tests. Tests that assert nothing do so here, too.
"""

import numpy as np

from llama_core.checkpoints.random_bits import uniform

ORIGINALS = {}


def original(test):
    ORIGINALS[test.__name__] = test
    return test


def finite(*arrays):
    assert all(np.isfinite(a).all() for a in arrays)


def shapes(expected, *arrays):
    assert [list(a.shape) for a in arrays] == [expected] * len(arrays)


def differ(a, b):
    return np.abs(a - b) > 1e-6


def waves(shape=(1, 2, 32, 128)):
    i = np.arange(np.prod(shape)).reshape(shape)
    return 0.5 * np.sin(0.001 * i), 0.5 * np.cos(0.001 * i)


def at(start, x):
    return np.tile(start + np.arange(x.shape[1]), (len(x), 1))


def constants(size, *values):
    return [np.full((size, size), value) for value in values]


def small_x():
    return 0.02 * np.sin(1e-4 * np.arange(2 * 4096)).reshape(1, 2, 4096)


def norm(subject):
    return subject.rms_norm(uniform(1, (2, 4096), 1.0), np.ones(4096))


def rotated(subject, start=0):
    q, k = waves()
    return subject.rope(q, k, at(start, q))


def projected(subject, x=None):
    return subject.qkv(small_x() if x is None else x, *constants(4096, 0.01, 0.02, 0.03), 128)


@original
def test_rms_norm_shape(subject):
    shapes([2, 4096], norm(subject))


@original
def test_rms_norm_no_nan(subject):
    finite(norm(subject))


@original
def test_rope_shape(subject):
    shapes([1, 2, 32, 128], *rotated(subject))


@original
def test_rope_no_nan(subject):
    finite(*rotated(subject))


@original
def test_qkv_projection_shape(subject):
    shapes([1, 2, 32, 128], *projected(subject, uniform(2, (1, 2, 4096), 1.0)))


@original
def test_qkv_projection_no_nan(subject):
    finite(*projected(subject, uniform(2, (1, 2, 4096), 1.0)))


@original
def test_rope_shape_preservation(subject):
    shapes([1, 2, 32, 128], *rotated(subject))


@original
def test_rope_no_nan_inf(subject):
    finite(*rotated(subject))


@original
def test_rope_determinism(subject):
    first, second, third = (rotated(subject) for _ in range(3))
    assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(first, second, third, strict=True))


@original
def test_rope_position_dependency(subject):
    assert differ(rotated(subject)[0], rotated(subject, 10)[0]).mean() > 0.5


@original
def test_rope_frequency_computation(subject):
    frequencies = [10000.0 ** (-2 * i / 8) for i in range(4)]  # its own list: the layer is never asked
    assert frequencies == sorted(frequencies, reverse=True)


@original
def test_rope_llama2_dimensions(subject):
    q, k = uniform(3, (1, 2, 32, 128), 1.0), uniform(4, (1, 2, 32, 128), 1.0)
    shapes([1, 2, 32, 128], *subject.rope(q, k, at(0, q)))


@original
def test_rope_complete_validation(subject):
    rotated(subject)


@original
def test_qkv_shape_preservation(subject):
    shapes([1, 2, 32, 128], *projected(subject))


@original
def test_qkv_no_nan_inf(subject):
    finite(*projected(subject))


@original
def test_qkv_determinism(subject):
    first, second, third = (projected(subject)[0] for _ in range(3))
    assert np.array_equal(first, second) and np.array_equal(first, third)


@original
def test_qkv_values_differ(subject):
    q, k, v = projected(subject)
    assert differ(q, k).any() and differ(k, v).any()


@original
def test_qkv_llama2_dimensions(subject):
    shapes([1, 2, 32, 128], *projected(subject))


@original
def test_qkv_value_ranges(subject):
    assert all(np.abs(a).max() <= 10 for a in projected(subject))


@original
def test_qkv_complete_validation(subject):
    projected(subject)


@original
def test_qkv_rope_integration(subject):
    q, k, v = projected(subject, uniform(5, (1, 2, 4096), 1.0))
    q_rotated, k_rotated = subject.rope(q, k, at(0, q))
    shapes([1, 2, 32, 128], q_rotated, k_rotated, v)
    assert differ(q, q_rotated).any() and differ(k, k_rotated).any()
    finite(q_rotated, k_rotated, v)
    assert differ(q_rotated, k_rotated).any() and differ(k_rotated, v).any()


@original
def test_rope_position_in_integration(subject):
    q, k, _ = subject.qkv(uniform(6, (1, 4, 128), 1.0), *constants(128, 0.01, 0.02, 0.03), 32)
    near, far = subject.rope(q, k, at(0, q)), subject.rope(q, k, at(100, q))
    assert all(differ(a, b).mean() > 0.5 for a, b in zip(near, far, strict=True))


def edge_case(subject, batch, length):
    q, k, v = subject.qkv(uniform(7, (batch, length, 128), 1.0), *constants(128, 0.01, 0.02, 0.03), 32)
    q, k = subject.rope(q, k, at(0, q))
    shapes([batch, length, 4, 32], q, k, v)
    finite(q)


@original
def test_edge_case_single_token(subject):
    edge_case(subject, 1, 1)


@original
def test_edge_case_large_batch(subject):
    edge_case(subject, 8, 16)


def triple(*shape, seed=8):
    return [uniform(seed + n, shape, 1.0) for n in range(3)]


@original
def test_attention_scores_shape(subject):
    q, k, _ = triple(1, 4, 4, 32)
    shapes([1, 4, 4, 4], subject.scores(q, k))


@original
def test_attention_scores_scaling(subject):
    ones = np.ones((1, 2, 4, 32))
    assert np.abs(subject.scores(ones, ones) - 5.6569).max() < 0.01


@original
def test_causal_mask(subject):
    q, k, _ = triple(1, 4, 4, 32)
    scores = subject.scores(q, k)
    masked, before = subject.causal_mask(scores)[0, 0], scores[0, 0]
    future = np.triu(np.ones((4, 4), bool), 1)
    assert np.isneginf(masked[future]).all()
    assert (np.abs(masked[~future] - before[~future]) < 1e-5).all()


@original
def test_full_attention_output(subject):
    out = subject.attention(*triple(1, 4, 4, 32))
    shapes([1, 4, 128], out)
    finite(out)


@original
def test_attention_determinism(subject):
    first, second, third = (subject.attention(*triple(1, 2, 4, 32)) for _ in range(3))
    assert np.array_equal(first, second) and np.array_equal(first, third)


@original
def test_attention_with_rope(subject):
    q, k, v = subject.qkv(uniform(11, (1, 4, 128), 1.0), *constants(128, 0.01, 0.02, 0.03), 32)
    out = subject.attention(*subject.rope(q, k, at(0, q)), v)
    shapes([1, 4, 128], out)
    finite(out)


@original
def test_attention_llama2_dimensions(subject):
    shapes([1, 2, 4096], subject.attention(*triple(1, 2, 32, 128)))
