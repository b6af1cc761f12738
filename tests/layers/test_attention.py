"""Checkpoint 3 against softmax(q kᵀ / √D + mask) v in float64, one head and one query at a time."""

import itertools
import math

import numpy as np
import pytest
import torch

from llama_core.errors import ConfigError, InputError
from llama_core.layers import Attention

IMPLEMENTATIONS = ["eager", "fused"]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def qkv(queries: int, keys: int, heads: int = 6, kv_heads: int = 2, head_dim: int = 8, batch: int = 2):
    return (
        numbers(batch, queries, heads, head_dim),
        numbers(batch, keys, kv_heads, head_dim, seed=1),
        numbers(batch, keys, kv_heads, head_dim, seed=2),
    )


def by_the_formula(q, k, v, visible: np.ndarray) -> np.ndarray:
    """[B, S, H·D]; head h reads key/value head h // (H / K); visible is [B, H, S, T]."""
    q, k, v = (x.double().cpu().numpy() for x in (q, k, v))
    batch, queries, heads, head_dim = q.shape
    group = heads // k.shape[2]
    out = np.zeros((batch, queries, heads, head_dim))
    for b, h, s in itertools.product(range(batch), range(heads), range(queries)):
        seen = np.flatnonzero(visible[b, h, s])
        if len(seen):
            scores = k[b, seen, h // group] @ q[b, s, h] / math.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            out[b, s, h] = weights / weights.sum() @ v[b, seen, h // group]
    return out.reshape(batch, queries, heads * head_dim)


def causal(queries: int, keys: int) -> np.ndarray:
    """The queries are the last of the keys: query s stands at position keys - queries + s."""
    return np.arange(keys) <= np.arange(queries)[:, None] + keys - queries


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (6, 2), (8, 2), (4, 1)])
@pytest.mark.parametrize("queries, keys", [(5, 5), (3, 7), (1, 6), (1, 1)])
def test_causal_attention_is_the_formula(implementation, heads, kv_heads, queries, keys, device):
    q, k, v = (x.to(device) for x in qkv(queries, keys, heads, kv_heads))
    out = Attention(8, implementation)(q, k, v)
    expected = by_the_formula(q, k, v, np.broadcast_to(causal(queries, keys), (2, heads, queries, keys)))
    np.testing.assert_allclose(out.cpu().numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_without_a_causal_mask_every_key_is_seen(implementation):
    q, k, v = qkv(4, 7)
    out = Attention(8, implementation)(q, k, v, use_causal_mask=False)
    np.testing.assert_allclose(out.numpy(), by_the_formula(q, k, v, np.ones((2, 6, 4, 7))), rtol=0, atol=2e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("queries", [4, 1])
@pytest.mark.parametrize("shape", ["B1ST", "BHST", "HST", "ST"])
def test_a_given_mask_replaces_the_causal_one(implementation, queries, shape):
    keys = 7
    full = {"B": 2, "H": 6, "S": queries, "T": keys, "1": 1}
    visible = numbers(*(full[axis] for axis in shape), seed=3) > 0
    visible[..., 2] = True
    q, k, v = qkv(queries, keys)
    out = Attention(8, implementation)(q, k, v, mask=visible)
    expected = by_the_formula(q, k, v, np.broadcast_to(visible.numpy(), (2, 6, queries, keys)))
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("queries", [3, 1])
def test_a_query_that_may_look_at_nothing_gets_zeros(implementation, dtype, queries, device):
    q, k, v = (x.to(device, dtype) for x in qkv(queries, 5))
    visible = torch.ones(2, 1, queries, 5, dtype=torch.bool, device=device)
    visible[1, :, 0] = False
    out = Attention(8, implementation)(q, k, v, mask=visible).cpu()
    assert torch.equal(out[1, 0], torch.zeros(48, dtype=dtype))
    expected = by_the_formula(q, k, v, visible.expand(2, 6, queries, 5).cpu().numpy())
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_queries_before_the_first_key_get_zeros(implementation, device):
    """The queries are the last S positions: of five with three keys, two come before every key."""
    q, k, v = (x.to(device) for x in qkv(5, 3))
    out = Attention(8, implementation)(q, k, v).cpu()
    assert torch.equal(out[:, :2], torch.zeros(2, 2, 48))
    visible = np.broadcast_to(np.tril(np.ones((5, 3)), -2), (2, 6, 5, 3)) > 0
    np.testing.assert_allclose(out.numpy(), by_the_formula(*(x.cpu() for x in (q, k, v)), visible), rtol=0, atol=2e-6)


def test_weights_of_a_query_that_may_look_at_nothing_are_zeros():
    masked = torch.tensor([[[[-math.inf, -math.inf], [0.0, -math.inf]]]])
    assert torch.equal(Attention(8).softmax(masked), torch.tensor([[[[0.0, 0.0], [1.0, 0.0]]]]))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_nan_in_a_masked_value_still_poisons_the_row(implementation):
    """0 · NaN is NaN: masks cannot mend bad weights or memory, so weights are scanned and a cache starts as zeros."""
    q, k, v = qkv(3, 5)
    v[0, 4] = math.nan
    visible = torch.ones(3, 5, dtype=torch.bool)
    visible[:, 4] = False
    out = Attention(8, implementation)(q, k, v, mask=visible)
    assert out[0].isnan().all() and not out[1].isnan().any()


def test_scores_of_ones_at_head_dim_32():
    # 32 products of 1, divided by √32 = 5.656854
    scores = Attention(32).compute_scores(torch.ones(1, 4, 4, 32), torch.ones(1, 4, 4, 32))
    assert scores.shape == (1, 4, 4, 4)
    torch.testing.assert_close(scores, torch.full((1, 4, 4, 4), 5.656854), rtol=1e-6, atol=0)


def test_scores_of_ones_at_head_dim_128():
    # √128 = 11.313708
    scores = Attention(128).compute_scores(torch.ones(1, 2, 32, 128), torch.ones(1, 2, 32, 128))
    torch.testing.assert_close(scores, torch.full((1, 32, 2, 2), 11.313708), rtol=1e-6, atol=0)


def test_key_heads_are_repeated_not_tiled():
    """H = 4, K = 2: query heads 0 and 1 read key head 0, heads 2 and 3 read key head 1."""
    q = torch.ones(1, 1, 4, 2)
    k = torch.tensor([1.0, 10.0]).reshape(1, 1, 2, 1).expand(1, 1, 2, 2)
    scores = Attention(2).compute_scores(q, k)
    torch.testing.assert_close(scores.flatten(), torch.tensor([1.0, 1.0, 10.0, 10.0]) * 2 / math.sqrt(2))


def test_causal_mask_keeps_scores_and_puts_minus_infinity_after_the_query():
    scores = numbers(1, 2, 4, 4)
    masked = Attention(8).apply_causal_mask(scores)
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1)
    assert (masked[..., hidden] == -math.inf).all()
    assert torch.equal(masked[..., ~hidden], scores[..., ~hidden])


def test_causal_mask_of_a_cached_chunk_is_aligned_bottom_right():
    """Two queries at positions 3 and 4 of 5."""
    masked = Attention(8).apply_causal_mask(torch.zeros(1, 1, 2, 5))
    assert masked[0, 0].tolist() == [[0, 0, 0, 0, -math.inf], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_softmax_sums_in_float32(dtype):
    """4096 equal scores: summed in half precision they would stop growing (bf16) or lose their last digits."""
    weights = Attention(8).softmax(torch.zeros(1, 1, 1, 4096, dtype=dtype))
    assert weights.dtype == dtype and (weights == 2.0**-12).all()


def test_three_runs_give_the_same_bits():
    q, k, v = qkv(5, 5)
    attention = Attention(8, "fused")
    first = attention(q, k, v)
    assert torch.equal(first, attention(q, k, v)) and torch.equal(first, attention(q, k, v))


def test_the_future_has_no_influence():
    q, k, v = qkv(5, 5)
    for implementation in IMPLEMENTATIONS:
        attention = Attention(8, implementation)
        before = attention(q, k, v)
        changed_k, changed_v = k.clone(), v.clone()
        changed_k[:, 3:] += 5
        changed_v[:, 3:] -= 5
        after = attention(q, changed_k, changed_v)
        assert torch.equal(after[:, :3], before[:, :3]) and not torch.equal(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize(
    "q_shape, k_shape, v_shape",
    [
        ((1, 3, 4, 8), (1, 3, 3, 8), (1, 3, 3, 8)),  # 3 key heads cannot serve 4 query heads
        ((1, 3, 4, 8), (2, 3, 4, 8), (2, 3, 4, 8)),  # another batch
        ((1, 3, 4, 16), (1, 3, 4, 16), (1, 3, 4, 16)),  # another head size than configured
    ],
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_tensors_that_do_not_go_together_are_named(implementation, q_shape, k_shape, v_shape):
    attention = Attention(8, implementation)
    q, k, v = torch.zeros(q_shape), torch.zeros(k_shape), torch.zeros(v_shape)
    try:
        attention(q, k, v)
    except InputError as error:
        assert error.key == "k" and str(list(q_shape)) in error.actual and str(list(k_shape)) in error.actual
    except Exception as error:  # the shape checks that only the tests switch on may speak first
        assert "jaxtyping" in type(error).__module__, error
    else:
        pytest.fail("accepted")


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ConfigError, match="flash") as error:
        Attention(8, "flash")
    assert error.value.key == "attention" and error.value.expected == "fused | eager"
