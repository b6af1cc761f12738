"""The right model's parameters, one tensor or a few of its rows at a time: a comparison never needs the whole model.

Of a folder, nothing is read before it is asked for, and nothing is kept. The model itself is loaded only by what runs
it: noise that is not stored beside the golden trace, and ``impact``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llama_core.config import LlamaConfig
from llama_core.dtypes import as_torch_dtype, dtype_name
from llama_core.errors import TraceError
from llama_core.traces.format import fingerprint
from llama_core.weights.load import Source, check_equal_head, stored_dtype
from llama_core.weights.open_folder import open_folder
from llama_core.weights.safetensors_file import TensorEntry
from llama_core.weights.scan import check_finite

if TYPE_CHECKING:
    from llama_core.model import Llama
    from llama_core.traces.read import Trace

_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"


class LoadedModel:
    """The parameters of a model that is in memory."""

    def __init__(self, model: Llama):
        self._model, self._tensors = model, dict(model.state_dict())

    @property
    def config(self) -> LlamaConfig:
        return self._model.config

    @property
    def own_names(self) -> list[str]:
        """Every parameter once: a tied head is the embedding."""
        return [name for name, _ in self._model.named_parameters()]

    def tensor(self, name: str, rows: slice | None = None) -> Tensor | None:
        """A parameter, or some of its rows; None where the model has none of that name."""
        found = self._tensors.get(name)
        return found if found is None or rows is None else found[rows]

    def model(self, dtype: str | None = None) -> Llama:
        """The model itself, or one in another type; parameters that have it already are shared."""
        from llama_core.model import Llama

        if dtype is None or dtype == dtype_name(self._model.dtype):
            return self._model
        twin = Llama(self.config.replace(dtype=dtype))
        tensors = {name: values.to(as_torch_dtype(dtype)) for name, values in self._tensors.items()}
        twin.load_state_dict(tensors, assign=True)
        return twin.to(self._model.device)


class StoredParameters:
    """The parameters of a model folder."""

    def __init__(self, folder: str | PathLike[str]):
        self._folder, self._stored = folder, open_folder(folder)
        self._source, self._dtype = Source(self._stored, mmap=False), stored_dtype(self._stored)
        self._checked: set[str] = set()
        if self.config.tie_word_embeddings:
            check_equal_head(self._stored, self._source)

    @property
    def config(self) -> LlamaConfig:
        return self._stored.config

    @property
    def own_names(self) -> list[str]:
        return list(self._stored.parameters)

    def tensor(self, name: str, rows: slice | None = None) -> Tensor | None:
        name = _EMBEDDING if name == _HEAD and self.config.tie_word_embeddings else name
        entry = self._stored.parameters.get(name)
        if entry is None:
            return None
        if rows is not None and isinstance(entry, TensorEntry):
            entry, rows = _rows_of(entry, rows), None
        values = self._source.tensor(entry)
        if name not in self._checked:
            check_finite(values, entry, self._dtype)
            if entry is self._stored.parameters[name]:
                self._checked.add(name)
        values = values.to(self._dtype)
        return values if rows is None else values[rows]

    def model(self, dtype: str | None = None) -> Llama:
        """The model, loaded anew, in a type or in its own."""
        from llama_core.model import Llama

        return Llama.from_pretrained(self._folder, dtype=dtype)


Parameters = LoadedModel | StoredParameters


def _rows_of(entry: TensorEntry, rows: slice) -> TensorEntry:
    """Some rows of a stored matrix, as an entry of their own."""
    start, stop, _ = rows.indices(entry.shape[0])
    size = entry.nbytes // max(entry.shape[0], 1)
    begin = entry.start + start * size
    return dataclasses.replace(
        entry, start=begin, stop=begin + (stop - start) * size, shape=(stop - start, *entry.shape[1:])
    )


def right_model(model: Llama | str | PathLike[str], golden: Trace) -> Parameters:
    """The parameters of the model whose trace the golden one is.

    Raises:
        TraceError: when it is another model. WeightsError: when the folder cannot be read.
    """
    from llama_core.model import Llama

    parameters: Parameters = LoadedModel(model) if isinstance(model, Llama) else StoredParameters(model)
    if golden.manifest.weights_sha256:
        found = fingerprint((name, _reading(parameters, name)) for name in parameters.own_names)
        if found != golden.manifest.weights_sha256:
            raise TraceError(
                "the golden trace is not of this model",
                key="model",
                expected=f"weights with sha256 {golden.manifest.weights_sha256}",
                actual=f"sha256 {found}",
            )
    return parameters


def _reading(parameters: Parameters, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        values = parameters.tensor(name)
        assert values is not None
        return values

    return read


def as_float(values: Tensor, dtype: str) -> Tensor:
    """Values rounded to a type, on the CPU: matrices in float32 where that holds them exactly, all else in float64."""
    values = values.detach().cpu().to(as_torch_dtype(dtype))
    wide = torch.float64 if values.dtype == torch.float64 or values.ndim < 2 else torch.float32
    return values.to(wide)
