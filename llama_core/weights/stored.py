"""A model on disk, whatever format it is in: its configuration and where each parameter's bytes are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from llama_core.config import LlamaConfig
from llama_core.weights.safetensors_file import TensorEntry


@runtime_checkable
class StoredTensor(Protocol):
    """One tensor of a folder, not read yet: its name there, the file it is in, dtype as safetensors names it, shape."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def numel(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class StoredModel:
    """What opening a model folder gives; no weight has been read, every name, shape and dtype has been checked.

    Attributes:
        folder: the folder. format: ``"huggingface"`` or ``"meta"``. config: its configuration.
        files: the names of the weight files.
        parameters: name in ``Llama.state_dict()`` -> the tensor that holds it.
        extra_head: the entry of a head that the file holds although it is tied, or None. It must equal the embedding.
        ignored: names of harmless buffers that are not read.
    """

    folder: Path
    format: str
    config: LlamaConfig
    files: tuple[str, ...]
    parameters: Mapping[str, StoredTensor]
    extra_head: TensorEntry | None
    ignored: tuple[str, ...]
