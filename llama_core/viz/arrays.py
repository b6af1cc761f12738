"""Tensors into arrays, checked: what a figure was handed, under the axis letters of `llama_core.names`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from llama_core.errors import InputError

#: What figures take: a torch tensor of any type on any device, a numpy array, or nested lists. They are checked by
#: `as_array`, whose errors say what is wrong with them.
Values = Any

#: Axis letter -> its size, and the argument that gave it.
Sizes = dict[str, tuple[int, str]]


def as_array(values: Values, name: str, axes: str, sizes: Sizes | None = None) -> np.ndarray:
    """A float64 copy on the host; a leading batch axis of one is dropped.

    Args:
        values: the tensor. name: what to call it in errors.
        axes: its axes, e.g. ``"S T"``. sizes: sizes of letters seen so far, to agree with and to add to.

    Raises:
        InputError: no numbers, no such axes, an empty axis, or another size than an earlier argument's.
    """
    try:
        if hasattr(values, "detach"):
            values = values.detach().double().cpu().numpy()
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{array.dtype} is no real number")
        array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise InputError(
            f"{name} cannot be drawn: {problem}", key=name, expected=shape_text(axes), actual=type(values).__name__
        ) from None
    letters = axes.split()
    if array.ndim == len(letters) + 1 and array.shape[0] == 1:
        array = array[0]
    known = {} if sizes is None else sizes
    wanted = [known[letter][0] if letter in known else None for letter in letters]
    fits = array.ndim == len(letters) and array.size > 0
    if not fits or any(w not in (None, n) for w, n in zip(wanted, array.shape, strict=True)):
        agreed = [f"{a} = {known[a][0]} as in {known[a][1]}" for a in letters if a in known]
        raise InputError(
            f"{name} does not have the shape that this figure needs",
            key=name,
            expected=", ".join([shape_text(axes), *agreed]),
            actual=list(array.shape),
            hint="take one sequence of the batch, e.g. weights[0]" if array.ndim == len(letters) + 1 else None,
        )
    for letter, size in zip(letters, array.shape, strict=True):
        known.setdefault(letter, (size, name))
    return array


def as_mask(values: Values, name: str, axes: str, sizes: Sizes | None = None) -> np.ndarray:
    """A boolean array; anything but False and True (or 0 and 1) raises InputError."""
    array = as_array(values, name, axes, sizes)
    if not np.isin(array, (0, 1)).all():
        raise InputError(
            f"{name} must say yes or no for every cell", key=name, expected="False or True", actual="other numbers"
        )
    return array.astype(bool)


def shape_text(axes: str) -> str:
    """``"S T"`` as ``"[S, T]"``."""
    return f"[{', '.join(axes.split())}]"


def layer_arrays(values: Values, activation: str, axes: str, sizes: Sizes | None = None) -> list[np.ndarray]:
    """One array a layer, from what `llama_core.capture` has seen, a list of layers, or a tensor with the axis L first.

    Args:
        values: a mapping with ``layers.N.<activation>`` for every N from 0, or the layers themselves.
        activation: e.g. ``"attention_weights"``. axes: of one layer, without batch.

    Raises:
        InputError: no layer, a layer missing between others, or as for `as_array`.
    """
    sizes = {} if sizes is None else sizes
    if not isinstance(values, Mapping):
        if isinstance(values, str) or not hasattr(values, "__len__") or not len(values):
            raise InputError(
                "there are no layers to draw",
                key=activation,
                expected=f"one {shape_text(axes)} for each layer",
                actual=type(values).__name__,
            )
        return [as_array(value, f"layer {n} of {activation}", axes, sizes) for n, value in enumerate(values)]
    pattern = re.compile(rf"layers\.(\d+)\.{re.escape(activation)}")
    found = sorted(int(match[1]) for match in map(pattern.fullmatch, values) if match)
    if not found or found != list(range(len(found))):
        raise InputError(
            f"not every layer's {activation} is there",
            key=f"layers.*.{activation}",
            expected=f"layers.0.{activation} and so on, without gaps",
            actual=f"layers {', '.join(map(str, found))}" if found else "none",
            hint=f'capture them: capture(model, "layers.*.{activation}")',
        )
    return [
        as_array(values[f"layers.{n}.{activation}"], f"layers.{n}.{activation}", axes, sizes) for n in range(len(found))
    ]
