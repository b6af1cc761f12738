"""Checkpoint 1B: the stretched frequencies, against transformers' functions and a calculation by hand."""

import math

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llama_core import RopeScaling, preset
from llama_core.layers import RoPE

CASES = {
    "linear": dict(kind="linear", factor=4.0),
    "llama3-8": dict(kind="llama3", factor=8.0, original_max_position_embeddings=8192),
    "llama3-32": dict(kind="llama3", factor=32.0, original_max_position_embeddings=8192),
    "llama3-other-borders": dict(
        kind="llama3", factor=3.0, original_max_position_embeddings=512, low_freq_factor=2.0, high_freq_factor=16.0
    ),
    "yarn": dict(kind="yarn", factor=16.0, original_max_position_embeddings=4096),
    "yarn-not-truncated": dict(kind="yarn", factor=8.0, original_max_position_embeddings=1024, truncate=False),
    "yarn-betas": dict(
        kind="yarn", factor=4.0, original_max_position_embeddings=2048, beta_fast=16.0, beta_slow=2.0
    ),
    "yarn-factor-1": dict(kind="yarn", factor=1.0, original_max_position_embeddings=4096),
    "yarn-attention-factor": dict(
        kind="yarn", factor=4.0, original_max_position_embeddings=2048, attention_factor=1.5
    ),
    "yarn-mscale": dict(
        kind="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=1.2, mscale_all_dim=0.7
    ),
}  # fmt: skip


def peer_config(head_dim: int, theta: float, length: int, scaling: dict) -> transformers.LlamaConfig:
    parameters = {"rope_type": scaling["kind"], "rope_theta": theta}
    parameters |= {key: value for key, value in scaling.items() if key != "kind"}
    if scaling["kind"] == "llama3":
        parameters = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} | parameters
    return transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=length,
        rope_parameters=parameters,
    )


@pytest.mark.parametrize("head_dim, theta", [(64, 500000.0), (128, 10000.0), (10, 777.0)])
@pytest.mark.parametrize("case", CASES)
def test_frequencies_and_attention_factor_are_those_of_transformers(case, head_dim, theta):
    scaling = CASES[case]
    rope = RoPE(head_dim, theta, scaling=RopeScaling(**scaling), max_position_embeddings=131072)
    expected, factor = ROPE_INIT_FUNCTIONS[scaling["kind"]](
        peer_config(head_dim, theta, 131072, scaling), torch.device("cpu")
    )
    torch.testing.assert_close(rope.frequencies, expected, rtol=2e-6, atol=0)
    assert rope.attention_factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("length", [1, 256, 257, 600, 4096])
def test_dynamic_frequencies_are_those_of_transformers_at_every_length(length):
    scaling = dict(kind="dynamic", factor=4.0)
    rope = RoPE(32, scaling=RopeScaling(**scaling), max_position_embeddings=256)
    config = peer_config(32, 10000.0, 256, scaling)
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=length)
    position = length - 1
    cos, sin = rope.cos_sin(torch.tensor([[0, position]]))
    # the angle's own float32 rounding grows with the position
    torch.testing.assert_close(cos[0, 1, 0], (position * expected).cos(), rtol=0, atol=1e-6 + position * 3e-7)
    torch.testing.assert_close(sin[0, 1, 0], (position * expected).sin(), rtol=0, atol=1e-6 + position * 3e-7)


def test_dynamic_rows_of_a_batch_each_follow_their_own_length():
    rope = RoPE(32, scaling=RopeScaling(kind="dynamic", factor=4.0), max_position_embeddings=16)
    short, long = torch.arange(4)[None], torch.arange(60, 64)[None]
    together = rope.cos_sin(torch.cat([short, long]))[0]
    assert torch.equal(together[:1], rope.cos_sin(short)[0])
    assert torch.equal(together[1:], rope.cos_sin(long)[0])
    plain = RoPE(32).cos_sin(long)[0]
    assert (together[1:] - plain).abs().max() > 0.1


def test_llama3_frequencies_by_hand():
    """Llama-3.2 1B: D = 64, theta 500000, factor 32, borders at 8192 / 4 = 2048 and 8192 / 1 = 8192 positions.

    Pair i has the wavelength 2π · 500000^(2i/64). i = 14: 2π · 311.386 = 1956.50, below 2048: kept.
    i = 15: 2π · 469.237 = 2948.30, between: s = (8192 / 2948.30 - 1) / (4 - 1) = 0.592849 of the plain frequency and
    1 - s of the divided one. i = 18: 2π · 1605.72 = 10089.1, above 8192: divided by 32.
    """
    config = preset("llama-3.2-1b")
    frequencies = RoPE(config.head_dim, config.rope_theta, scaling=config.rope_scaling).frequencies.double()
    assert frequencies[14].item() == pytest.approx(1 / 311.386, rel=1e-5)
    assert frequencies[15].item() == pytest.approx(0.592849 / 469.237 + 0.407151 / 469.237 / 32, rel=1e-5)
    assert frequencies[18].item() == pytest.approx(1 / 1605.72 / 32, rel=1e-5)


def test_yarn_multiplies_cosines_and_sines_by_its_attention_factor():
    scaling = RopeScaling(kind="yarn", factor=16.0, original_max_position_embeddings=4096)
    cos, sin = RoPE(64, scaling=scaling).cos_sin(torch.tensor([[0, 3]]))
    radius = (cos.square() + sin.square()).sqrt()
    torch.testing.assert_close(radius, torch.full_like(radius, 0.1 * math.log(16) + 1), rtol=1e-6, atol=0)


def test_a_scaling_without_original_length_takes_the_models():
    scaling = dict(kind="yarn", factor=4.0)
    implicit = RoPE(64, scaling=RopeScaling(**scaling), max_position_embeddings=512)
    config = peer_config(64, 10000.0, 2048, scaling | dict(original_max_position_embeddings=512))
    expected, _ = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    torch.testing.assert_close(implicit.frequencies, expected, rtol=2e-6, atol=0)
