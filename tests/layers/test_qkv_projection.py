"""Checkpoint 2: which rows of the projections make which head."""

import pytest
import torch

from llama_core.layers import QKVProjection


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def projection(bias: bool = False) -> QKVProjection:
    """E = 12, H = 4, K = 2, D = 6 (not E / H), random weights."""
    qkv = QKVProjection(12, 4, 2, 6, bias)
    for seed, parameter in enumerate(qkv.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=seed + 1))
    return qkv


@pytest.mark.parametrize("bias", [False, True])
def test_head_h_is_rows_h_times_d_of_its_projection(bias):
    qkv, x = projection(bias), numbers(2, 5, 12)
    for out, linear, heads in zip(qkv(x), (qkv.q_proj, qkv.k_proj, qkv.v_proj), (4, 2, 2), strict=True):
        assert out.shape == (2, 5, heads, 6)
        for h in range(heads):
            rows = linear.weight[h * 6 : (h + 1) * 6].double()
            offset = linear.bias[h * 6 : (h + 1) * 6].double() if bias else 0
            expected = torch.einsum("bse,de->bsd", x.double(), rows) + offset
            torch.testing.assert_close(out[:, :, h].double(), expected, rtol=0, atol=1e-5)


def test_without_head_counts_every_query_head_has_its_own_keys():
    q, k, v = QKVProjection(32, 4)(numbers(1, 3, 32))
    assert q.shape == k.shape == v.shape == (1, 3, 4, 8)


def test_llamas_projections_have_no_bias():
    assert [name for name, _ in QKVProjection(32, 4).named_parameters()] == [
        "q_proj.weight",
        "k_proj.weight",
        "v_proj.weight",
    ]
