"""From a model folder to a model: every tensor scanned, converted and placed, one after the other."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from llama_core.dtypes import as_device, as_torch_dtype, dtype_name
from llama_core.errors import WeightsError
from llama_core.model import Llama
from llama_core.weights.expected import TIED_HEAD
from llama_core.weights.gguf_tensor import GgufTensor
from llama_core.weights.meta import JoinedTensor
from llama_core.weights.open_folder import open_folder
from llama_core.weights.safetensors_file import TORCH_DTYPES, MappedFile, TensorEntry, read_tensor
from llama_core.weights.scan import check_finite
from llama_core.weights.stored import StoredModel, StoredTensor


def load_model(
    folder: str | PathLike[str],
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    mmap: bool = True,
) -> Llama:
    """The model in a Hugging Face or Meta folder, or in a GGUF file.

    Everything is checked before anything is allocated, and scanned for NaN while it is read. On the CPU and in the
    dtype of the file, the parameters are the file's own pages, mapped privately: nothing is copied (but q and k of Meta
    folders, whose rows change places) and nothing is ever written back. Otherwise one tensor after the other is
    converted and placed, so that no more than the model and one tensor are in memory. ``model.config.dtype`` is what
    the parameters have.

    Args:
        folder: a model folder, a GGUF file, or ``"stories"``.
        dtype: ``float32 bfloat16 float16 float64`` or the torch type; None for the type that the weights have (for
            files of several types, the one that config.json states).
        device: where the weights go.
        mmap: False reads into memory what would be mapped: for files that other programs may cut short or rewrite
            while the model is in use.

    Raises:
        ConfigError, WeightsError: naming the file, the key, what was expected and what was found.
        InputError: there is no such device here.
    """
    stored = open_folder(folder)
    target = as_torch_dtype(dtype) if dtype is not None else stored_dtype(stored)
    place = as_device(device)
    source = Source(stored, mmap)
    moved = [
        entry.nbytes
        for entry in stored.parameters.values()
        if isinstance(entry, TensorEntry) and (place.type != "cpu" or TORCH_DTYPES[entry.dtype] != target)
    ]
    # One buffer for all that is converted or moved: freed buffers of many sizes would stay with the process.
    scratch = torch.empty(max(moved, default=0), dtype=torch.uint8, device="cpu")
    tensors: dict[str, Tensor] = {}
    total = sum(entry.nbytes for entry in stored.parameters.values())
    with tqdm(
        total=total, desc=f"reading {stored.folder.name}", unit="B", unit_scale=True, delay=2, leave=False
    ) as progress:
        for name, entry in stored.parameters.items():
            stays = place.type == "cpu" and TORCH_DTYPES[entry.dtype] == target
            values = source.tensor(entry) if stays else source.passing(entry, scratch)
            check_finite(values, entry, target)
            tensors[name] = values.to(device=place, dtype=target)
            progress.update(entry.nbytes)
    if stored.config.tie_word_embeddings:
        check_equal_head(stored, source)
        tensors[TIED_HEAD] = tensors["embed_tokens.weight"]
    model = Llama(stored.config.replace(dtype=dtype_name(target)))
    model.load_state_dict(tensors, assign=True)
    return model.to(place)


class Source:
    """Tensors as the files hold them: views of mapped files, or (``mmap=False``) copies."""

    def __init__(self, stored: StoredModel, mmap: bool):
        paths = {entry.path for entry in stored.parameters.values() if isinstance(entry, TensorEntry)}
        self._mmap = mmap
        self._files: dict[Path, MappedFile] = {path: MappedFile(path) for path in paths} if mmap else {}

    def tensor(self, entry: StoredTensor) -> Tensor:
        if isinstance(entry, JoinedTensor):
            return entry.read(copy=not self._mmap)
        if isinstance(entry, GgufTensor):
            return entry.read()
        assert isinstance(entry, TensorEntry)
        file = self._files.get(entry.path)
        return file.tensor(entry) if file else read_tensor(entry)

    def passing(self, entry: StoredTensor, scratch: Tensor) -> Tensor:
        """The tensor on its way to another place or type; ``scratch`` may hold it until the next call."""
        return read_tensor(entry, scratch) if isinstance(entry, TensorEntry) else self.tensor(entry)


def stored_dtype(stored: StoredModel) -> torch.dtype:
    """The dtype of all parameters; for files that hold several, the one that the configuration states."""
    dtypes = {entry.dtype for entry in stored.parameters.values()}
    return TORCH_DTYPES[dtypes.pop()] if len(dtypes) == 1 else as_torch_dtype(stored.config.dtype)


def check_equal_head(stored: StoredModel, source: Source) -> None:
    """A head that is stored although it is tied must be the embedding, value for value."""
    head, embedding = stored.extra_head, stored.parameters["embed_tokens.weight"]
    if head is not None and not torch.equal(source.tensor(head), source.tensor(embedding)):
        raise WeightsError(
            "tie_word_embeddings is true, but the file has a head that is not the embedding",
            file=head.path,
            key=TIED_HEAD,
            expected=f"the values of {embedding.name}",
            actual="other values",
            hint="set tie_word_embeddings to false in config.json if the head is the model's own",
        )
