"""Checkpoint 6: one transformer block."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from llama_core.capture import NO_TAP, NoTap, Tap
from llama_core.config import LlamaConfig
from llama_core.layers.attention import LayerCache, SelfAttention
from llama_core.layers.feed_forward import FeedForward
from llama_core.layers.rms_norm import RMSNorm
from llama_core.layers.rope import RoPE


class Block(nn.Module):
    """Normalise, attend, add; normalise, feed forward, add: ``h = x + A(n₁ x)``, ``y = h + F(n₂ h)``.

    Args:
        config: the model's hyper-parameters.
        implementation: of attention, ``fused`` or ``eager``.

    Shapes: x [B, S, E] -> [B, S, E].
    """

    def __init__(self, config: LlamaConfig, implementation: str = "fused"):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.attention_bias,
            implementation,
            config.qkv_bias,
            config.rms_norm_eps if config.qk_norm else None,
        )
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size, config.mlp_bias)

    def forward(
        self,
        x: Float[Tensor, "B S E"],
        rope: RoPE,
        cos_sin: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "..."] | None = None,
        cache: LayerCache | None = None,
        tap: Tap | NoTap = NO_TAP,
    ) -> Float[Tensor, "B S E"]:
        normed = tap("attention_norm", self.input_layernorm(x))
        h = tap("attention_residual", x + self.self_attn(normed, rope, cos_sin, mask, cache, tap))
        normed = tap("ffn_norm", self.post_attention_layernorm(h))
        return tap("output", h + self.mlp(normed, tap))
