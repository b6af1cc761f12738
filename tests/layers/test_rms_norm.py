"""Checkpoint 1 against the formula in float64."""

import numpy as np
import pytest
import torch

from llama_core.layers import RMSNorm

# 8 bits of mantissa and one rounding more than the float64 result had: see the cast order below.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3, torch.float64: 1e-14}


def formula(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_with(weight: torch.Tensor, eps: float, dtype: torch.dtype = torch.float32) -> RMSNorm:
    norm = RMSNorm(len(weight), eps)
    norm.weight = torch.nn.Parameter(weight.to(dtype))
    return norm


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_are_those_of_the_formula(dtype, device):
    if dtype is torch.float64 and device.type == "mps":
        pytest.skip("MPS has no float64")
    x, weight = numbers(2, 5, 48).to(dtype), numbers(48, seed=1).to(dtype)
    out = norm_with(weight, 1e-5, dtype).to(device)(x.to(device)).double().cpu().numpy()
    expected = formula(x.double().numpy(), weight.double().numpy(), 1e-5)
    np.testing.assert_allclose(out, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1e-3])
def test_small_inputs_show_which_epsilon_is_used(eps):
    x, weight = 1e-3 * numbers(3, 64), 1 + 0.1 * numbers(64, seed=1)
    out = norm_with(weight, eps)(x.float())
    np.testing.assert_allclose(out.numpy(), formula(x.numpy(), weight.numpy(), eps), rtol=1e-5)


def test_epsilon_is_added_under_the_root():
    # mean(x²) = 9e-4 and ε = 7e-4 give a root of 0.04; outside the root it would be 0.03 + 7e-4.
    out = norm_with(torch.ones(4), 7e-4)(torch.full((1, 4), 0.03))
    torch.testing.assert_close(out, torch.full((1, 4), 0.03 / 0.04), rtol=1e-6, atol=0)


def test_zeros_stay_zeros():
    assert torch.equal(norm_with(torch.ones(8), 1e-5)(torch.zeros(2, 8)), torch.zeros(2, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_cast_back_before_the_weight_multiplies(dtype):
    x, weight = numbers(64, 32).to(dtype), numbers(32, seed=1).to(dtype)
    normed = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    cast_first = (normed.to(dtype).double() * weight.double()).to(dtype)
    weight_first = (normed * weight.double()).to(dtype)
    out = norm_with(weight, 1e-5, dtype)(x)
    assert (cast_first != weight_first).sum() > 100  # the two orders do differ on these numbers
    assert (out != cast_first).sum() <= 2  # float32 may round a tie unlike float64


def test_float16_inputs_whose_squares_overflow_float16():
    x = 3e3 * numbers(2, 64).clamp(-3, 3)
    out = norm_with(torch.ones(64), 1e-5, torch.float16)(x.half())
    expected = formula(x.half().double().numpy(), np.ones(64), 1e-5)
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=2e-3, atol=1e-6)


def test_huge_float32_inputs():
    x = 1e17 * numbers(2, 64)  # squares near 1e34, still inside float32
    out = norm_with(torch.ones(64), 1e-5)(x.float()).numpy()
    np.testing.assert_allclose(out, formula(x.numpy(), np.ones(64), 1e-5), rtol=1e-5)


def test_the_mean_is_over_the_last_axis_alone():
    x = torch.stack([torch.full((8,), 2.0), torch.full((8,), 500.0)])[None]
    torch.testing.assert_close(norm_with(torch.ones(8), 1e-5)(x), torch.ones(1, 2, 8), rtol=1e-5, atol=0)
