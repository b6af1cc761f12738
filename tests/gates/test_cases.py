"""The bits of the cases: the same everywhere, and asymmetric where symmetry would hide a mistake."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.random_bits import splitmix64, uniform, whole_numbers
from llama_core.checkpoints.specification import CHECKPOINTS, checkpoint


def splitmix(seed, count):
    """The generator once more, in Python's own unbounded integers."""
    word, draws = 2**64 - 1, []
    for n in range(count):
        z = seed + (n + 1) * 0x9E3779B97F4A7C15 & word
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & word
        z = (z ^ z >> 27) * 0x94D049BB133111EB & word
        draws.append(z ^ z >> 31)
    return draws


def test_the_generator_gives_the_published_vectors():
    # The first outputs of Vigna's splitmix64.c from the state 1234567, as many test suites have them.
    expected = [0x599ED017FB08FC85, 0x2C73F08458540FA5, 0x883EBCE5A3F27C77]
    assert [int(x) for x in splitmix64(1234567, 3)] == expected


@pytest.mark.parametrize("seed", [0, 101001, 2**64 - 3])
def test_draws_are_those_of_unbounded_integers(seed):
    assert [int(x) for x in splitmix64(seed, 50)] == splitmix(seed, 50)
    assert [int(x) for x in splitmix64(seed, 5, start=45)] == splitmix(seed, 50)[45:]


@pytest.mark.parametrize("count", [7, 40_000, 300_001])
def test_uniform_values_are_one_exact_integer_times_one_constant(count):
    values = uniform(77, (count,), 0.3)
    constant = np.float32(0.3 * math.sqrt(3) / 2**23)
    for n in (0, 5, count // 2, count - 1):
        draw = splitmix(77 + n * 0x9E3779B97F4A7C15, 1)[0]
        assert values[n] == np.float32((draw >> 40) - 2**23) * constant


def test_uniform_values_have_the_standard_deviation_asked_for():
    values = uniform(5, (200_000,), 0.25)
    assert values.std() == pytest.approx(0.25, rel=0.01)
    assert abs(values.mean()) < 0.002
    assert np.abs(values).max() <= 0.25 * math.sqrt(3)


def test_whole_numbers_are_the_top_24_bits_modulo_the_bound():
    assert whole_numbers(9, (20,), 61).tolist() == [(d >> 40) % 61 for d in splitmix(9, 20)]


#: sha256 of the bytes, float32 and little-endian, as ``case.json`` lists them.
DIGESTS = {
    ("1", "ordinary", "layer_input"): "cfb659f1e9af8ffc6e64462521e39e6ae4cb8e65e86ea28c3b045cce4f67e89e",
    ("2", "grouped", "self_attn.q_proj.weight"): "01efa943e5183ca2e8e60d0ad8c6f661feab4ff7dfa4a0eecc667d9b24facca8",
    ("3", "left padding", "q_rotated"): "601a73e18f83696fac97302a381c566362ba62da9c9aa93027b36f5d8e8d2e24",
    (
        "7",
        "untied",
        "layers.2.mlp.down_proj.weight",
    ): "140ed2ea473fa092d2b5a07ba6f2e4dc3b845a1438f837a05e15a29bbf9edbea",
}


@pytest.mark.parametrize(("id", "case", "name"), DIGESTS)
def test_tensors_have_the_bits_that_are_written_down(id, case, name):
    inputs, weights = checkpoint(id).case(case).values("float32")
    tensor = (inputs | weights)[name].astype("<f4")
    assert hashlib.sha256(np.ascontiguousarray(tensor)).hexdigest() == DIGESTS[id, case, name]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_torchs_rounding_ties_to_even_included(dtype):
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 1e-7, 3e38])
    values = np.concatenate([ties, uniform(3, (5000,), 2.0)]).astype(np.float32)
    expected = torch.tensor(values).to(getattr(torch, dtype)).double().numpy()
    assert np.array_equal(round_to(values.astype(np.float64), dtype), expected)


def test_a_large_case_rounds_its_weights_like_a_small_one():
    case = checkpoint("2").case("grouped")
    large = replace(case, large=True)
    for dtype in ("float32", "bfloat16", "float16"):
        _, expected = case.values(dtype)
        _, found = large.values(dtype)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_another_seed_gives_other_values_of_the_same_shape():
    case = checkpoint("3").case("prefill")
    mine, other = case.values()[0], case.reseeded(12345).values()[0]
    assert mine["q_rotated"].shape == other["q_rotated"].shape
    assert not np.isclose(mine["q_rotated"], other["q_rotated"]).any()


@pytest.mark.parametrize("id", ["2", "3", "4", "6", "7", "8"])
def test_every_checkpoint_with_heads_has_a_grouped_and_a_square_case(id):
    configs = [case.config for case in CHECKPOINTS[id].small_cases]
    assert any(
        c.num_key_value_heads < c.num_attention_heads and c.head_dim != c.hidden_size // c.num_attention_heads
        for c in configs
    )
    assert any(
        c.num_key_value_heads == c.num_attention_heads and c.head_dim * c.num_attention_heads == c.hidden_size
        for c in configs
    )


@pytest.mark.parametrize("id", [id for id in CHECKPOINTS if id not in ("0", "9", "10")])
def test_rows_of_a_batch_differ(id):
    for case in CHECKPOINTS[id].small_cases:
        for name, x in case.values()[0].items():
            if x.dtype.kind == "f" and len(x) > 1:
                assert not np.array_equal(x[0], x[1]), (case.name, name)


def test_norm_weights_and_biases_are_not_constant():
    _, weights = checkpoint("6").case("biased").values()
    for name in ("input_layernorm.weight", "self_attn.q_proj.bias", "mlp.down_proj.bias"):
        assert weights[name].std() > 0.2, name


def test_matrices_keep_the_size_of_what_they_are_given():
    _, weights = checkpoint("2").case("square").values()
    w = weights["self_attn.q_proj.weight"]
    assert w.std() == pytest.approx(w.shape[1] ** -0.5, rel=0.1)


def test_half_precision_is_given_smaller_huge_values_where_it_would_overflow():
    case = checkpoint("1").case("huge")
    assert np.abs(case.values("float32")[0]["layer_input"]).max() > 9e5
    assert 2e4 < np.abs(case.values("float16")[0]["layer_input"]).max() < 65504
