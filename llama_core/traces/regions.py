"""What a tensor should be, given the candidate's own inputs: the smallest region between tensors that exist.

A step of the dataflow is computed from what the candidate gives; where one of its inputs is not given, that is computed
first, from the candidate's inputs to it, and so on. What is wrong then is *introduced* by the region, not inherited.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import numpy as np
import torch

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.steps import INPUT_STEPS, LAYER_STEPS, NO_CHANGES, OUTPUT_STEPS, Changes, Step
from llama_core.config import LlamaConfig
from llama_core.traces.format import Call
from llama_core.traces.measure import ulps
from llama_core.traces.model_weights import Parameters, as_float

#: A layer's number, or what comes before or after the layers.
Place = int | str
STEPS: dict[str, Step] = {step.name: step for step in (*INPUT_STEPS, *LAYER_STEPS, *OUTPUT_STEPS)}
_OF_PLACE = {"input": ("position_ids", "embedding"), "output": ("final_norm", "logits")}
#: Rows of the head at a time: in float64 the whole of it takes half a gigabyte in a model of a billion parameters.
_HEAD_ROWS = 1024
_LAYER_NAMES = tuple(step.name for step in LAYER_STEPS)


class Unavailable(Exception):
    """A region cannot be computed from what there is."""


def names_of(place: Place) -> tuple[str, ...]:
    """The steps of a place, without ``layers.N.``."""
    return _LAYER_NAMES if isinstance(place, int) else _OF_PLACE[place]


def full_name(place: Place, name: str) -> str:
    return f"layers.{place}.{name}" if isinstance(place, int) else name


def places(num_layers: int) -> list[Place]:
    return ["input", *range(num_layers), "output"]


class Weights:
    """Parameters rounded to the type that the candidate computes in; those of one place are kept.

    Matrices are float32 where that holds them exactly, all else is float64.
    """

    def __init__(self, parameters: Parameters, dtype: str):
        self._parameters, self._dtype = parameters, dtype
        self._place: Place | None = None
        self._kept: dict[str, np.ndarray | None] = {}

    def get(self, place: Place, name: str) -> np.ndarray | None:
        full = name if name.startswith("layers.") else full_name(place, name)
        if self._place != place:
            self._place, self._kept = place, {}
        if full in self._kept:
            return self._kept[full]
        values = self._parameters.tensor(full)
        values = self._parameters.tensor(name) if values is None else values
        found = None if values is None else as_float(values, self._dtype).numpy()
        if not name.startswith("layers."):  # another layer's are asked for once, by a hypothesis
            self._kept[full] = found
        return found

    def of_ids(self, ids: np.ndarray) -> np.ndarray:
        """[N, E]: some rows of the embedding."""
        table = self._parameters.tensor("embed_tokens.weight")
        return as_float(table[torch.from_numpy(ids)], self._dtype).numpy()

    def head(self) -> Iterator[np.ndarray]:
        """The rows of the head, some at a time."""
        for start in range(0, self._parameters.config.vocab_size, _HEAD_ROWS):
            rows = self._parameters.tensor("lm_head.weight", slice(start, start + _HEAD_ROWS))
            yield as_float(rows, self._dtype).numpy()


class _PlaceWeights(dict):
    """What a step sees as ``context.weights``."""

    def __init__(self, weights: Weights, place: Place):
        super().__init__()
        self._weights, self._place = weights, place

    def get(self, name, default=None):
        found = self._weights.get(self._place, name)
        return default if found is None else found

    def __missing__(self, name):
        return self._weights.get(self._place, name)


class Candidate:
    """The values that regions are computed from.

    Args:
        calls: the candidate's calls.
        provided: ``provided(name, call)`` -> float64 values of all axes, or None; S cut to ``rows(call)``.
        rows: which of a call's S rows the values hold; None for all.
        product_inputs: what the engine rounds the inputs of products with weights to (``Manifest``).
        stored: the type of the files, where it is coarser than what the engine computed in: its steps had finer inputs
            than those that are provided.
    """

    def __init__(
        self,
        calls: list[Call],
        config: LlamaConfig,
        weights: Weights,
        provided: Callable[[str, int], np.ndarray | None],
        rows: Callable[[int], tuple[int, ...] | None],
        product_inputs: str = "",
        stored: str = "",
    ):
        self.calls, self.config, self.weights, self.provided, self.rows = calls, config, weights, provided, rows
        self.product_inputs, self.stored = product_inputs, stored

    def before_storing(self, seed: int) -> Candidate:
        """The same with inputs that would have been stored as these: each anywhere within half a unit of its last
        place."""
        made: dict[tuple[str, int], np.ndarray | None] = {}

        def provided(name: str, call: int) -> np.ndarray | None:
            if (name, call) not in made:
                values = self.provided(name, call)
                if values is not None and values.dtype.kind == "f":
                    random = np.random.default_rng([seed, call, *name.encode()])
                    moved = ulps(np.where(np.isfinite(values), values, 0), self.stored)
                    values = np.where(values == 0, 0, values + moved * random.uniform(-0.5, 0.5, values.shape))
                made[name, call] = values
            return made[name, call]

        return Candidate(self.calls, self.config, self.weights, provided, self.rows, self.product_inputs)

    def region(
        self, place: Place, call: int, arithmetic: Arithmetic = REFERENCE, changes: Changes = NO_CHANGES
    ) -> Region:
        return Region(self, place, call, arithmetic, changes)


class _Values(dict):
    """Activations by name, computed when they are asked for."""

    def __init__(self, region: Region):
        super().__init__()
        self._region = region

    def __missing__(self, name):
        return self._region.value(name)


class _Past(dict):
    def __init__(self, region: Region, before: int):
        super().__init__(key_positions=region.candidate.calls[before].key_positions)
        self._region, self._before = region, before

    def get(self, name, default=None):
        return self[name] if name in ("key_positions", "cache_k", "cache_v") else default

    def __missing__(self, name):
        return self._region.of_past(self._before, name)


class Region:
    """One place of one call, evaluated in one way.

    What it needs of other places and calls, and the candidate does not give, is computed once and kept in ``elsewhere``
    as long as the region: (place, call, name) -> values. Each of so many layers reads so many earlier calls, each of
    which reads the layer before: without that, the work doubles with every layer and call.
    """

    def __init__(
        self,
        candidate: Candidate,
        place: Place,
        call: int,
        arithmetic: Arithmetic,
        changes: Changes,
        elsewhere: dict[tuple[Place, int, str], np.ndarray] | None = None,
    ):
        self.candidate, self.place, self.call = candidate, place, call
        self._elsewhere = {} if elsewhere is None else elsewhere
        self.arithmetic, self.changes = arithmetic, changes
        self.facts = candidate.calls[call]
        self.rows = candidate.rows(call)
        config = changes.config(candidate.config) if changes.config else candidate.config
        # What the context sees leads back here; a circle would keep every array until the next garbage collection.
        me = weakref.proxy(self)
        past = _Past(me, self.facts.past) if self.facts.past is not None else {}
        weights = _PlaceWeights(candidate.weights, place)
        self.context = Context(config, weights, _Values(me), arithmetic, past, call=0 if not past else call)
        self._made: dict[str, np.ndarray] = {}

    def _at(self, place: Place, call: int, name: str) -> np.ndarray:
        """A value of another place or call."""
        key = place, call, name
        if key not in self._elsewhere:
            there = Region(self.candidate, place, call, self.arithmetic, self.changes, self._elsewhere)
            self._elsewhere[key] = there.value(name)
        return self._elsewhere[key]

    def _known(self, place: Place, call: int, name: str) -> bool:
        full = name if name == "key_positions" else full_name(place, name)
        return (place, call, name) in self._elsewhere or self.candidate.provided(full, call) is not None

    def of_past(self, call: int, name: str) -> np.ndarray:
        """What an earlier call left, the calls before it first: one inside the other they would be too deep."""
        chain: list[int] = []
        before: int | None = call
        while before is not None and not self._known(self.place, before, name):
            chain.append(before)
            before = self.candidate.calls[before].past
        for earlier in reversed(chain):
            self._at(self.place, earlier, name)
        return self._at(self.place, call, name)

    def value(self, name: str) -> np.ndarray:
        """What the candidate gives, or what follows from it."""
        if name in ("layer_input", "layer_output"):
            return self._from_before()
        if name == "input_ids":
            return self._cut(self.facts.input_ids)
        if name == "attention_mask":
            return (self.facts.key_positions >= 0).astype(np.int64)
        full = name if name in ("position_ids", "key_positions") else full_name(self.place, name)
        found = self.candidate.provided(full, self.call)
        return self.computed(name) if found is None else found

    def computed(self, name: str) -> np.ndarray:
        """What follows from the inputs of this step."""
        if name not in self._made:
            self._made[name] = self._compute(name)
        return self._made[name]

    def _compute(self, name: str) -> np.ndarray:
        step, ctx = STEPS.get(name), self.context
        if step is None:
            raise Unavailable(name)
        if name.startswith("cache_") and (self.rows is not None or not self._slots_follow()):
            raise Unavailable(name)
        right = self._stated(name) or step.fn
        here = name in names_of(self.place) or name in ("position_ids", "key_positions")
        fn = self.changes.steps.get(name, right) if here else right
        inputs = [self.value(input) for input in step.inputs]
        before, ctx.right = ctx.right, right
        try:
            with np.errstate(all="ignore"):
                if fn is step.fn and name in ("embedding", "logits"):
                    return self._by_vocabulary(fn, *inputs)
                made = fn(ctx, *inputs, *(ctx.weight(weight) for weight in step.weights))
        finally:
            ctx.right = before
        if name == "position_ids" and made.shape == self.facts.positions.shape:
            made = self._cut(made)
        return ctx.arithmetic.round(made, name)

    def _by_vocabulary(self, fn: Callable, x: np.ndarray) -> np.ndarray:
        """The embedding and the logits, from as much of their tables as is needed at a time."""
        weights = self.candidate.weights
        if x.dtype.kind != "f":
            ids, at = np.unique(x, return_inverse=True)
            made = fn(self.context, at.reshape(x.shape), weights.of_ids(ids))
            return self.context.arithmetic.round(made, "embedding")
        out = np.empty((*x.shape[:-1], self.candidate.config.vocab_size))
        start = 0
        for rows in weights.head():
            made = fn(self.context, x, rows)
            out[..., start : start + len(rows)] = self.context.arithmetic.round(made, "logits")
            start += len(rows)
        return out

    def _stated(self, name: str):
        """Positions are those that the trace states: a text need not begin at 0."""
        if name == "position_ids":
            return lambda ctx, mask: self.facts.positions
        if name == "key_positions":
            return lambda ctx, positions: self.facts.key_positions
        return None

    def _slots_follow(self) -> bool:
        past = 0 if self.facts.past is None else self.candidate.calls[self.facts.past].key_positions.shape[1]
        return past + self.facts.positions.shape[1] == self.facts.key_positions.shape[1]

    def _cut(self, values: np.ndarray) -> np.ndarray:
        return values if self.rows is None else values[:, list(self.rows)]

    def _from_before(self) -> np.ndarray:
        """The output of the layer before, the layers below it first."""
        last = self.place if isinstance(self.place, int) else self.candidate.config.num_hidden_layers
        first = last
        while first > 0 and not self._known(first - 1, self.call, "output"):
            first -= 1
        for layer in range(max(first - 1, 0), last):
            self._at(layer, self.call, "output")
        return self._at(last - 1, self.call, "output") if last else self._at("input", self.call, "embedding")
