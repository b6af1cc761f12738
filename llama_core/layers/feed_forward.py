"""Checkpoint 5: the gated feed-forward layer."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from llama_core.capture import NO_TAP, NoTap, Tap
from llama_core.layers.linear import Linear


class FeedForward(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))`` with ``silu(z) = z · sigmoid(z)``.

    Args:
        hidden_size: E. intermediate_size: F. bias: whether the three projections have one; Llama's have none.

    Shapes: x [B, S, E] -> [B, S, E], with F coordinates in between.

    Source: Shazeer 2020 (arXiv 2002.05202), eq. 6. Meta's files call gate, up and down w1, w3 and w2.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False):
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=bias)

    def forward(self, x: Float[Tensor, "B S E"], tap: Tap | NoTap = NO_TAP) -> Float[Tensor, "B S E"]:
        gate = tap("ffn_gate", self.gate_proj(x))
        up = tap("ffn_up", self.up_proj(x))
        activation = tap("ffn_activation", F.silu(gate))
        hidden = tap("ffn_hidden", activation * up)
        return tap("ffn_output", self.down_proj(hidden))
