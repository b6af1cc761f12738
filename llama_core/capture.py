"""Read and replace named activations while a model runs: ablation, patching, pictures, traces.

A layer hands each activation to its *tap*: ``q = tap("q", q)``. Without a capture the tap is ``NO_TAP``, which returns
what it is given, so a model that nobody watches computes exactly what it would without taps.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from llama_core.errors import CaptureError
from llama_core.names import activation_names, match_activations

if TYPE_CHECKING:
    from llama_core.model import Llama

Replacement = Callable[[Tensor], Tensor]


class NoTap:
    """The tap of a model that nobody watches."""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        return value

    def layer(self, number: int) -> NoTap:
        return self

    def wants(self, *names: str) -> bool:
        return False


NO_TAP = NoTap()


class Tap:
    """Hands activations to every active capture, the one entered first going first."""

    def __init__(self, captures: Sequence[_Capture], prefix: str = ""):
        self._captures = tuple(captures)
        self._prefix = prefix

    def __call__(self, name: str, value: Tensor) -> Tensor:
        for active in self._captures:
            value = active.visit(self._prefix + name, value)
        return value

    def layer(self, number: int) -> Tap:
        """The tap of one layer: names gain the prefix ``layers.N.``."""
        return Tap(self._captures, f"layers.{number}.")

    def wants(self, *names: str) -> bool:
        """Whether any capture reads or replaces one of these activations."""
        return any(self._prefix + name in active.names for active in self._captures for name in names)


class _Capture:
    def __init__(self, read: set[str], replace: dict[str, Replacement]):
        self._read = read
        self._replace = replace
        self.names = read | set(replace)
        self.seen: dict[str, Tensor] = {}

    def visit(self, name: str, value: Tensor) -> Tensor:
        if name in self._replace:
            value = _checked(name, value, self._replace[name](value))
        if name in self._read:
            # What attention reads may be a view of the caller's cache, which the next step overwrites.
            owned = name.endswith((".cache_k", ".cache_v"))
            self.seen[name] = value.detach().clone() if owned else value.detach()
        return value


@contextmanager
def capture(
    model: Llama,
    patterns: str | Sequence[str] = (),
    replace: Mapping[str, Replacement] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Read, and if wanted replace, activations of every forward pass inside the ``with`` block.

    Args:
        model: the model to watch.
        patterns: activation names (``llama_core.names``) with shell wildcards, e.g. ``"layers.*.attention_weights"``.
        replace: pattern -> function from the activation to what the model should go on with, of the same shape, type
            and device.

    Yields:
        name -> value, in dataflow order, filled by the forward pass; a later pass overwrites an earlier one. Values
        are the model's own tensors, detached (cache_k and cache_v are copies). With a cache, keys, values and scores
        are cut to the positions written so far.

    Raises:
        CaptureError: a pattern names no activation, ``replace`` holds no functions, or a replacement has another
            shape, type or device.

    Layers whose scores or weights are asked for compute attention on the eager path; all others keep theirs. A model
    whose decode step is compiled runs uncompiled while it is watched.

    Example::

        with capture(model, "layers.*.attention_weights") as seen:
            model(ids)
        with capture(model, replace={"layers.2.attention_context": without_head(3)}):
            model(ids)
    """
    layers = model.config.num_hidden_layers
    read = set(_matches(patterns, layers))
    replacements = {name: fn for pattern, fn in _functions(replace) for name in _matches(pattern, layers)}
    active = _Capture(read, replacements)
    model.captures = (*model.captures, active)
    try:
        yield active.seen
    finally:
        model.captures = tuple(c for c in model.captures if c is not active)


def _functions(replace: Any) -> Iterable[tuple[str, Replacement]]:
    pairs = {} if replace is None else replace
    if not isinstance(pairs, Mapping) or not all(map(callable, pairs.values())):
        raise CaptureError(
            "replace is no table of functions",
            key="replace",
            expected="pattern -> function from the activation to its replacement",
            actual=type(pairs).__name__
            if not isinstance(pairs, Mapping)
            else ", ".join(f"{key}: {type(value).__name__}" for key, value in pairs.items() if not callable(value)),
            hint='for example {"layers.0.v": torch.zeros_like}',
        )
    return pairs.items()


def _matches(patterns: Any, num_layers: int) -> list[str]:
    patterns = [patterns] if isinstance(patterns, str) or not isinstance(patterns, Iterable) else list(patterns)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise CaptureError(
            "a pattern is no text",
            key="patterns",
            expected="names of activations, with shell wildcards",
            actual=repr(patterns)[:200],
        )
    for pattern in patterns:
        if not match_activations(pattern, num_layers):
            known = sorted({n.split(".", 2)[-1] if n.startswith("layers.") else n for n in activation_names(1)})
            near = [n for n in known if fnmatch.fnmatchcase(n, f"*{pattern.rsplit('.', 1)[-1].strip('*')}*")]
            raise CaptureError(
                f"the pattern {pattern!r} names no activation of a model with {num_layers} layers",
                key=pattern,
                expected=f"layers 0 to {num_layers - 1} and one of: {', '.join(near or known)}",
                actual=pattern,
                hint='for example "layers.*.attention_weights" or "logits"',
            )
    return match_activations(patterns, num_layers)


def _checked(name: str, old: Tensor, new: object) -> Tensor:
    if not isinstance(new, Tensor) or _kind(new) != _kind(old):
        raise CaptureError(
            f"the replacement for {name} does not fit",
            key=name,
            expected=_kind(old),
            actual=_kind(new) if isinstance(new, Tensor) else type(new).__name__,
        )
    return new


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} {value.dtype} on {value.device}"
