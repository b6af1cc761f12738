"""Checkpoint 1B: the rotation itself, in both layouts, against the formula in float64."""

import numpy as np
import pytest
import torch

from llama_core import LlamaConfig, RopeScaling
from llama_core.errors import ConfigError
from llama_core.layers import RoPE
from llama_core.layers.rope import layout_permutation


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rotated(x: np.ndarray, positions: np.ndarray, theta: float, layout: str) -> np.ndarray:
    """Each pair as a complex number, times exp(i · position · theta^(-2i/D)); x is [B, S, N, D]."""
    head_dim = x.shape[-1]
    x = x.astype(np.float64)
    if layout == "half":
        pairs = x[..., : head_dim // 2] + 1j * x[..., head_dim // 2 :]
    else:
        pairs = x[..., 0::2] + 1j * x[..., 1::2]
    frequencies = np.array([theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)])
    turned = pairs * np.exp(1j * positions[..., None, None] * frequencies)
    if layout == "half":
        return np.concatenate([turned.real, turned.imag], axis=-1)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_rotation_is_multiplication_by_a_complex_number(layout, theta, device):
    q, k = numbers(2, 6, 4, 16), numbers(2, 6, 2, 16, seed=1)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [7, 20, 33, 46, 59, 72]])
    rope = RoPE(16, theta, layout).to(device)
    for x, out in zip((q, k), rope(q.to(device), k.to(device), positions.to(device)), strict=True):
        expected = rotated(x.numpy(), positions.numpy(), theta, layout)
        np.testing.assert_allclose(out.cpu().numpy(), expected, rtol=0, atol=2e-5)


def test_position_zero_changes_nothing():
    q = numbers(1, 1, 2, 8)
    out, _ = RoPE(8)(q, q, torch.zeros(1, 1, dtype=torch.long))
    assert torch.equal(out, q)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_scores_depend_on_the_distance_alone(layout):
    rope = RoPE(32, layout=layout)
    q, k = numbers(1, 1, 1, 32), numbers(1, 1, 1, 32, seed=1)

    def score(query_position: int, key_position: int) -> float:
        at_query, _ = rope(q, q, torch.tensor([[query_position]]))
        at_key, _ = rope(k, k, torch.tensor([[key_position]]))
        return float((at_query * at_key).sum())

    for shift in (1, 50, 1000):
        assert score(9 + shift, 4 + shift) == pytest.approx(score(9, 4), abs=2e-3)
    assert abs(score(9, 4) - score(9, 5)) > 0.1


@pytest.mark.parametrize("source, target", [("interleaved", "half"), ("half", "interleaved")])
def test_layout_permutation_converts_one_layout_to_the_other(source, target):
    x, positions = numbers(2, 5, 3, 12), torch.arange(5).expand(2, 5)
    permutation = layout_permutation(12, source, target)
    in_source, _ = RoPE(12, layout=source)(x, x, positions)
    in_target, _ = RoPE(12, layout=target)(x[..., permutation], x[..., permutation], positions)
    torch.testing.assert_close(in_target, in_source[..., permutation], rtol=0, atol=1e-6)


def test_layout_permutation_by_hand():
    # half keeps the pairs (0,4) (1,5) (2,6) (3,7); interleaved keeps (0,1) (2,3) (4,5) (6,7).
    assert layout_permutation(8, "interleaved", "half") == [0, 2, 4, 6, 1, 3, 5, 7]
    assert layout_permutation(8, "half", "interleaved") == [0, 4, 1, 5, 2, 6, 3, 7]
    assert layout_permutation(8, "half", "half") == list(range(8))


def test_llama_2_slowest_frequency_by_hand():
    # 10000^(-126/128) = 10^(-4 · 0.984375) = 10^-3.9375 = 1.15478e-4 radians per position
    assert RoPE(128).frequencies[-1].item() == pytest.approx(1.15478e-4, rel=1e-5)
    assert RoPE(128).frequencies[0].item() == 1.0


@pytest.mark.parametrize("position", [4095, 131071])
def test_far_positions_keep_float32_accuracy(position):
    cos, sin = RoPE(64).cos_sin(torch.tensor([[position]]))
    angles = position * 10000.0 ** (-np.arange(0, 64, 2) / 64)
    # an angle of 131071 has a spacing of 2^-7 in float32, and the frequency's own rounding counts `position` times
    atol = position * 2.0**-23
    np.testing.assert_allclose(cos[0, 0, 0].numpy(), np.cos(angles), rtol=0, atol=atol)
    np.testing.assert_allclose(sin[0, 0, 0].numpy(), np.sin(angles), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_cast_of_the_model_leaves_the_table_float32(dtype):
    rope = torch.nn.Sequential(RoPE(128)).to(dtype)[0]
    expected = torch.tensor([10000.0 ** (-2 * i / 128) for i in range(64)])
    assert rope.frequencies.dtype == torch.float32
    torch.testing.assert_close(rope.frequencies, expected, rtol=1e-7, atol=0)


def test_moving_the_model_moves_the_table(device):
    rope = RoPE(16).to(device)
    assert rope.frequencies.device.type == device.type and rope.frequencies.dtype == torch.float32


def test_a_table_made_on_the_meta_device_is_computed_when_it_leaves_it():
    with torch.device("meta"):
        rope = RoPE(16, scaling=RopeScaling(kind="linear", factor=2.0))
    rope = rope.to_empty(device="cpu")
    expected = torch.tensor([10000.0 ** (-2 * i / 16) / 2 for i in range(8)])
    torch.testing.assert_close(rope.frequencies, expected, rtol=1e-6, atol=0)


def test_the_table_is_no_part_of_the_state_dict():
    assert RoPE(16).state_dict() == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once_after_the_rotation(dtype):
    x, positions = numbers(1, 4, 2, 64).to(dtype), torch.tensor([[0, 100, 2000, 4095]])
    out, _ = RoPE(64)(x, x, positions)
    expected = rotated(x.double().numpy(), positions.numpy(), 10000.0, "half")
    ulp = torch.finfo(dtype).eps
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=0.51 * ulp, atol=2e-3)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ConfigError, match="rotary layout 'zigzag'") as error:
        RoPE(8, layout="zigzag")
    assert error.value.key == "layout" and "interleaved" in error.value.expected


def test_an_odd_head_cannot_be_configured():
    with pytest.raises(ConfigError) as error:
        LlamaConfig(10, 9, 9, 1, 3, head_dim=3)
    assert error.value.key == "head_dim"
