"""Linear and embedding layers that cost nothing to build without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llama_core.dtypes import at_least_float32


class Linear(nn.Linear):
    """``nn.Linear`` (``y = x Wᵀ + b``) that leaves its parameters alone on the meta device.

    There is nothing to initialise there, and trying makes PyTorch import its compiler, which takes seconds.

    In a compiled graph on a CPU one token's product is written as the sum that it is: the compiler makes one loop of
    it that reads the weights once, at more of the memory's bandwidth than the library's product of a matrix and a
    vector (``benchmarks/results/speed-cpu.md``). Products and sums are in float32 or wider, as there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and x.device.type == "cpu" and x.numel() == x.shape[-1]:
            wide = at_least_float32(x.dtype)
            y = (self.weight.to(wide) * x.reshape(1, -1).to(wide)).sum(-1).to(x.dtype).reshape(*x.shape[:-1], -1)
            return y if self.bias is None else y + self.bias
        return super().forward(x)

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embedding(nn.Embedding):
    """``nn.Embedding``, likewise."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()
