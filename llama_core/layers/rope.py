"""Checkpoint 1B: rotary position embedding, in both layouts and with every published frequency scaling."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_core.config import ROPE_LAYOUTS, RopeScaling
from llama_core.errors import ConfigError


def default_frequencies(head_dim: int, theta: float) -> np.ndarray:
    """Radians per position of each of the D/2 pairs, float64: ``theta^(-2i/D)``. Source: Su et al. 2021, eq. 15."""
    return theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)


def llama3_frequencies(frequencies: np.ndarray, scaling: RopeScaling, length: int) -> np.ndarray:
    """Slow pairs are divided by ``factor``, fast ones kept, those between blended linearly in turns per length.

    A pair turns ``length · frequency / 2π`` times within the original length: fewer than ``low_freq_factor`` times
    is slow, more than ``high_freq_factor`` fast. Source: ``apply_scaling`` in Meta's llama-models repository (3.1).
    """
    turns = length * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling.factor


def yarn_frequencies(
    frequencies: np.ndarray, scaling: RopeScaling, length: int, head_dim: int, theta: float
) -> np.ndarray:
    """Like llama3, but blended linearly in the pair's index between two borders. Source: YaRN, arXiv 2309.00071, 3.2.

    The border for ``n`` turns is the (fractional) index of the pair that turns n times within the original length.
    """

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(length / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first if last != first else 0.001
    stretch = np.clip((np.arange(head_dim // 2) - first) / width, 0, 1)
    return (1 - stretch) * frequencies + stretch * frequencies / scaling.factor


def yarn_attention_factor(scaling: RopeScaling) -> float:
    """What cosines and sines are multiplied by; ``0.1 ln(factor) + 1`` unless stated. Source: YaRN, eq. 22."""

    def temperature(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return temperature(scaling.mscale) / temperature(scaling.mscale_all_dim)
    return temperature(1.0)


def layout_permutation(head_dim: int, source: str, target: str) -> list[int]:
    """Which coordinate of a head in layout ``source`` each coordinate in layout ``target`` is.

    ``half`` keeps pair i at (i, i + D/2), ``interleaved`` at (2i, 2i + 1). Permuting the D rows of every head of
    q_proj and k_proj (each with its own head count) by this converts weights from one layout to the other.
    """
    half = head_dim // 2
    coordinate = {
        "half": lambda pair, member: pair + member * half,
        "interleaved": lambda pair, member: 2 * pair + member,
    }
    permutation = [0] * head_dim
    for pair in range(half):
        for member in (0, 1):
            permutation[coordinate[target](pair, member)] = coordinate[source](pair, member)
    return permutation


def _rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _rotate_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)


_ROTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "half": _rotate_half,
    "interleaved": _rotate_interleaved,
}


class RoPE(nn.Module):
    """Rotary position embedding: pair i of a head at position p is turned by the angle ``p · theta^(-2i/D)``.

    ``(a, b) -> (a cos φ - b sin φ, b cos φ + a sin φ)``. Angles, cosines and sines are float32 whatever the model's
    type, and the frequencies stay float32 when the model is cast: in bfloat16 a cosine at position 4095 can be off
    by more than 1.

    Args:
        head_dim: D, even.
        theta: base of the wavelengths; 10000 for Llama-2, 500000 for Llama-3.
        layout: ``half``: pair i is (i, i + D/2), as in Hugging Face files. ``interleaved``: (2i, 2i + 1), as in
            Meta's files, llama.cpp and the Rust code that checkpoint 3 began with. Weights of one layout are
            gibberish in the other.
        scaling: how the frequencies are stretched, or None.
        max_position_embeddings: the context length, which scalings fall back on when they state no original length.

    ``dynamic`` scaling depends on the length of the text so far: each row of a batch takes its own longest position
    in this call. Keys that a cache already holds keep the frequencies of the call that wrote them, so beyond the
    original length cached and uncached runs differ; that lies in the method, and transformers behaves the same way.

    Source: Su et al. 2021 (arXiv 2104.09864), section 3.4.2.
    """

    frequencies: Tensor

    def __init__(
        self,
        head_dim: int,
        theta: float = 10000.0,
        layout: str = "half",
        scaling: RopeScaling | None = None,
        max_position_embeddings: int = 2048,
    ):
        super().__init__()
        if layout not in ROPE_LAYOUTS:
            raise ConfigError(
                f"there is no rotary layout {layout!r}", key="layout", expected=" | ".join(ROPE_LAYOUTS), actual=layout
            )
        self.head_dim, self.theta, self.layout = head_dim, theta, layout
        self.scaling = scaling or RopeScaling()
        self.original_length = self.scaling.original_max_position_embeddings or max_position_embeddings
        if self.scaling.kind == "dynamic":  # its length is the context length, as in transformers
            self.original_length = max_position_embeddings
        self.attention_factor = yarn_attention_factor(self.scaling) if self.scaling.kind == "yarn" else 1.0
        self.register_buffer("frequencies", self._table(), persistent=False)

    def _table(self) -> Float[Tensor, "P"]:
        frequencies = default_frequencies(self.head_dim, self.theta)
        scaling, length = self.scaling, self.original_length
        if scaling.kind == "linear":
            frequencies = frequencies / scaling.factor
        elif scaling.kind == "llama3":
            frequencies = llama3_frequencies(frequencies, scaling, length)
        elif scaling.kind == "yarn":
            frequencies = yarn_frequencies(frequencies, scaling, length, self.head_dim, self.theta)
        return torch.tensor(frequencies.tolist(), dtype=torch.float32)

    def _apply(self, fn, recurse=True):
        # A cast of the model must not reach the table, and a model that leaves the meta device needs it computed.
        device = fn(self.frequencies).device
        super()._apply(fn, recurse)
        with torch.device("cpu"):
            table = self._table()
        self.frequencies = table.to(device)
        return self

    def _dynamic_frequencies(self, position_ids: Tensor) -> Tensor:
        """[B, 1, D/2]: the frequencies for the length each row has reached; theta grows with it.

        ``theta · (factor · length / original - (factor - 1))^(D / (D - 2))``; below the original length that is theta.
        """
        length = (position_ids.amax(-1) + 1).clamp(min=self.original_length).float()
        growth = self.scaling.factor * length / self.original_length - (self.scaling.factor - 1)
        theta_growth = growth ** (self.head_dim / (self.head_dim - 2))
        exponents = torch.arange(0, self.head_dim, 2, device=position_ids.device).float() / self.head_dim
        return self.frequencies * theta_growth[:, None, None] ** -exponents

    def cos_sin(self, position_ids: Int[Tensor, "B S"]) -> tuple[Float[Tensor, "B S 1 P"], Float[Tensor, "B S 1 P"]]:
        """Cosine and sine of each of the P = D/2 pairs at every position, float32, ready to broadcast over heads."""
        dynamic = self.scaling.kind == "dynamic"
        frequencies = self._dynamic_frequencies(position_ids) if dynamic else self.frequencies
        angles = (position_ids[..., None].float() * frequencies)[:, :, None, :]
        return angles.cos() * self.attention_factor, angles.sin() * self.attention_factor

    def rotate(
        self, x: Float[Tensor, "B S N D"], cos: Float[Tensor, "B S 1 P"], sin: Float[Tensor, "B S 1 P"]
    ) -> Float[Tensor, "B S N D"]:
        """Turn the pairs of every head; computed in float32, returned in x's type."""
        return _ROTATIONS[self.layout](x.to(torch.promote_types(x.dtype, cos.dtype)), cos, sin).to(x.dtype)

    def forward(
        self, q: Float[Tensor, "B S H D"], k: Float[Tensor, "B S K D"], position_ids: Int[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S H D"], Float[Tensor, "B S K D"]]:
        """q and k turned to their absolute positions. v is never rotated."""
        cos, sin = self.cos_sin(position_ids)
        return self.rotate(q, cos, sin), self.rotate(k, cos, sin)

    def extra_repr(self) -> str:
        return f"{self.head_dim}, theta={self.theta}, layout={self.layout}, scaling={self.scaling.kind}"
