"""The figures of a comparison: by hand, by numpy, and where an average would hide what a head shows."""

import numpy as np
import pytest
from small_traces import golden, model
from test_compare_traces import rewritten

from llama_core.traces import Trace, compare
from llama_core.traces.align import Rows
from llama_core.traces.measure import Measured, ulps
from llama_core.traces.verdict import WRONG


@pytest.fixture(scope="module")
def many_heads():
    return model(num_attention_heads=256, num_key_value_heads=8, head_dim=4, num_hidden_layers=1)


@pytest.fixture(scope="module")
def right(tmp_path_factory, many_heads):
    return golden(tmp_path_factory.mktemp("traces") / "golden", many_heads, steps=1, noise=("float32",))


@pytest.fixture(scope="module")
def one_wrong_head(tmp_path_factory, right):
    def change(name, call, values):
        if name.endswith("attention_context"):
            values[:, :, 77] *= 1.1
        return values

    return Trace.open(rewritten(right, tmp_path_factory.mktemp("traces") / "c", change))


@pytest.mark.parametrize("with_model", [True, False])
def test_one_wrong_head_among_hundreds_is_wrong_and_located_though_the_cosine_is_almost_1(
    right, one_wrong_head, many_heads, with_model
):
    result = compare(right, one_wrong_head, model=many_heads if with_model else None)
    line = result.line("layers.0.attention_context")
    assert (result.first, line.status) == (line.name, WRONG)
    # An error of a tenth in one head of 256: the cosine is 1 - 0.1² / 256 / 2.
    assert line.cosine > 0.9999 and line.worst[2] == 77
    assert "77" in result.cause.where
    positions, by_head = result.judged[line.name].from_golden.table(0)
    assert positions == list(range(8)) and by_head.shape == (256, 8)
    assert np.flatnonzero((by_head > 1).any(1)).tolist() == [77] and (by_head[77] > 1).all()


def test_the_worst_coordinate_comes_with_its_token_and_both_values(right, tmp_path):
    def change(name, call, values):
        if name == "layers.0.ffn_up" and call == 0:
            values[0, 4, 9] += 3
        return values

    result = compare(right, rewritten(right, tmp_path / "c", change))
    line = result.line("layers.0.ffn_up")
    assert line.worst == (0, 4, 0, 9) and line.token == right.calls[0].input_ids[0, 4]
    assert line.right == right.values(line.name, 0)[0, 4, 9] and line.value == pytest.approx(line.right + 3)
    assert f"position 4 (token {line.token})" in str(result)
    assert result.to_json()["errors_of_first"]["positions"] == list(range(8))


def arrays(held):
    """Every array that something holds on to, whole where it is a view."""
    if isinstance(held, np.ndarray):
        return [held if held.base is None else held.base]
    parts = held.values() if isinstance(held, dict) else vars(held).values() if hasattr(held, "__dict__") else ()
    return [array for part in parts for array in arrays(part)]


def test_what_is_kept_of_a_compared_tensor_is_less_than_the_tensor(right):
    kept = compare(right, right).judged["logits"]
    assert kept.heads is not None and kept.from_golden.rows
    assert sum(array.nbytes for array in arrays(kept)) < sum(right.values("logits", call).nbytes for call in (0, 1)) / 4


def test_the_figures_are_those_of_a_hand_calculation():
    right, mine = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 2.5]]])
    found = Measured()
    found.add(mine, right, np.ones((1, 1)), Rows(np.array([3]), np.array([7]), right, None, ""), "bfloat16")
    assert (found.max_abs, found.mean_abs, found.worst, found.worst_values) == (0.5, 0.25, (3, 7, 0, 1), (2.5, 2.0))
    assert found.relative_l2 == pytest.approx(0.5 / np.sqrt(5))
    assert found.cosine == pytest.approx(6 / np.sqrt(7.25 * 5))
    assert found.max_ulp == 0.5 / 2**-6  # bfloat16 has 7 bits behind the point: from 2 on they are 2⁻⁶ apart


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_units_in_the_last_place_are_those_of_numpy_subnormal_numbers_included(dtype):
    info = np.finfo(dtype)
    x = np.array([1.0, 1.5, 2.0, 1000.0, float(info.tiny), float(info.tiny) / 2])
    assert np.array_equal(ulps(x, dtype), np.spacing(x.astype(dtype)).astype(np.float64))
    assert ulps(np.zeros(1), dtype) == np.spacing(np.array(0.5, dtype)).astype(np.float64)
