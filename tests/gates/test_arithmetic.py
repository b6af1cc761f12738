"""Ways to compute: which of them a step can tell apart."""

import numpy as np
import pytest
import torch

from llama_core.checkpoints import reference
from llama_core.checkpoints.arithmetic import Arithmetic, each_once, plain_loops, right_arithmetics, right_engines
from llama_core.checkpoints.context import Context
from llama_core.config import LlamaConfig, RopeScaling

CONFIG = LlamaConfig(vocab_size=8, hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4)
DRAWN = np.random.default_rng(1).normal(size=(2, 3, 96, 96))


def evaluations(step, dtype):
    """A step on fixed inputs: a function of the arithmetic."""
    return {
        "add": lambda a: a.round(reference.add(Context(CONFIG, {}, {}, a), DRAWN[0], DRAWN[1]), "output"),
        "product with weights": lambda a: a.round(
            reference.linear(Context(CONFIG, {}, {}, a), DRAWN[0], DRAWN[1, 0]), "q"
        ),
        "norm": lambda a: a.round(reference.rms_norm(Context(CONFIG, {}, {}, a), DRAWN[0], DRAWN[1, 0, 0]), "ffn_norm"),
        "softmax": lambda a: a.round(reference.softmax(Context(CONFIG, {}, {}, a), DRAWN[0]), "attention_weights"),
    }[step]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("step", ["add", "product with weights", "norm", "softmax"])
def test_each_once_leaves_out_no_value_that_any_arithmetic_gives(step, dtype):
    evaluate, all_of_them = evaluations(step, dtype), right_arithmetics(dtype)
    tried = list(each_once(all_of_them, evaluate))
    assert {x.tobytes() for x in tried} == {evaluate(a).tobytes() for a in all_of_them}


def test_a_sum_of_two_tensors_is_computed_once_and_a_product_once_for_each_order_and_width():
    counts = [len(list(each_once(right_arithmetics("bfloat16"), evaluations(s, "bfloat16")))) for s in ("add", "norm")]
    assert counts[0] == 1 < counts[1]
    assert len(list(each_once(right_arithmetics("bfloat16"), evaluations("product with weights", "bfloat16")))) == 4


def test_plain_loops_add_one_product_after_the_other_into_a_float32():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 50)).astype(np.float32), rng.standard_normal((50, 4)).astype(np.float32)
    expected = np.zeros((3, 4), np.float32)
    for row in range(3):
        for column in range(4):
            for i in range(50):
                expected[row, column] = expected[row, column] + a[row, i] * b[i, column]
    assert np.array_equal(plain_loops("float32").matmul(a, b), expected)
    assert not np.array_equal(right_arithmetics("float32")[0].matmul(a, b), expected)


@pytest.mark.parametrize("scaling, factor", [(None, 1.0), (RopeScaling("linear", 4.0), 4.0)])
def test_chained_angles_multiply_in_float32_from_pair_to_pair(scaling, factor):
    config = CONFIG.replace(head_dim=64, rope_scaling=scaling)
    positions = np.array([[0, 1, 77, 4000]])
    ours = reference.angles(Context(config, {}, {}, plain_loops("float32")), positions)[0, :, 0]
    for position, row in zip(positions[0], ours, strict=True):
        angle, step = np.float32(position), np.float32(10000.0 ** (-2 / 64))
        for found in row:
            assert found == np.float32(angle / np.float32(factor))
            angle = angle * step
    table = reference.angles(Context(config, {}, {}, right_arithmetics("float32")[0]), positions)[0, :, 0]
    assert np.abs(table - ours).max() > 1e-4 / factor and np.allclose(table, ours, rtol=1e-5)


def test_inexact_frequencies_are_off_by_about_as_much_as_powers_in_float32():
    power = 1.0 / (500000.0 ** (torch.arange(0, 128, 2, dtype=torch.int64).float() / 128)).double().numpy()
    exact = 500000.0 ** (-np.arange(0, 128, 2) / 128)
    off = np.abs(power / exact - 1).max()
    config = CONFIG.replace(head_dim=128, rope_theta=500000.0)
    way = Arithmetic(wide="float32", float32_tables=True, angles="inexact")
    ours = reference.angles(Context(config, {}, {}, way), np.array([[1]]))[0, 0, 0]
    assert 0.25 * off < np.abs(ours / exact - 1).min() < 4 * off


def test_right_engines_make_rotary_angles_in_each_way():
    assert {a.angles for a in right_engines("float32") if a.float32_tables} == {"rounded", "inexact", "chained"}
