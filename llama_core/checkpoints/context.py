"""What a step of the dataflow can see while it is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.config import LlamaConfig


@dataclass
class Context:
    """One evaluation of the table of steps.

    Attributes:
        config: hyper-parameters.
        weights: parameters by name, as in ``Llama.state_dict()``; within one layer without ``layers.N.``.
        values: activations by name, inputs included.
        arithmetic: how to compute.
        past: what earlier calls left in the cache: ``key_positions`` and every ``cache_k`` and ``cache_v``.
        prefix: ``layers.N.`` while a layer of a whole model is evaluated, else empty.
        call: how many calls came before this one (0 for prefill).
        right: the function that the table has for the step being evaluated; a mistake may start from it.
    """

    config: LlamaConfig
    weights: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    arithmetic: Arithmetic = REFERENCE
    past: dict[str, np.ndarray] = field(default_factory=dict)
    prefix: str = ""
    call: int = 0
    right: Callable | None = None

    @property
    def layer(self) -> int:
        """The number of the layer being evaluated."""
        return int(self.prefix.split(".")[1]) if self.prefix else 0

    def weight(self, name: str) -> np.ndarray | None:
        """A parameter of the current layer or of the model; None where the model has none (a bias, a tied head)."""
        found = self.weights.get(self.prefix + name)
        return self.weights.get(name) if found is None else found

    def value(self, name: str) -> np.ndarray:
        """An activation of the current layer or of the model."""
        return self.values[self.prefix + name] if self.prefix + name in self.values else self.values[name]
