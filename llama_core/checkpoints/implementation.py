"""How an implementation is loaded and called: ``run(inputs, weights, config) -> {name: array}``, torch or numpy."""

from __future__ import annotations

import dis
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.noise import computed_in
from llama_core.checkpoints.specification import Checkpoint
from llama_core.config import LlamaConfig
from llama_core.errors import CheckpointError

Arrays = dict[str, np.ndarray]
Run = Callable[[dict[str, Any], dict[str, Any], LlamaConfig], Any]
_WIDER = ("float64", "float128", "longdouble")
#: Types that hold every value of the type asked for.
_WIDE_ENOUGH = {
    "float32": ("float32", *_WIDER),
    "bfloat16": ("bfloat16", "float32", *_WIDER),
    "float16": ("float16", "float32", *_WIDER),
}

#: Characters of an exception's text that are kept.
_LONGEST = 500
#: Where code lies that nobody who is judged has written.
_LIBRARIES = ("<frozen", sysconfig.get_path("stdlib"), f"{Path(__file__).parents[1]}{os.sep}")
#: torch's types that numpy has under the same name.
_IN_NUMPY = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


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


@dataclass(frozen=True)
class Foreign:
    """An output from another process or program: what its type is called, and its values in a type that numpy has.

    ``array`` is None where the output was no array; ``kind`` then says what it was.
    """

    kind: str
    array: np.ndarray | None


class Unfit(CheckpointError):
    """An implementation gave nothing that could be compared, in one line."""


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
            f"{name}() {_describe(e)}",
            key="implementation",
            expected="a class with a method run is made without arguments",
            actual=_where(e),
        ) from e


def load(spec: str) -> Any:
    """The object that ``module:name`` or ``file.py:name`` means.

    Raises:
        CheckpointError: the module does not import, or has nothing of that name.
    """
    place, colon, attribute = spec.rpartition(":")
    if not colon or not place or not attribute:
        raise CheckpointError(
            f"{spec!r} does not say which function",
            key="implementation",
            expected="module:name or file.py:name",
            actual=spec,
        )
    try:
        found: Any = _module(place)
    except (CheckpointError, KeyboardInterrupt):
        raise
    except BaseException as e:
        raise CheckpointError(
            f"{place} could not be imported: {_one_line(e)}",
            file=place,
            key="implementation",
            expected="a module that imports without an error",
            actual=_where(e),
        ) from e
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [n for n, value in vars(found).items() if callable(value) and not n.startswith("_")]
            raise CheckpointError(
                f"{place} has no {attribute!r}",
                file=place,
                key="implementation",
                expected=" | ".join(known) or "a function of that name",
                actual=attribute,
            )
        found = getattr(found, part)
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        message = f"there is no file {place}"
        raise CheckpointError(message, file=place, key="implementation", expected="a Python file", actual="nothing")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module


def arrays_of(run: Any) -> str:
    """``numpy`` for a function that refers to numpy and not to torch, however deep; else ``torch``."""
    stated = getattr(run, "arrays", None)
    if stated in ("torch", "numpy"):
        return stated
    packages = set(_packages(run, set()))
    return "numpy" if "numpy" in packages and "torch" not in packages else "torch"


def _packages(function: Any, seen: set[int]) -> Iterator[str]:
    """The top-level packages that a function and those that it calls refer to."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    names = set(_names(function.__code__))
    yield from names & {"torch", "numpy"}  # imported inside the function
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    for value in [*(function.__globals__[n] for n in names if n in function.__globals__), *cells]:
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
        yield home.partition(".")[0]
        yield from _packages(value, seen)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> Iterator[str]:
    """The global names and modules that code loads; not its attributes: np.cos is no use of a global ``cos``."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"):
            yield instruction.argval.partition(".")[0]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


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
        raise Unfit(_describe(e), actual=_where(e)) from e


def _named(returned: Any, checkpoint: Checkpoint, case: Case) -> dict[str, Any]:
    names = required_outputs(checkpoint, case)
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    if len(names) == 1 and hasattr(returned, "shape"):
        return {names[0]: returned}
    if isinstance(returned, tuple | list) and len(returned) == len(names):
        return dict(zip(names, returned, strict=True))
    found = f"{_kind(returned)} of {len(returned)}" if isinstance(returned, tuple | list) else _kind(returned)
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


def as_compared(
    value: Any, reference: np.ndarray, name: str, axes: str, checkpoint: Checkpoint, dtype: str
) -> np.ndarray:
    """An output as float64 (or int64), once its type and shape are what they must be.

    Raises:
        Unfit: another shape, a type that cannot hold the values, or no array at all.
    """
    found, array = describe_array(value)
    if array is None:
        raise Unfit(f"{name} is {found}, not an array of numbers")
    if reference.dtype.kind == "f":
        allowed = _WIDE_ENOUGH[computed_in(checkpoint, dtype)]
        if found not in allowed:
            raise Unfit(f"{name} is {found}, expected {allowed[0]}")
    elif array.dtype.kind not in "iub":
        raise Unfit(f"{name} is {found}, expected whole numbers")
    if reference.shape == (1,) and array.shape == ():
        array = array[None]
    if array.shape != reference.shape:
        raise Unfit(
            f"{name} has shape {list(array.shape)}, expected {list(reference.shape)} = [{axes.replace(' ', ', ')}]"
        )
    return array.astype(np.float64 if reference.dtype.kind == "f" else np.int64)


def describe_array(value: Any) -> tuple[str, np.ndarray | None]:
    """The name of an array's type and its values in a type that numpy has; what it is, and None, if it is no array."""
    if isinstance(value, Foreign):
        return value.kind, value.array
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        return _describe_tensor(value)
    if not isinstance(value, int | float | list | tuple) and not hasattr(value, "__array__"):
        return _kind(value), None
    try:
        array = np.asarray(value)
    except Exception:  # rows of different length, or whatever another library's array raises
        return f"{_kind(value)} that numpy cannot read", None
    if array.dtype.kind in "fiubc":
        return array.dtype.name, array
    return f"an array of {array.dtype.name}", None


def _describe_tensor(value: Any) -> tuple[str, np.ndarray | None]:
    found = str(value.dtype).removeprefix("torch.")
    if value.is_complex():  # numpy has it, and no output is
        return found, np.zeros(tuple(value.shape), np.complex64)
    try:
        value = value.detach().cpu()
        return found, (value if found in _IN_NUMPY else value.float()).numpy()
    except (RuntimeError, TypeError):  # sparse, nested, quantized, or on the device "meta"
        layout = str(value.layout).removeprefix("torch.")
        return f"a tensor of {found} whose values cannot be read ({value.device}, {layout})", None


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


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' or name == 'ndarray' else 'a'} {name}"


def _one_line(e: BaseException) -> str:
    try:
        text = " ".join(str(e).split())
    except Exception:  # an exception that cannot be printed
        text = ""
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return f"{type(e).__name__}: {text}" if text else type(e).__name__


def _describe(e: BaseException) -> str:
    if isinstance(e, SystemExit):
        return f"called sys.exit({'' if e.code is None else repr(e.code)})"
    return f"raised {_one_line(e)}"


def _where(e: BaseException) -> str | None:
    """The last line of somebody else's code in a traceback, libraries left out where they can be."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename != __file__]
    written = [f for f in frames if not f.filename.startswith(_LIBRARIES) and "site-packages" not in f.filename]
    return f"{(written or frames)[-1].filename}:{(written or frames)[-1].lineno}" if frames else None
