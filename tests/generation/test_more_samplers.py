"""min-p, the repetition penalty and log-probabilities: kept sets, values, frequencies."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import no_shape_checks
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llama_core.errors import GenerationError
from llama_core.sampling import (
    SamplingParameters,
    keep_min_p,
    log_probabilities,
    next_token,
    penalise_repetition,
    probabilities,
)

INF = math.inf
#: The 99.99 % points of the chi-squared distribution, from a table.
CHI_SQUARED_9999 = {2: 18.42, 3: 21.11}


def log(*chances: float) -> torch.Tensor:
    return torch.tensor([chances], dtype=torch.float64).log().float()


def kept(logits: torch.Tensor) -> list[int]:
    return [i for i, x in enumerate(logits[0].tolist()) if x > -INF]


def theirs(logits, ids, penalty, temperature, top_k, top_p, min_p):
    """transformers' processors in the order in which its `generate` applies them."""
    if penalty is not None:
        logits = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    logits = TemperatureLogitsWarper(temperature)(ids, logits)
    if top_k is not None:
        logits = TopKLogitsWarper(top_k)(ids, logits)
    if top_p is not None:
        logits = TopPLogitsWarper(top_p)(ids, logits)
    if min_p is not None:
        logits = MinPLogitsWarper(min_p)(ids, logits)
    return logits.softmax(-1)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    penalty=st.sampled_from([None, 0.7, 1.0, 1.3, 3.0]),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([None, 3, 30]),
    top_p=st.sampled_from([None, 0.4, 0.9]),
    min_p=st.sampled_from([None, 0.0, 0.02, 0.1, 0.5, 1.0]),
)
def test_kept_sets_and_probabilities_equal_transformers(seed, penalty, temperature, top_k, top_p, min_p):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 50, generator=generator)
    ids = torch.randint(50, (3, 20), generator=generator)
    seen = torch.zeros(3, 50, dtype=torch.bool).scatter(1, ids, True)
    ours = probabilities(logits, temperature, top_k, top_p, min_p, penalty, seen)
    wanted = theirs(logits, ids, penalty, temperature, top_k, top_p, min_p)
    assert torch.equal(ours > 0, wanted > 0)
    torch.testing.assert_close(ours, wanted, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, [0, 1, 2, 3]),
        (0.19, [0, 1, 2, 3]),  # 0.19 · 0.5 = 0.095
        (0.21, [0, 1, 3]),  # 0.105 drops 0.1
        (0.31, [1, 3]),  # 0.155 drops 0.15
        (0.49, [1, 3]),
        (0.51, [1]),  # 0.255 drops 0.25
        (1.0, [1]),
    ],
)
def test_min_p_keeps_what_has_that_part_of_the_largest(p, expected):
    assert kept(keep_min_p(log(0.15, 0.5, 0.1, 0.25), p)) == expected


def test_min_p_of_one_keeps_all_that_equal_the_largest():
    assert kept(keep_min_p(torch.tensor([[1.0, 4.0, 4.0, 3.9]]), 1.0)) == [1, 2]


def test_min_p_counts_after_the_temperature():
    # At temperature 2 the chances 0.64 and 0.04 become 0.8 and 0.2 of 1, a quarter: kept by 0.2. At 1 a sixteenth.
    assert (probabilities(log(0.64, 0.04), 2.0, min_p=0.2) > 0).tolist() == [[True, True]]
    assert (probabilities(log(0.64, 0.04), 1.0, min_p=0.2) > 0).tolist() == [[True, False]]


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_negative_where_it_was_seen():
    logits = torch.tensor([[3.0, 3.0, -3.0, -3.0, 0.0, -INF]])
    seen = torch.tensor([[True, False, True, False, True, True]])
    assert penalise_repetition(logits, seen, 1.5).tolist() == [[2.0, 3.0, -4.5, -3.0, 0.0, -INF]]


@pytest.mark.parametrize(("logit", "penalty"), [(1e30, 1e-30), (-1e30, 1e30), (3.0, 1e-300), (-3.0, 1e300)])
def test_no_penalty_makes_a_logit_infinite(logit, penalty):
    logits = torch.tensor([[logit, 0.0]])
    assert penalise_repetition(logits, torch.ones(1, 2, dtype=torch.bool), penalty).isfinite().all()


@pytest.mark.parametrize("penalty", [1e-300, 1e300])
def test_an_extreme_penalty_gives_no_nan(penalty):
    logits = torch.tensor([[3.0, -3.0, 0.0]])
    assert probabilities(logits, repetition_penalty=penalty, seen=torch.ones(1, 3, dtype=torch.bool)).sum() == 1


def test_the_penalty_reaches_the_greedy_choice():
    parameters = SamplingParameters(0, repetition_penalty=2.0)
    seen = torch.tensor([[True, False, False]])
    assert next_token(torch.tensor([[3.0, 2.0, 1.0]]), parameters, None, seen).tolist() == [1]


@pytest.mark.parametrize(
    ("parameters", "chances"),
    [
        # Chances 8 4 2 1 of 15; a quarter of the largest keeps 8 4 2.
        (SamplingParameters(1.0, min_p=0.25), [8 / 14, 4 / 14, 2 / 14, 0]),
        # Logits ln 8, ln 4, ln 2, ln 1 divided by 2 where seen (0 and 2): √8, 4, √2, 1.
        (
            SamplingParameters(1.0, repetition_penalty=2.0),
            [x / (8**0.5 + 4 + 2**0.5 + 1) for x in (8**0.5, 4, 2**0.5, 1)],
        ),
    ],
    ids=["min-p", "repetition penalty"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_frequencies_agree_with_hand_calculation_by_a_chi_squared_test(parameters, chances, seed):
    logits = torch.tensor([[8.0, 4.0, 2.0, 1.0]]).log().expand(20_000, -1)
    seen = torch.tensor([[True, False, True, False]]).expand(20_000, -1)
    drawn = next_token(logits, parameters, torch.Generator().manual_seed(seed), seen).bincount(minlength=4)
    expected = 20_000 * torch.tensor(chances, dtype=torch.float64)
    possible = expected > 0
    assert drawn[~possible].sum() == 0
    statistic = ((drawn - expected)[possible] ** 2 / expected[possible]).sum()
    assert statistic < CHI_SQUARED_9999[int(possible.sum()) - 1]


def test_log_probabilities_are_those_of_the_unfiltered_softmax():
    logits = 5 * torch.randn(4, 30, generator=torch.Generator().manual_seed(2)).bfloat16()
    tokens = torch.tensor([3, 0, 29, 7])
    wanted = logits.double().softmax(-1).gather(1, tokens[:, None]).log().squeeze(1)
    torch.testing.assert_close(log_probabilities(logits, tokens).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("min_p", v) for v in (-0.1, 1.1, float("nan"), INF, True, "0.5")]
    + [("repetition_penalty", v) for v in (0, -1.0, float("nan"), INF, True, "1")],
)
def test_parameters_out_of_range_are_refused_by_name(key, value):
    with no_shape_checks(), pytest.raises(GenerationError) as error:
        SamplingParameters(**{key: value})
    assert error.value.key == key
    assert error.value.actual is value
