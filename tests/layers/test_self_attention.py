"""Checkpoints 2 to 4 in sequence, and the output projection."""

import numpy as np
import torch

from llama_core.layers import Attention, RoPE, SelfAttention


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(bias: bool) -> SelfAttention:
    """E = 10, H = 4, K = 2, D = 6: o_proj is [10, 24]."""
    attention = SelfAttention(10, 4, 2, 6, bias, "fused")
    for seed, parameter in enumerate(attention.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=seed + 1) / parameter.shape[-1] ** 0.5)
    return attention


def test_output_is_o_proj_of_the_heads_side_by_side():
    attention, rope, x = layer(bias=True), RoPE(6), numbers(2, 5, 10)
    positions = torch.arange(5).expand(2, 5)
    q, k, v = (linear(x).view(2, 5, -1, 6) for linear in (attention.q_proj, attention.k_proj, attention.v_proj))
    context = Attention(6)(*rope(q, k, positions), v)
    expected = context.double() @ attention.o_proj.weight.double().T + attention.o_proj.bias.double()
    out = attention(x, rope, rope.cos_sin(positions))
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=0, atol=2e-6)


def test_o_proj_mixes_heads_into_the_hidden_size():
    assert layer(bias=False).o_proj.weight.shape == (10, 24)
    assert layer(bias=False).o_proj.bias is None


def test_without_rotation_the_order_of_the_past_would_not_matter_but_with_it_it_does():
    attention, rope, x = layer(bias=False), RoPE(6), numbers(1, 4, 10)
    swapped = x[:, [1, 0, 2, 3]]
    here, nowhere = torch.arange(4)[None], torch.zeros(1, 4, dtype=torch.long)

    def last(x, positions):
        return attention(x, rope, rope.cos_sin(positions))[:, -1]

    torch.testing.assert_close(last(swapped, nowhere), last(x, nowhere), rtol=0, atol=1e-6)
    assert (last(swapped, here) - last(x, here)).abs().max() > 1e-2
