"""Checkpoint 6: pre-norm, two residual sums."""

import torch

from llama_core import LlamaConfig
from llama_core.layers import Block, RoPE

CONFIG = LlamaConfig(10, 16, 24, 1, 4, 2, rms_norm_eps=1e-4, attention_bias=True, mlp_bias=True)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def block() -> Block:
    layer = Block(CONFIG)
    for seed, (name, parameter) in enumerate(layer.named_parameters()):
        value = numbers(*parameter.shape, seed=seed + 1)
        parameter.copy_(1 + 0.2 * value if "layernorm" in name else value / parameter.shape[-1] ** 0.5)
    return layer


def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return (x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * weight.double()).float()


def test_both_halves_normalise_first_and_add_to_what_they_were_given():
    layer, rope, x = block(), RoPE(4), 0.05 * numbers(2, 5, 16)
    cos_sin = rope.cos_sin(torch.arange(5).expand(2, 5))
    h = x + layer.self_attn(normed(x, layer.input_layernorm.weight), rope, cos_sin)
    expected = h + layer.mlp(normed(h, layer.post_attention_layernorm.weight))
    torch.testing.assert_close(layer(x, rope, cos_sin), expected, rtol=0, atol=2e-6)


def test_the_configuration_reaches_every_part():
    layer = block()
    assert layer.input_layernorm.eps == layer.post_attention_layernorm.eps == 1e-4
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    assert shapes["self_attn.q_proj.weight"] == (16, 16) and shapes["self_attn.k_proj.weight"] == (8, 16)
    assert shapes["self_attn.o_proj.bias"] == (16,) and shapes["mlp.up_proj.bias"] == (24,)


def test_with_all_projections_zero_a_block_is_the_identity():
    layer, rope, x = Block(CONFIG.replace(attention_bias=False, mlp_bias=False)), RoPE(4), numbers(1, 3, 16)
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    assert torch.equal(layer(x, rope, rope.cos_sin(torch.arange(3)[None])), x)
