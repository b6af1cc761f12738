"""Checkpoint 5: down(silu(gate) · up) in float64."""

import numpy as np
import pytest
import torch

from llama_core.layers import FeedForward


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [False, True])
def test_values_are_those_of_the_formula(bias, device):
    layer = FeedForward(12, 20, bias)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=seed + 1) / parameter.shape[-1] ** 0.5)
    weights = {name: parameter.double().numpy().copy() for name, parameter in layer.named_parameters()}
    x = numbers(2, 5, 12)

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    gate, up = linear("gate_proj", x.double().numpy()), linear("up_proj", x.double().numpy())
    expected = linear("down_proj", gate / (1 + np.exp(-gate)) * up)
    np.testing.assert_allclose(layer.to(device)(x.to(device)).cpu().numpy(), expected, rtol=0, atol=2e-6)


def test_one_number_by_hand():
    # gate 2 · 1 = 2, silu(2) = 2 / (1 + e^-2) = 1.761594; up 3 · 1 = 3; down -1: -5.284782
    layer = FeedForward(1, 1)
    for linear, value in ((layer.gate_proj, 2.0), (layer.up_proj, 3.0), (layer.down_proj, -1.0)):
        linear.weight.fill_(value)
    assert layer(torch.ones(1, 1, 1)).item() == pytest.approx(-5.284782, rel=1e-6)
