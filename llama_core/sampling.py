"""Checkpoint 9: from logits to the next token, in pure functions.

``logits / temperature -> top-k -> top-p -> softmax -> draw``: the order of transformers. Each filter sets what it
drops to ``-inf`` and leaves the rest as it was, so filters can be put one behind the other. Everything is computed in
float32, whatever the model's type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_core.errors import GenerationError

_SMALLEST, _LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


@dataclass(frozen=True)
class SamplingParameters:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it. 0 takes the most likely token, always; 1 samples from the model's own
            distribution; the default of 0.8 is somewhat more careful.
        top_k: keep the k most likely tokens; None keeps all.
        top_p: keep the most likely tokens that together reach probability p, in (0, 1]; None keeps all.

    Raises:
        GenerationError: naming the parameter, what it may be and what it was.
    """

    temperature: float | int = 0.8
    top_k: int | None = None
    top_p: float | int | None = None

    def __post_init__(self):
        _require(
            _is_number(self.temperature) and 0 <= self.temperature < math.inf,
            "temperature",
            "a finite number, 0 or more",
            self.temperature,
            None,
        )
        _require(
            self.top_k is None or (_is_whole(self.top_k) and self.top_k >= 1),
            "top_k",
            "a whole number, 1 or more, or None",
            self.top_k,
            "None keeps all tokens",
        )
        _require(
            self.top_p is None or (_is_number(self.top_p) and 0 < self.top_p <= 1),
            "top_p",
            "a number above 0 and at most 1, or None",
            self.top_p,
            "None keeps all tokens; temperature 0 takes the most likely",
        )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken without chance."""
        return self.temperature < _SMALLEST  # below it, float32 divides by zero


def greedy(logits: Float[Tensor, "B V"]) -> Int[Tensor, "B"]:
    """The most likely token of each row; of equals, the one with the lowest id."""
    best = logits.amax(-1, keepdim=True)
    return (logits == best).to(torch.uint8).argmax(-1)


def apply_temperature(logits: Float[Tensor, "B V"], temperature: float | int) -> Float[Tensor, "B V"]:
    """``(logits - max) / temperature``, for any temperature above 0.

    The largest logit becomes 0, which the softmax does not notice, so that no temperature overflows.
    """
    temperature = min(max(temperature, _SMALLEST), _LARGEST)
    logits = logits.float()
    return (logits - logits.amax(-1, keepdim=True)) / temperature


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Drop all that are smaller than the k-th largest. Equals of the k-th all stay, as in transformers."""
    kth = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], p: float | int) -> Float[Tensor, "B V"]:
    """Drop all but the fewest most likely tokens that together reach probability p.

    A token stays if those before it, from the most likely down, have less than p together: the one that crosses p
    stays. Of equals, the lower id comes first. p = 1 drops nothing.

    Source: Holtzman et al. 2020, section 3.1 (nucleus sampling).
    """
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.float().softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = (before >= p).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, -math.inf)


def probabilities(
    logits: Float[Tensor, "B V"],
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | int | None = None,
) -> Float[Tensor, "B V"]:
    """What `sample` draws from: softmax of the filtered logits, in float32. Temperature 0 gives 1 to the best token.

    Raises:
        GenerationError: a parameter is out of range, or a row of logits has NaN, +inf, or nothing but -inf.
    """
    parameters = SamplingParameters(temperature, top_k, top_p)
    check_logits(logits)
    return _probabilities(logits, parameters)


def _probabilities(logits: Float[Tensor, "B V"], parameters: SamplingParameters) -> Float[Tensor, "B V"]:
    if parameters.greedy:
        return torch.nn.functional.one_hot(greedy(logits), logits.shape[-1]).float()
    logits = apply_temperature(logits, parameters.temperature)
    if parameters.top_k is not None:
        logits = keep_top_k(logits, parameters.top_k)
    if parameters.top_p is not None:
        logits = keep_top_p(logits, parameters.top_p)
    return logits.softmax(-1)


def sample(probabilities: Float[Tensor, "B V"], generator: torch.Generator) -> Int[Tensor, "B"]:
    """Draw one token from each row, with one uniform number for each: the first whose cumulative sum exceeds it.

    The sum is taken in float64 on the CPU, so that a seed gives the same ids on every device that gives the same
    probabilities. A token of probability 0 is never drawn.
    """
    cumulative = probabilities.to("cpu", torch.float64).cumsum(-1)
    uniform = torch.rand(len(cumulative), 1, generator=generator, dtype=torch.float32, device=generator.device).to(
        "cpu", torch.float64
    )
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)


def next_token(
    logits: Float[Tensor, "B V"], parameters: SamplingParameters, generator: torch.Generator | None
) -> Int[Tensor, "B"]:
    """The next token of each row.

    Args:
        logits: of the last position. generator: where chance comes from; not used when the temperature is 0.

    Raises:
        GenerationError: a row of logits has NaN, +inf, or nothing but -inf.
    """
    check_logits(logits)
    if parameters.greedy:
        return greedy(logits)
    return sample(_probabilities(logits, parameters), generator)


def check_logits(logits: Float[Tensor, "B V"]) -> None:
    """Raises GenerationError where a row has NaN or +inf, or nothing but -inf: there is no token to choose."""
    largest = logits.amax(-1)  # NaN if any is NaN
    if not bool(largest.isfinite().all()):
        row = int(largest.isfinite().logical_not().nonzero()[0])
        raise GenerationError(
            "the model's logits are not finite, so there is no next token",
            key="logits",
            expected="finite numbers, or -inf for tokens that must not come",
            actual=f"a largest logit of {largest[row].item()} in row {row}",
            hint="float16 overflows on some models: try bfloat16 or float32",
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(condition: bool, key: str, expected: str, actual: object, hint: str | None) -> None:
    if not condition:
        raise GenerationError(
            f"{key} is {actual!r}, but must be {expected}", key=key, expected=expected, actual=actual, hint=hint
        )
