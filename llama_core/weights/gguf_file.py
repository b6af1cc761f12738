"""A GGUF file, opened as a model: every name, shape and type checked, no weight read."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path

import numpy as np

from llama_core.errors import WeightsError
from llama_core.weights.expected import check_size, match_tensors
from llama_core.weights.gguf_config import ROPE_FACTORS, read_gguf_config
from llama_core.weights.gguf_header import read_gguf_header
from llama_core.weights.gguf_tensor import GgufTensor
from llama_core.weights.meta import is_rotated
from llama_core.weights.stored import StoredModel

_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def open_gguf(path: str | PathLike[str]) -> StoredModel:
    """Read and check everything in a GGUF file but its weights.

    The dtype of the model is that of its tensors where they have one, else float32, which loses nothing: files with
    half-precision matrices keep their norms in float32, and quantized values are float32 once they are multiplied out.

    Raises:
        ConfigError, WeightsError: with file, key, expected, actual and a hint.
    """
    path = Path(path).expanduser()
    header = read_gguf_header(path)
    found = dict(header.tensors)
    factors = found.pop(ROPE_FACTORS, None)
    dtypes = {entry.dtype for entry in found.values()}
    dtype = _NAMES[dtypes.pop()] if len(dtypes) == 1 else "float32"
    config = read_gguf_config(header, dtype, _values(factors))
    check_size(config, found, path.parent, path.name)
    parameters = match_tensors(config, found, path, "gguf")
    for name, entry in parameters.items():
        if is_rotated(name) or name.endswith(("q_proj.bias", "k_proj.bias")):
            parameters[name] = dataclasses.replace(entry, head_dim=config.head_dim)
    ignored = (ROPE_FACTORS,) if factors is not None else ()
    return StoredModel(path, "gguf", config, (path.name,), parameters, None, ignored)


def product_inputs(stored: StoredModel) -> str:
    """The coarsest type that llama.cpp rounds the inputs of this file's products to; "" where none is rounded."""
    order = ("", "float16", "bfloat16", "q8_k", "q8_0")
    kinds = {e.type.inputs for e in stored.parameters.values() if isinstance(e, GgufTensor) and len(e.shape) == 2}
    return max(kinds, key=order.index)


def _values(entry: GgufTensor | None) -> np.ndarray | None:
    if entry is None:
        return None
    if entry.dtype != "F32" or entry.type.quantized or len(entry.shape) != 1 or entry.numel > 4096:
        raise WeightsError(
            f"{entry.name} is no list of factors",
            file=entry.path,
            key=entry.name,
            expected="F32, one for each rotary pair",
            actual=f"{entry.type.name} {list(entry.shape)}",
        )
    values = entry.read().numpy().astype(np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise WeightsError(f"{entry.name} holds impossible factors", file=entry.path, key=entry.name, expected="> 0")
    return values
