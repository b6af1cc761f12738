"""Checkpoints 2, 3 and 4: from the normalised hidden state to the output projection, all in one place."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llama_core.capture import NO_TAP, NoTap, Tap
from llama_core.dtypes import at_least_float32
from llama_core.errors import ConfigError, InputError
from llama_core.layers.linear import Linear
from llama_core.layers.rms_norm import RMSNorm
from llama_core.layers.rope import RoPE

IMPLEMENTATIONS = ("fused", "eager")
_EAGER_ONLY = ("scores", "masked_scores", "attention_weights")


class QKVProjection(nn.Module):
    """Checkpoint 2: ``q = x Wqᵀ``, ``k = x Wkᵀ``, ``v = x Wvᵀ``, each split into heads of D coordinates.

    Head h of q is rows ``h·D`` to ``(h+1)·D`` of q_proj. With K < H there are fewer key/value heads than query heads
    (grouped-query attention).

    Args:
        hidden_size: E. num_heads: H. num_key_value_heads: K, None for H. head_dim: D, None for E / H.
        bias: whether the three projections have one; Llama's have none.
        qk_norm_eps: normalise every head of q and k with this ε and weights of its own (Qwen3); None: do not.

    Shapes: x [B, S, E] -> q [B, S, H, D], k and v [B, S, K, D].
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        qk_norm_eps: float | None = None,
    ):
        super().__init__()
        self.head_dim = head_dim or hidden_size // num_heads
        kv_size = (num_key_value_heads or num_heads) * self.head_dim
        self.q_proj = Linear(hidden_size, num_heads * self.head_dim, bias=bias)
        self.k_proj = Linear(hidden_size, kv_size, bias=bias)
        self.v_proj = Linear(hidden_size, kv_size, bias=bias)
        if qk_norm_eps is not None:
            self.q_norm, self.k_norm = RMSNorm(self.head_dim, qk_norm_eps), RMSNorm(self.head_dim, qk_norm_eps)
        self.qk_norm = qk_norm_eps is not None

    def forward(
        self, x: Float[Tensor, "B S E"]
    ) -> tuple[Float[Tensor, "B S H D"], Float[Tensor, "B S K D"], Float[Tensor, "B S K D"]]:
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v


class Attention(nn.Module):
    """Checkpoint 3: ``softmax(q kᵀ / √D + mask) v``. It has no weights, and k and v already include the cache.

    Each of the K key/value heads serves H/K *consecutive* query heads. The softmax is computed in float32. A query
    that may look at nothing gets zeros.

    Args:
        head_dim: D, for the scale ``1/√D``.
        implementation: ``eager`` computes scores, masked scores and weights one after the other; ``fused`` calls
            ``scaled_dot_product_attention``, which is faster and shows none of them. They agree within rounding.

    Source: Vaswani et al. 2017, section 3.2.1; grouped heads: Ainslie et al. 2023 (arXiv 2305.13245).
    """

    def __init__(self, head_dim: int, implementation: str = "eager"):
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise ConfigError(
                f"there is no attention implementation {implementation!r}",
                key="attention",
                expected=" | ".join(IMPLEMENTATIONS),
                actual=implementation,
            )
        self.head_dim = head_dim
        self.scale = head_dim**-0.5
        self.implementation = implementation

    def compute_scores(self, q: Float[Tensor, "B S H D"], k: Float[Tensor, "B T K D"]) -> Float[Tensor, "B H S T"]:
        """Scaled scores before any mask: ``q · k / √D`` for every query, key and head.

        Raises InputError when the head counts, head sizes or batch sizes of q and k do not go together.
        """
        self._check(q, k)
        q = rearrange(q, "B S (K G) D -> B K G S D", K=k.shape[2])
        k = rearrange(k, "B T K D -> B K 1 D T")
        return rearrange(q @ k * self.scale, "B K G S T -> B (K G) S T")

    def apply_causal_mask(self, scores: Float[Tensor, "B H S T"]) -> Float[Tensor, "B H S T"]:
        """``-inf`` for every key after the query's own position.

        The S queries are the *last* S of the T positions (T = past + S), so query s sees keys 0 to T - S + s.
        """
        queries, keys = scores.shape[-2:]
        visible = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
        return self.apply_mask(scores, visible)

    def apply_mask(self, scores: Float[Tensor, "B H S T"], visible: Bool[Tensor, "..."]) -> Float[Tensor, "B H S T"]:
        """``-inf`` wherever ``visible`` (broadcast to the scores' shape) is False."""
        return scores.masked_fill(~visible, float("-inf"))

    def softmax(self, masked_scores: Float[Tensor, "B H S T"]) -> Float[Tensor, "B H S T"]:
        """Weights over the keys, summing to 1 for every query; a query that may look at nothing gets zeros."""
        hidden = (masked_scores == float("-inf")).all(-1, keepdim=True)
        scores = masked_scores.masked_fill(hidden, 0.0)
        weights = torch.softmax(scores, dim=-1, dtype=at_least_float32(scores.dtype))
        return weights.masked_fill(hidden, 0.0).to(masked_scores.dtype)

    def weigh_values(self, weights: Float[Tensor, "B H S T"], v: Float[Tensor, "B T K D"]) -> Float[Tensor, "B S H D"]:
        """The sum of the values, each times its weight."""
        weights = rearrange(weights, "B (K G) S T -> B K G S T", K=v.shape[2])
        v = rearrange(v, "B T K D -> B K 1 T D")
        return rearrange(weights @ v, "B K G S D -> B S (K G) D")

    def forward(
        self,
        q: Float[Tensor, "B S H D"],
        k: Float[Tensor, "B T K D"],
        v: Float[Tensor, "B T K D"],
        use_causal_mask: bool = True,
        mask: Bool[Tensor, "..."] | None = None,
        tap: Tap | NoTap = NO_TAP,
    ) -> Float[Tensor, "B S N"]:
        """Attend.

        Args:
            q: queries. k, v: keys and values, cache included.
            use_causal_mask: hide keys after each query; the queries are the last S of the T positions.
            mask: instead of that, which keys each query sees: bool, True is visible; [S, T] or with more axes in front,
                broadcastable to [B, H, S, T].
            tap: where scores, masked_scores, attention_weights and attention_context are shown (``capture``).

        Returns:
            [B, S, H·D]: the heads' outputs side by side, as o_proj expects them.
        """
        self._check(q, k, v)
        if self.implementation == "fused" and not tap.wants(*_EAGER_ONLY):
            context = self._fused(q, k, v, use_causal_mask, mask)
        else:
            scores = tap("scores", self.compute_scores(q, k))
            if mask is not None:
                scores = self.apply_mask(scores, mask)
            elif use_causal_mask:
                scores = self.apply_causal_mask(scores)
            scores = tap("masked_scores", scores)
            weights = tap("attention_weights", self.softmax(scores))
            context = self.weigh_values(weights, v)
        return tap("attention_context", context).flatten(-2)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, use_causal_mask: bool, mask: Tensor | None) -> Tensor:
        queries, keys = q.shape[1], k.shape[1]
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        causal = use_causal_mask and mask is None
        if queries == 1 and (mask is None or (mask.ndim == 4 and mask.shape[1] == 1)):
            # One query sees every position so far: the query heads that share a key head become its rows.
            rows = q.reshape(q.shape[0], k.shape[1], -1, self.head_dim)
            context = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=self.scale)
            return _zeros_where_hidden(context, mask).reshape(q.shape).transpose(1, 2)
        if causal and queries != keys:  # PyTorch's is_causal counts from the top left, a cache needs bottom right
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        context = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=self.scale, enable_gqa=True
        )
        return _zeros_where_hidden(context, mask).transpose(1, 2)

    def _check(self, q: Tensor, *keys_values: Tensor) -> None:
        for name, x in zip("kv", keys_values, strict=False):
            fits = x.shape[0] == q.shape[0] and x.shape[3] == q.shape[3] and q.shape[2] % x.shape[2] == 0
            if not fits or q.shape[3] != self.head_dim or x.shape != keys_values[0].shape:
                raise InputError(
                    f"q and {name} do not go together",
                    key=name,
                    expected=f"q [B, S, H, {self.head_dim}], k and v [B, T, K, {self.head_dim}], H a multiple of K",
                    actual=f"q {list(q.shape)}, "
                    + ", ".join(f"{n} {list(t.shape)}" for n, t in zip("kv", keys_values, strict=False)),
                )


def _zeros_where_hidden(context: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros for queries that may look at nothing: of PyTorch's kernels those for the CPU give them by themselves, some
    of those for CUDA (seen in bfloat16 and float16 with torch 2.11) give other numbers."""
    if mask is None or context.device.type == "cpu":
        return context
    return context.masked_fill(~mask.any(-1, keepdim=True), 0.0)


class LayerCache(NamedTuple):
    """What one layer sees of a KV cache: views to read, and where to write.

    keys, values: [B, K, T, D], the positions that attention reads, the new ones included.
    slots: [S], the index on the T axis of each new position.
    """

    keys: Tensor
    values: Tensor
    slots: Tensor

    def update(
        self, k: Float[Tensor, "B S K D"], v: Float[Tensor, "B S K D"]
    ) -> tuple[Float[Tensor, "B K T D"], Float[Tensor, "B K T D"]]:
        self.keys.index_copy_(2, self.slots, k.transpose(1, 2).to(self.keys.dtype))
        self.values.index_copy_(2, self.slots, v.transpose(1, 2).to(self.values.dtype))
        return self.keys.to(k.dtype), self.values.to(v.dtype)


class SelfAttention(QKVProjection):
    """Checkpoints 2 to 4 in sequence: project x to q, k, v; rotate q and k; attend; project back with o_proj.

    Args:
        hidden_size, num_heads, num_key_value_heads, head_dim, bias, qk_norm_eps: as for ``QKVProjection``; ``bias``
            also gives o_proj one.
        implementation: as for ``Attention``.
        qkv_bias: q_proj, k_proj and v_proj have a bias whatever ``bias`` says (Qwen2).

    Shapes: x [B, S, E] -> [B, S, E]. o_proj is [E, H·D]: every head's output, mixed.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        implementation: str = "eager",
        qkv_bias: bool = False,
        qk_norm_eps: float | None = None,
    ):
        super().__init__(hidden_size, num_heads, num_key_value_heads, head_dim, bias or qkv_bias, qk_norm_eps)
        self.attention = Attention(self.head_dim, implementation)
        self.o_proj = Linear(num_heads * self.head_dim, hidden_size, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B S E"],
        rope: RoPE,
        cos_sin: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "..."] | None = None,
        cache: LayerCache | None = None,
        tap: Tap | NoTap = NO_TAP,
    ) -> Float[Tensor, "B S E"]:
        """Attend over the new positions and, with a cache, all earlier ones.

        Args:
            x: the normalised hidden state.
            rope, cos_sin: the rotation, and its tables at x's positions.
            mask: which of the T positions each query sees; None is causal.
            cache: keys and values to extend, or None.
            tap: where the activations are shown (``capture``).
        """
        q, k, v = super().forward(x)
        q, k, v = tap("q", q), tap("k", k), tap("v", v)
        q = tap("q_rotated", rope.rotate(q, *cos_sin))
        k = tap("k_rotated", rope.rotate(k, *cos_sin))
        keys, values = cache.update(k, v) if cache else (k.transpose(1, 2), v.transpose(1, 2))
        keys, values = tap("cache_k", keys), tap("cache_v", values)
        context = self.attention(q, keys.transpose(1, 2), values.transpose(1, 2), mask=mask, tap=tap)
        return tap("attention_output", self.o_proj(context))


def token_positions(attention_mask: Bool[Tensor, "B S"], start: Int[Tensor, "B"]) -> Int[Tensor, "B S"]:
    """The absolute position of each real token, counted per row from ``start``; -1 for padding."""
    return (start[:, None] + attention_mask.cumsum(-1) - 1).masked_fill(~attention_mask, -1)


def visible_positions(
    query_positions: Int[Tensor, "B S"], key_positions: Int[Tensor, "B T"], window: int | None = None
) -> Bool[Tensor, "B 1 S T"]:
    """Which keys each query sees: those written (position ≥ 0) whose position is not after the query's own.

    With a sliding window, only the last ``window`` of these positions, the query's own included.
    Source: Jiang et al. 2023 (arXiv 2310.06825), section 2.
    """
    keys, queries = key_positions[:, None, None, :], query_positions[:, None, :, None]
    visible = (keys >= 0) & (keys <= queries)
    return visible if window is None else visible & (keys > queries - window)
