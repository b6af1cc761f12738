"""What an implementation returned, as arrays that can be compared; or in one line why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_core.checkpoints.noise import computed_in
from llama_core.checkpoints.specification import Checkpoint
from llama_core.errors import CheckpointError

_WIDER = ("float64", "float128", "longdouble")
#: Types that hold every value of the type asked for.
_WIDE_ENOUGH = {
    "float32": ("float32", *_WIDER),
    "bfloat16": ("bfloat16", "float32", *_WIDER),
    "float16": ("float16", "float32", *_WIDER),
}
#: torch's types that numpy has under the same name.
_IN_NUMPY = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class Foreign:
    """An output from another process or program: what its type is called, and its values in a type that numpy has.

    ``array`` is None where the output was no array; ``kind`` then says what it was.
    """

    kind: str
    array: np.ndarray | None


class Unfit(CheckpointError):
    """An implementation gave nothing that could be compared, in one line."""


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
        return kind_of(value), None
    try:
        array = np.asarray(value)
    except Exception:  # rows of different length, or whatever another library's array raises
        return f"{kind_of(value)} that numpy cannot read", None
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


def kind_of(value: Any) -> str:
    """What a value is, with its article: ``a list``, ``an ndarray``, ``None``."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' or name == 'ndarray' else 'a'} {name}"
