"""An implementation named as ``module:name`` or ``file.py:name``, and whether it works in torch or in numpy."""

from __future__ import annotations

import dis
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from llama_core.checkpoints.raised import one_line, where
from llama_core.errors import CheckpointError


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
            f"{place} could not be imported: {one_line(e)}",
            file=place,
            key="implementation",
            expected="a module that imports without an error",
            actual=where(e),
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
