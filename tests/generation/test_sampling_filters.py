"""Which tokens each filter keeps, and with what probability."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import no_shape_checks
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llama_core.errors import GenerationError
from llama_core.sampling import apply_temperature, greedy, keep_top_k, keep_top_p, probabilities

INF = math.inf


def random_logits(seed: int, rows: int = 3, vocab_size: int = 50) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def log(*chances: float) -> torch.Tensor:
    return torch.tensor([chances], dtype=torch.float64).log().float()


def kept(logits: torch.Tensor) -> list[int]:
    return [i for i, x in enumerate(logits[0].tolist()) if x > -INF]


def warped(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None) -> torch.Tensor:
    """transformers' processors, in the order in which its `generate` applies them."""
    logits = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        logits = TopKLogitsWarper(top_k)(None, logits)
    if top_p is not None and top_p < 1:
        logits = TopPLogitsWarper(top_p)(None, logits)
    return logits.softmax(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.1, 0.5, 0.8, 1.0, 1.7, 10.0]),
    top_k=st.sampled_from([None, 1, 2, 7, 49, 50, 1000]),
    top_p=st.sampled_from([None, 0.01, 0.3, 0.5, 0.9, 0.99, 1.0]),
)
def test_kept_sets_and_probabilities_equal_transformers(seed, temperature, top_k, top_p):
    logits = random_logits(seed)
    ours, theirs = probabilities(logits, temperature, top_k, top_p), warped(logits, temperature, top_k, top_p)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [2]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_keeps_the_k_largest(k, expected):
    assert kept(keep_top_k(torch.tensor([[3.0, -1.0, 5.0, 2.0]]), k)) == expected


def test_top_k_keeps_all_that_equal_the_kth():
    assert kept(keep_top_k(torch.tensor([[1.0, 4.0, 2.0, 2.0, 2.0]]), 2)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.3, [1]),  # 0.5 crosses 0.3 and stays
        (0.49, [1]),
        (0.51, [1, 3]),  # 0.5 + 0.25 crosses 0.51
        (0.7, [1, 3]),
        (0.76, [0, 1, 3]),  # 0.5 + 0.25 + 0.15 crosses 0.76
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_token_that_crosses_p_and_none_after_it(p, expected):
    assert kept(keep_top_p(log(0.15, 0.5, 0.1, 0.25), p)) == expected


def test_of_equals_top_p_keeps_the_lower_ids():
    assert kept(keep_top_p(torch.zeros(1, 10), 0.35)) == [0, 1, 2, 3]


def test_top_p_stops_where_p_is_reached_exactly():
    assert kept(keep_top_p(torch.zeros(1, 4), 0.5)) == [0, 1]


@pytest.mark.parametrize("p", [1e-30, 1e-50, 1e-300])  # the last two are 0 in float32
def test_the_smallest_top_p_keeps_the_most_likely(p):
    assert kept(keep_top_p(log(0.15, 0.5, 0.1, 0.25), p)) == [1]


def test_top_p_of_one_keeps_the_longest_tail():
    logits = -torch.arange(40_000.0)[None] / 4000
    assert torch.equal(keep_top_p(logits, 1.0), logits)


def test_rows_are_filtered_each_for_itself():
    logits = random_logits(1)
    whole = probabilities(logits, 0.7, 5, 0.8)
    assert torch.equal(whole, torch.cat([probabilities(row[None], 0.7, 5, 0.8) for row in logits]))


def test_top_p_counts_what_top_k_left():
    # Of 0.4 0.3 0.2 0.1 top-k 2 leaves 4/7 and 3/7, so p = 0.5 is crossed by the first. Without top-k, by the second.
    assert (probabilities(log(0.4, 0.3, 0.2, 0.1), 1.0, 2, 0.5) > 0).tolist() == [[True, False, False, False]]
    assert (probabilities(log(0.4, 0.3, 0.2, 0.1), 1.0, None, 0.5) > 0).tolist() == [[True, True, False, False]]


def test_temperature_comes_before_top_p():
    # At temperature 1/2 chances are squared: 16 9 4 1 of 30, so the first has 0.533 and crosses 0.5 alone.
    assert (probabilities(log(0.4, 0.3, 0.2, 0.1), 0.5, None, 0.5) > 0).tolist() == [[True, False, False, False]]


def test_probabilities_are_a_softmax_in_float32_whatever_the_logits_are():
    logits = random_logits(2).bfloat16()
    expected = (logits.double() / 0.8).softmax(-1)
    ours = probabilities(logits, 0.8)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-300, 1e-46])
def test_temperature_zero_gives_everything_to_the_largest_logit(temperature):
    assert probabilities(torch.tensor([[1.0, 3.0, 3.0, -INF]]), temperature).tolist() == [[0, 1, 0, 0]]


def test_greedy_takes_the_lowest_id_of_equals_in_every_row():
    assert greedy(torch.tensor([[1.0, 7.0, 7.0], [2.0, -1.0, 2.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [1e-37, 1e-30, 1e30, 1e300])
def test_extreme_temperatures_do_not_overflow(temperature):
    logits = torch.tensor([[80.0, -80.0, -INF]])
    expected = [1.0, 0.0, 0.0] if temperature < 1 else [0.5, 0.5, 0.0]
    assert apply_temperature(logits, temperature).softmax(-1)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("row", [[float("nan"), 1.0], [INF, 1.0], [-INF, -INF]])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_without_a_choice_are_an_error_that_names_the_row(row, temperature):
    with pytest.raises(GenerationError, match="not finite") as error:
        probabilities(torch.tensor([[0.0, 1.0], row]), temperature)
    assert "row 1" in error.value.actual


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", v) for v in (float("nan"), INF, -INF, -0.1, -1, True, "1", None)]
    + [("top_k", v) for v in (0, -1, 1.5, True, "3", float("nan"))]
    + [("top_p", v) for v in (0, 0.0, -0.1, 1.1, float("nan"), INF, True, "0.5")],
)
def test_parameters_out_of_range_are_refused_by_name(key, value):
    # The tests' own type checks would refuse some of these first.
    with no_shape_checks(), pytest.raises(GenerationError) as error:
        probabilities(torch.zeros(1, 3), **{key: value})
    assert error.value.key == key
    assert error.value.actual is value
