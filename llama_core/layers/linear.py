"""Linear and embedding layers that cost nothing to build without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llama_core.dtypes import at_least_float32

#: Parts that a compiled loop over one token's product reads at the same time.
_STREAMS = 4
#: Weights from which that pays: smaller matrices lie in a cache, where setting up the loop costs more than it saves.
_LARGE = 1 << 18


class Linear(nn.Linear):
    """``nn.Linear`` (``y = x Wᵀ + b``) that leaves its parameters alone on the meta device.

    There is nothing to initialise there, and trying makes PyTorch import its compiler, which takes seconds.

    In a compiled graph on a CPU one token's product is written as the sum that it is: the compiler makes one loop of
    it that reads the weights once, at more of the memory's bandwidth than the library's product of a matrix and a
    vector (``benchmarks/results/speed-cpu.md``). Products and sums are in float32 or wider, as there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and x.device.type == "cpu" and x.numel() == x.shape[-1]:
            y = _product_of_one_token(x, self.weight)
            return y if self.bias is None else y + self.bias
        return super().forward(x)

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


def _product_of_one_token(x: Tensor, weight: Tensor) -> Tensor:
    """``x Wᵀ`` as sums.

    The rows of a large matrix are cut into parts of the same length, and what is left over. The compiler makes one loop
    of sums that have the same length and read the same x: it then reads as many rows at a time, each a stream that the
    memory fetches ahead.
    """
    wide = at_least_float32(x.dtype)
    row = x.reshape(1, -1).to(wide)
    rows, rest = divmod(len(weight), _STREAMS)
    sizes = [rows] * _STREAMS + [rest] * (rest > 0) if weight.numel() >= _LARGE else [len(weight)]
    y = torch.cat([(part.to(wide) * row).sum(-1) for part in weight.split(sizes)])
    return y.to(x.dtype).reshape(*x.shape[:-1], -1)


class Embedding(nn.Embedding):
    """``nn.Embedding``, likewise."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()
