"""The parity tests on the table of steps, with a known mistake of the catalogue in it, in the place of the model.

``llama_core.checkpoints`` has every step of a Llama in one table, and a known mistake is the table with a change. Here
the table runs as a whole model in float32 (or bfloat16), behind the calls that the parity tests make, and the tests
hold it to transformers at their own tolerances.
"""

from __future__ import annotations

import inspect
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cases
import numpy as np
import scenarios
import test_neighbours
import test_parity
import torch

from llama_core import Llama
from llama_core.checkpoints.arithmetic import Arithmetic
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.families import LLAMA
from llama_core.checkpoints.mistakes import Mistake
from llama_core.checkpoints.steps import INPUT_STEPS, LAYER_STEPS, NO_CHANGES, OUTPUT_STEPS, Changes, evaluate_model
from llama_core.names import match_activations

_STEPS = {step.name for step in (*INPUT_STEPS, *LAYER_STEPS, *OUTPUT_STEPS)}
#: Those of ``test_neighbours`` that compare a model's values with transformers'; the others generate, or read files.
NEIGHBOUR_TESTS = (
    test_neighbours.test_logits_and_hidden_states_are_those_of_transformers,
    test_neighbours.test_padding_does_not_shift_the_window,
    test_neighbours.test_chunks_through_a_cache_give_the_logits_of_one_pass,
)


def concerns_a_model(mistake: Mistake) -> bool:
    """Whether a mistake can be made in a model: not what is counted beside it, nor what is done with its logits."""
    changes = mistake.changes
    return bool(changes.config or changes.weights or changes.steps.keys() & _STEPS)


class SteppedModel:
    """The table of steps with a model's weights, called as ``Llama`` is called."""

    def __init__(self, model: Llama, changes: Changes = NO_CHANGES):
        self.config = changes.config(model.config) if changes.config else model.config
        weights = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
        self.weights = changes.weights(weights, self.config) if changes.weights else weights
        self.changes, self.dtype = changes, model.dtype
        self.watched, self.seen = (), {}

    def __call__(self, input_ids, attention_mask=None, position_ids=None, cache=None):
        cache = cache or SteppedCache()
        if attention_mask is None:
            attention_mask = torch.ones(len(input_ids), cache.length + input_ids.shape[1], dtype=torch.long)
        given = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        if position_ids is not None:
            given["position_ids"] = position_ids.numpy()
        arithmetic = Arithmetic(str(self.dtype).removeprefix("torch."), wide="float32", float32_tables=True)
        context = Context(self.config, self.weights, given, arithmetic, cache.past, call=cache.calls)
        with np.errstate(all="ignore"):
            values = evaluate_model(context, self.changes)
        cache.keep(values)
        self.seen |= {name: self._tensor(values[name]) for name in self.watched}
        return self._tensor(values["logits"])

    def _tensor(self, value: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


class SteppedCache:
    """What earlier calls left, read as ``KVCache`` is read."""

    def __init__(self, *_, **__):
        self.past, self.calls = {}, 0

    @property
    def length(self) -> int:
        return self.past["key_positions"].shape[1] if self.past else 0

    @property
    def keys(self) -> list[torch.Tensor]:
        return self._layers("cache_k")

    @property
    def values(self) -> list[torch.Tensor]:
        return self._layers("cache_v")

    def _layers(self, name: str) -> list[torch.Tensor]:
        return [torch.from_numpy(x.astype(np.float32)) for key, x in self.past.items() if key.endswith(name)]

    def keep(self, values: dict[str, np.ndarray]) -> None:
        self.past = {n: x for n, x in values.items() if n == "key_positions" or ".cache_" in n}
        self.calls += 1


@contextmanager
def capture(model: SteppedModel, patterns: str | list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """What calls inside the block compute under these names, in the order of the dataflow."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    model.watched, model.seen = match_activations(patterns, model.config.num_hidden_layers), {}
    yield model.seen
    model.watched = ()


@contextmanager
def stepped(changes: Changes) -> Iterator[Callable[[Llama], SteppedModel]]:
    """Inside the block the parity tests hold the table with these changes to transformers."""

    def model(right: Llama) -> SteppedModel:
        return SteppedModel(right, changes)

    def our_model(name, dtype=torch.float32, device="cpu"):
        return model(cases.our_model(name, dtype))

    def from_pretrained(folder, device):
        return model(Llama.from_pretrained(folder))

    with ExitStack() as stack:
        for module, names in {
            scenarios: dict(our_model=our_model, capture=capture, KVCache=SteppedCache),
            test_parity: dict(our_model=our_model, Llama=SimpleNamespace(from_pretrained=from_pretrained)),
            test_neighbours: dict(capture=capture, KVCache=SteppedCache),
        }.items():
            stack.enter_context(mock.patch.multiple(module, **names))
        stack.enter_context(torch.no_grad())
        yield model


def caught_by(mistake: Mistake | None) -> list[str]:
    """The parity tests that fail on the table with the mistake, by name; with None, those that fail without one.

    A mistake in a step of Llama's own meets the tests on Llamas; one in a neighbour's own step those on neighbours,
    since no other model has the step. Each test stops at its first case that fails.
    """
    with tempfile.TemporaryDirectory() as folder, stepped(mistake.changes if mistake else NO_CHANGES) as model:
        found = []
        if mistake is None or mistake.family == LLAMA:
            tests = [test for name, test in vars(test_parity).items() if name.startswith("test_")]
            found += [test.__name__ for test in tests if _fails(test, Path(folder), {})]
        if mistake is None or mistake.family != LLAMA:
            for kind in test_neighbours.KINDS:
                if mistake is None or kind.startswith(mistake.family):
                    theirs, ours, saved = _neighbours(kind)
                    given = {"pair": (theirs, model(ours), saved)}
                    found += [test.__name__ for test in NEIGHBOUR_TESTS if _fails(test, Path(folder), given)]
        return sorted(set(found))


@cache
def _neighbours(kind: str):
    folder = Path(tempfile.mkdtemp())
    try:
        return test_neighbours.make_pair(kind, folder)
    finally:
        shutil.rmtree(folder)


def _fails(test: Callable, folder: Path, given: dict) -> bool:
    """Whether one of the test's cases fails; its parameters are those that pytest would give it."""
    parameters = [mark.args for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    asked = inspect.signature(test).parameters
    given = given | ({"device": torch.device("cpu")} if "device" in asked else {})
    for chosen in itertools.product(*(values for _, values in parameters)):
        arguments = dict(zip((name for name, _ in parameters), chosen, strict=True))
        if "tmp_path" in asked:
            arguments["tmp_path"] = Path(tempfile.mkdtemp(dir=folder))
        try:
            test(**given, **arguments)
        except AssertionError:
            return True
    return False
