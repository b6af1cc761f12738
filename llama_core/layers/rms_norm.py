"""Checkpoint 1: root-mean-square normalisation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_core.dtypes import at_least_float32


class RMSNorm(nn.Module):
    """Root-mean-square normalisation: ``x / sqrt(mean(x²) + eps) * weight``, the mean taken over the last axis.

    Computed in float32 (float64 stays float64), cast back to the input's type, then multiplied by the weight: the
    order matters in half precision.

    Args:
        hidden_size: E, the size of the last axis.
        eps: added under the root; 1e-5 for Llama-2.

    Source: Zhang & Sennrich 2019 (arXiv 1910.07467), eq. 4; eps under the root and the cast order as in Meta's
    reference implementation and in transformers' ``LlamaRMSNorm``.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
        x32 = x.to(at_least_float32(x.dtype))
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (x32 * scale).to(x.dtype) * self.weight

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"
