"""A model that computes as another right engine does: what large models' noise is measured with, besides their own.

The ways of one engine agree in much: two attentions share their rotary tables, norms and products, bit for bit. What
another engine may be off by is not in their spread. Here sums, norms and angles are taken in another way, in the time
of a few passes, where the gates' arithmetics (``checkpoints.arithmetic``) would take minutes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llama_core.checkpoints.arithmetic import chained_angles
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.reference import INEXACT, angles, pair_frequencies
from llama_core.config import LlamaConfig
from llama_core.dtypes import at_least_float32
from llama_core.layers.linear import Linear
from llama_core.layers.rms_norm import RMSNorm
from llama_core.layers.rope import RoPE
from llama_core.model import Llama

#: Parts of a product's sum, as in the order ``blocked`` of the gates.
_PARTS = 64


def compute_as_another_engine(model: Llama) -> None:
    """Change a model for good: products summed in parts, norms in float64, rotary angles each from the one before."""
    model.rope = _ChainedRoPE(model.config)
    for module in model.modules():
        if isinstance(module, Linear):
            module.register_forward_hook(_in_parts)
        elif isinstance(module, RMSNorm):
            module.register_forward_hook(_in_float64)


def use_inexact_frequencies(model: Llama) -> None:
    """Change a model for good: rotary frequencies as far off as a power in float32 is (``Arithmetic.angles``)."""
    exact = pair_frequencies(Context(model.config, {}, {}), 1)
    model.rope.frequencies.copy_(torch.from_numpy(exact * INEXACT))


class _ChainedRoPE(RoPE):
    def __init__(self, config: LlamaConfig):
        scaling, length = config.rope_scaling, config.max_position_embeddings
        super().__init__(config.head_dim, config.rope_theta, config.rope_layout, scaling, length)
        self.config = config

    def cos_sin(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        context = Context(self.config, {}, {}, chained_angles("float32"))
        phi = angles(context, position_ids.cpu().numpy())
        cos, sin = (torch.from_numpy(f(phi) * self.attention_factor).float() for f in (np.cos, np.sin))
        return cos.to(position_ids.device), sin.to(position_ids.device)


def _in_parts(linear: Linear, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """``x Wᵀ + b``, one part of the inner axis after the other."""
    x, wide = inputs[0], at_least_float32(y.dtype)
    width = max(8, x.shape[-1] // _PARTS)
    total = torch.zeros_like(y, dtype=wide)
    for part, weight in zip(x.split(width, -1), linear.weight.split(width, -1), strict=True):
        total += part.to(wide) @ weight.to(wide).T
    return (total if linear.bias is None else total + linear.bias).to(y.dtype)


def _in_float64(norm: RMSNorm, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    x = inputs[0].double()
    return (x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()).to(y.dtype) * norm.weight
