"""How an implementation is recognised and called: ``run(inputs, weights, config) -> {name: array}``, torch or numpy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.loading import arrays_of
from llama_core.checkpoints.outputs import Unfit, kind_of
from llama_core.checkpoints.raised import describe, where
from llama_core.checkpoints.specification import Checkpoint
from llama_core.config import LlamaConfig
from llama_core.errors import CheckpointError

Arrays = dict[str, np.ndarray]
Run = Callable[[dict[str, Any], dict[str, Any], LlamaConfig], Any]


@dataclass(frozen=True)
class Implementation:
    """Something to judge.

    Attributes:
        name: for people.
        run: ``run(inputs, weights, config)`` returns named outputs; a single array where a checkpoint has one output;
            or a tuple in the order of the checkpoint's outputs.
        arrays: what inputs and weights arrive as: ``torch`` tensors or ``numpy`` arrays.
    """

    name: str
    run: Run
    arrays: str = "torch"


def as_implementation(thing: Any, checkpoint: Checkpoint, name: str | None = None) -> Implementation:
    """What a caller hands over, as an implementation.

    Args:
        thing: an ``Implementation``; a function ``run(inputs, weights, config)``; a class or object with such a method
            ``run``; or a class that takes the place of the one that ``llama_core.layers`` has for this checkpoint. A
            function that works in numpy and not in torch is recognised by what it refers to, or says so in an
            attribute ``arrays = "numpy"``.

    Raises:
        CheckpointError: it is none of these.
    """
    if isinstance(thing, Implementation):
        return thing
    name = name or getattr(thing, "__qualname__", type(thing).__name__)
    method = getattr(thing, "run", None)
    if callable(method):
        run = _made(thing, name).run if inspect.isclass(thing) else method
        return Implementation(name, run, arrays_of(run))
    if inspect.isclass(thing):
        from llama_core.checkpoints.own import drop_in

        return Implementation(name, drop_in(checkpoint, thing), "torch")
    if not callable(thing):
        raise CheckpointError(
            f"{name} cannot be called", key="implementation", expected="run(inputs, weights, config)", actual=thing
        )
    try:
        inspect.signature(thing).bind({}, {}, None)
    except TypeError:
        raise CheckpointError(
            f"{name}{inspect.signature(thing)} does not take (inputs, weights, config)",
            key="implementation",
            expected="run(inputs, weights, config) -> {name: array}",
            actual=f"{name}{inspect.signature(thing)}",
            hint=f"llama-core check {checkpoint.id} --interface shows what arrives and what must come back",
        ) from None
    except ValueError:  # a builtin without a signature
        pass
    return Implementation(name, thing, arrays_of(thing))


def _made(cls: type, name: str) -> Any:
    try:
        return cls()
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        raise CheckpointError(
            f"{name}() {describe(e)}",
            key="implementation",
            expected="a class with a method run is made without arguments",
            actual=where(e),
        ) from e


def call(
    implementation: Implementation,
    checkpoint: Checkpoint,
    case: Case,
    inputs: Arrays,
    weights: Arrays,
    dtype: str,
    device: str,
) -> dict[str, Any]:
    """Run it on one case; what it returned, by name.

    Raises:
        Unfit: it raised, or returned something without names.
    """
    try:
        given, own = (
            {name: _give(x, dtype, device, implementation.arrays) for name, x in a.items()} for a in (inputs, weights)
        )
        return _named(implementation.run(given, own, case.config), checkpoint, case)
    except (Unfit, KeyboardInterrupt):
        raise
    except BaseException as e:  # SystemExit, a test library's failure, a cancelled task: none ends the run
        raise Unfit(describe(e), actual=where(e)) from e


def _named(returned: Any, checkpoint: Checkpoint, case: Case) -> dict[str, Any]:
    names = required_outputs(checkpoint, case)
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    if len(names) == 1 and hasattr(returned, "shape"):
        return {names[0]: returned}
    if isinstance(returned, tuple | list) and len(returned) == len(names):
        return dict(zip(names, returned, strict=True))
    found = f"{kind_of(returned)} of {len(returned)}" if isinstance(returned, tuple | list) else kind_of(returned)
    raise Unfit(f"returned {found}, not {{{_listed(names)}: array}}")


def _listed(names: list[str]) -> str:
    """The names in quotes; of many, the first and the last."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted if len(quoted) <= 4 else [*quoted[:2], "…", quoted[-1]])


def required_outputs(checkpoint: Checkpoint, case: Case) -> list[str]:
    """The names of a case's required outputs, ``layers.N.`` spelled out."""
    layers = range(case.config.num_hidden_layers)
    return [
        spelled
        for name in checkpoint.outputs
        for spelled in ([name.replace("N", str(n), 1) for n in layers] if name.startswith("layers.N.") else [name])
    ]


def _give(x: np.ndarray, dtype: str, device: str, arrays: str) -> Any:
    """A fresh copy as the implementation gets it. numpy has no bfloat16: there float32 holds the rounded values."""
    if arrays == "numpy":
        return x.astype((np.float16 if dtype == "float16" else np.float32) if x.dtype.kind == "f" else np.int64)
    import torch

    if x.dtype.kind != "f":
        return torch.tensor(x, device=device)
    target = getattr(torch, dtype)
    if x.dtype == np.float32 and dtype == "float32":
        return torch.tensor(x, device=device)
    return torch.from_numpy(np.ascontiguousarray(x)).to(device=device, dtype=target)
