"""How often each token is drawn."""

import pytest
import torch

from llama_core.sampling import SamplingParameters, next_token, probabilities, sample

# The 99.99 % points of the chi-squared distribution, from a table; with a fixed seed the test never flickers.
CHI_SQUARED_9999 = {1: 15.14, 2: 18.42, 3: 21.11, 5: 25.74, 9: 33.72}


def draws(chances: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """How often each token comes in ``count`` draws."""
    drawn = sample(chances.expand(count, -1), torch.Generator().manual_seed(seed))
    return drawn.bincount(minlength=chances.shape[-1])


@pytest.mark.parametrize(
    "chances",
    [[0.5, 0.5], [0.1, 0.2, 0.7], [0.97, 0.01, 0.01, 0.01], [0.05, 0.1, 0.15, 0.2, 0.2, 0.3], [0.1] * 10],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_frequencies_agree_with_the_probabilities_by_a_chi_squared_test(chances, seed):
    expected = 20_000 * torch.tensor(chances, dtype=torch.float64)
    seen = draws(torch.tensor([chances]), 20_000, seed)
    assert ((seen - expected) ** 2 / expected).sum() < CHI_SQUARED_9999[len(chances) - 1]


def test_frequencies_of_the_next_token_follow_temperature_and_top_k():
    # Logits ln 1, ln 2, ln 3, ln 4 at temperature 1/2: weights 1 4 9 16; top-k 3 leaves 4 9 16 of 29.
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log().expand(20_000, -1)
    drawn = next_token(logits, SamplingParameters(0.5, top_k=3), torch.Generator().manual_seed(3))
    seen = drawn.bincount(minlength=4).double()
    expected = 20_000 * torch.tensor([4.0, 9.0, 16.0], dtype=torch.float64) / 29
    assert seen[0] == 0
    assert ((seen[1:] - expected) ** 2 / expected).sum() < CHI_SQUARED_9999[2]


def test_tokens_of_probability_zero_are_never_drawn():
    chances = torch.tensor([[0.0, 0.0, 0.3, 0.0, 0.7, 0.0, 0.0]])
    assert set(draws(chances, 50_000, 5).nonzero().flatten().tolist()) == {2, 4}


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (0.2499, 1), (0.25, 3), (0.9999, 3), (1 - 2**-24, 3)])
def test_a_draw_is_the_first_token_whose_cumulative_sum_exceeds_the_number(uniform, expected, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, uniform))
    assert sample(torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]), torch.Generator()).tolist() == [expected]


def test_what_sums_to_less_than_one_is_drawn_in_proportion():
    assert draws(torch.tensor([[0.25, 0.25]]), 2_000, 6).tolist() == pytest.approx([1_000, 1_000], abs=100)


def test_a_million_small_probabilities_add_up_without_rounding():
    """Sums in float32 would move the borders between tokens by up to 3 % of a token, elsewhere on every device."""
    size, ours, same = 1_000_000, *(torch.Generator().manual_seed(7) for _ in range(2))
    chances = torch.full((8, size), 1 / size)
    for _ in range(8):
        chosen, uniform = sample(chances, ours), torch.rand(8, 1, generator=same, dtype=torch.float32).double()
        # The token whose share of [0, 1) holds the number lies half a share from it at most.
        assert (chosen + 0.5 - uniform[:, 0] * size).abs().max() < 0.5 + 1e-6


def test_each_row_is_drawn_from_its_own_probabilities():
    chances = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert sample(chances, torch.Generator().manual_seed(0)).tolist() == [1, 0, 2]


def test_a_seed_gives_the_same_ids_again_and_another_seed_others():
    chances = probabilities(torch.randn(64, 500, generator=torch.Generator().manual_seed(9)))
    first, again, other = (sample(chances, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_logits_on_each_device_give_the_same_ids(device):
    logits = torch.randn(64, 500, generator=torch.Generator().manual_seed(9))
    parameters = SamplingParameters(0.8, top_k=50, top_p=0.9)
    here = next_token(logits.to(device), parameters, torch.Generator().manual_seed(1))
    assert torch.equal(here.cpu(), next_token(logits, parameters, torch.Generator().manual_seed(1)))
