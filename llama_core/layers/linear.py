"""Linear and embedding layers that cost nothing to build without weights."""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """``nn.Linear`` that leaves its parameters alone on the meta device.

    There is nothing to initialise there, and trying makes PyTorch import its compiler, which takes seconds.
    """

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embedding(nn.Embedding):
    """``nn.Embedding``, likewise."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()
