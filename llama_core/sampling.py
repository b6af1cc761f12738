"""Checkpoint 9: from logits to the next token, in pure functions.

``logits -> repetition penalty -> / temperature -> top-k -> top-p -> min-p -> softmax -> draw``: the order of
transformers. Each filter sets what it drops to ``-inf`` and leaves the rest as it was, so filters can be put one behind
the other. Everything is computed in float32, whatever the model's type.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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
        min_p: keep the tokens that have at least this part, in [0, 1], of the most likely token's probability; None
            keeps all.
        repetition_penalty: above 1 makes tokens that came before less likely, below 1 more likely; None changes none.

    Raises:
        GenerationError: naming the parameter, what it may be and what it was.
    """

    temperature: float | int = 0.8
    top_k: int | None = None
    top_p: float | int | None = None
    min_p: float | int | None = None
    repetition_penalty: float | int | None = None

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
        _require(
            self.min_p is None or (_is_number(self.min_p) and 0 <= self.min_p <= 1),
            "min_p",
            "a number from 0 to 1, or None",
            self.min_p,
            "None keeps all tokens",
        )
        _require(
            self.repetition_penalty is None
            or (_is_number(self.repetition_penalty) and 0 < self.repetition_penalty < math.inf),
            "repetition_penalty",
            "a finite number above 0, or None",
            self.repetition_penalty,
            "1 or None changes nothing; 1.1 is a mild penalty",
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
    beyond = before >= max(p, _SMALLEST)  # in float32 a smaller p is 0, which would drop the best token too
    dropped = beyond.scatter(-1, order, beyond)
    return logits.masked_fill(dropped, -math.inf)


def keep_min_p(logits: Float[Tensor, "B V"], p: float | int) -> Float[Tensor, "B V"]:
    """Drop all whose probability is below p times the largest: logits below ``max + ln p``. p = 0 drops nothing.

    Source: Nguyen et al. 2024 (arXiv 2407.01082), section 3.
    """
    if p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def penalise_repetition(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], penalty: float | int
) -> Float[Tensor, "B V"]:
    """Divide positive logits of tokens that came before by the penalty, multiply negative ones by it.

    Args:
        logits: of the last position. seen: which tokens the text so far holds. penalty: above 0; 1 changes nothing.

    Source: Keskar et al. 2019 (arXiv 1909.05858), section 4.1, with the multiplication that transformers has for
    negative logits, which a division would make more likely.
    """
    logits = logits.float()
    penalty = min(max(penalty, _SMALLEST), _LARGEST)
    changed = torch.where(logits > 0, logits / penalty, logits * penalty).clamp(-_LARGEST, _LARGEST)
    return torch.where(seen & logits.isfinite(), changed, logits)


def probabilities(
    logits: Float[Tensor, "B V"],
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | int | None = None,
    min_p: float | int | None = None,
    repetition_penalty: float | int | None = None,
    seen: Bool[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B V"]:
    """What `sample` draws from: softmax of the filtered logits, in float32. Temperature 0 gives 1 to the best token.

    Raises:
        GenerationError: a parameter is out of range, or a row of logits has NaN, +inf, or nothing but -inf.
    """
    parameters = SamplingParameters(temperature, top_k, top_p, min_p, repetition_penalty)
    check_logits(logits)
    return _probabilities(_penalised(logits, parameters, seen), parameters)


def _probabilities(logits: Float[Tensor, "B V"], parameters: SamplingParameters) -> Float[Tensor, "B V"]:
    if parameters.greedy:
        return torch.nn.functional.one_hot(greedy(logits), logits.shape[-1]).float()
    logits = apply_temperature(logits, parameters.temperature)
    if parameters.top_k is not None:
        logits = keep_top_k(logits, parameters.top_k)
    if parameters.top_p is not None:
        logits = keep_top_p(logits, parameters.top_p)
    if parameters.min_p is not None:
        logits = keep_min_p(logits, parameters.min_p)
    return logits.softmax(-1)


def _penalised(logits: Tensor, parameters: SamplingParameters, seen: Tensor | None) -> Tensor:
    if parameters.repetition_penalty is None or seen is None:
        return logits
    return penalise_repetition(logits, seen, parameters.repetition_penalty)


def log_probabilities(logits: Float[Tensor, "B V"], tokens: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """``ln softmax(logits)`` of one token in each row, in float32: the model's own, before any filter."""
    return logits.float().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)


def sample(probabilities: Float[Tensor, "B V"], generator: torch.Generator) -> Int[Tensor, "B"]:
    """Draw one token from each row, with one uniform number for each: the first whose cumulative sum exceeds it.

    The sum is taken in float64 on the CPU, so that a seed gives the same ids on every device that gives the same
    probabilities. A token of probability 0 is never drawn.
    """
    cumulative = probabilities.cpu().double().cumsum(-1)  # first there, then float64, which not every device has
    uniform = torch.rand(len(cumulative), 1, generator=generator, dtype=torch.float32, device=generator.device)
    uniform = uniform.cpu().double()
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)


def next_token(
    logits: Float[Tensor, "B V"],
    parameters: SamplingParameters,
    generator: torch.Generator | None,
    seen: Bool[Tensor, "B V"] | None = None,
) -> Int[Tensor, "B"]:
    """The next token of each row.

    Args:
        logits: of the last position. generator: where chance comes from; not used when the temperature is 0.
        seen: which tokens came before, for the repetition penalty.

    Raises:
        GenerationError: a row of logits has NaN, +inf, or nothing but -inf.
    """
    check_logits(logits)
    logits = _penalised(logits, parameters, seen)
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
    """A number that a float can hold: not NaN, not infinite, no whole number of hundreds of digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _require(condition: bool, key: str, expected: str, actual: object, hint: str | None) -> None:
    if not condition:
        raise GenerationError(
            f"{key} is {actual!r}, but must be {expected}", key=key, expected=expected, actual=actual, hint=hint
        )
