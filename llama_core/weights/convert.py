"""From one form of model folder to the other, every value bit for bit, and what the other form cannot say."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from llama_core.config import LlamaConfig
from llama_core.errors import WeightsError
from llama_core.weights.expected import TIED_HEAD, expected_tensors
from llama_core.weights.folder import named_path
from llama_core.weights.load import Source, check_equal_head
from llama_core.weights.meta import is_rotated, meta_names, reorder_heads
from llama_core.weights.meta_params import PARAMS, write_params
from llama_core.weights.open_folder import open_folder
from llama_core.weights.safetensors_file import TORCH_DTYPES
from llama_core.weights.save import place_whole, sync_file, write_huggingface
from llama_core.weights.scan import check_finite
from llama_core.weights.stored import StoredModel

FORMS = {"hf": "huggingface", "meta": "meta"}
EMBEDDING = "embed_tokens.weight"
_SENTENCEPIECE = "tokenizer.model"
_ARCHIVE = "consolidated.00.pth"


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        source, target: the folders. form: of the target, ``hf`` or ``meta``.
        tensors, bytes: how many were written.
        notes: what the target does not hold or says in another way, in sentences.
    """

    source: Path
    target: Path
    form: str
    tensors: int
    bytes: int
    notes: tuple[str, ...]

    def to_text(self) -> str:
        lines = [f"{self.target}: {self.tensors} tensors, {self.bytes:,} bytes, bit for bit those of {self.source}"]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def convert(source: str | PathLike[str], target: str | PathLike[str], to: str) -> Conversion:
    """Write a model folder anew in the other form; no value changes, rows of q and k change places.

    Hugging Face's form has a tied head once, Meta's always has a head. So a head that equals the embedding bit for bit
    is left out on the way to Hugging Face, and written on the way to Meta. ``tokenizer.model`` is copied. The target
    appears whole or not at all.

    Args:
        source: a model folder, or ``"stories"``. target: a folder that is not there yet, or is empty.
        to: ``hf`` or ``meta``.

    Raises:
        WeightsError: the target is in use or cannot be written, or the source is in that form already; and as loading.
        ConfigError: the model computes something that the other form cannot say.
    """
    if to not in FORMS:
        raise WeightsError(f"there is no form {to!r}", key="to", expected=" | ".join(FORMS), actual=to)
    place = named_path(target, "target", WeightsError).resolve()
    _check_empty(place)
    stored = open_folder(source)
    if stored.format == FORMS[to]:
        raise WeightsError(
            "the folder is in that form already",
            file=stored.folder,
            key="to",
            expected=" | ".join(form for form in FORMS if FORMS[form] != stored.format),
            actual=to,
            hint="copy it as it is",
        )
    tensors = _read_all(stored)
    notes = [f"{name} is a buffer that is computed when needed, and was left out" for name in stored.ignored]
    total = sum(values.nbytes for values in tensors.values())
    with place_whole(place, lambda name: False, total) as staged:
        if to == "hf":
            config, tied = _tied(stored.config, tensors)
            notes += tied + _not_in_params(config)
            named = {file: tensors[name] for name, file, _ in expected_tensors(config)}
            write_huggingface(config, named, staged)
        else:
            notes += write_params(stored.config, staged)
            named = _meta_tensors(stored.config, tensors)
            _write_archive(staged / _ARCHIVE, named)
            sync_file(staged / PARAMS)
        notes += _copy_tokenizer(stored.folder, staged)
    written = sum(values.nbytes for values in named.values())
    return Conversion(stored.folder, place, to, len(named), written, tuple(notes))


def _check_empty(place: Path) -> None:
    if not place.exists() and not place.is_symlink():
        return
    entries = sorted(os.listdir(place)) if place.is_dir() else None
    if entries != [] or Path.cwd().is_relative_to(place):
        raise WeightsError(
            "the target is in use",
            file=place,
            key="target",
            expected="a folder that is not there yet, or an empty one",
            actual="a file" if entries is None else f"{len(entries)} entries" if entries else "the working directory",
            hint="nothing is overwritten: name a new folder",
        )


def _read_all(stored: StoredModel) -> dict[str, Tensor]:
    """Every parameter in its own dtype, rows in the half layout, finite; a tied head is not repeated."""
    source = Source(stored, mmap=True)
    tensors = {}
    for name, entry in stored.parameters.items():
        values = source.tensor(entry)
        check_finite(values, entry, TORCH_DTYPES[entry.dtype])
        tensors[name] = values
    check_equal_head(stored, source)
    return tensors


def _tied(config: LlamaConfig, tensors: dict[str, Tensor]) -> tuple[LlamaConfig, list[str]]:
    head, embedding = tensors[TIED_HEAD], tensors[EMBEDDING]
    if head.dtype != embedding.dtype or not torch.equal(_bits(head), _bits(embedding)):
        return config, []
    note = "output.weight equals tok_embeddings.weight: it is stored once, with tie_word_embeddings true"
    return config.replace(tie_word_embeddings=True), [note]


def _not_in_params(config: LlamaConfig) -> list[str]:
    ends = ", ".join(map(str, config.eos_token_ids))
    return [
        f"config.json states a context of {config.max_position_embeddings} tokens, begin id {config.bos_token_id} and "
        f"end ids {ends}; params.json leaves these to the family of the model: check them"
    ]


def _meta_tensors(config: LlamaConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, meta in meta_names(config):
        values = tensors[EMBEDDING if name == TIED_HEAD and config.tie_word_embeddings else name]
        if is_rotated(name):
            values = reorder_heads(values, config.head_dim, "half", "interleaved").contiguous()
        named[meta] = _with_own_storage(values)
    return named


def _with_own_storage(values: Tensor) -> Tensor:
    """The same values as a tensor whose storage is no larger than itself: torch.save writes whole storages."""
    start = values.storage_offset() * values.dtype.itemsize
    storage = values.untyped_storage()[start : start + values.nbytes]
    return torch.empty(0, dtype=values.dtype).set_(storage, 0, values.shape)


def _write_archive(path: Path, tensors: dict[str, Tensor]) -> None:
    with open(path, "xb") as file:
        try:
            torch.save(tensors, file)
        except RuntimeError as e:  # torch's zip writer meets a full disk
            raise OSError(f"torch could not write {path.name}: {str(e).splitlines()[0][:200]}") from e
        file.flush()
        os.fsync(file.fileno())


def _copy_tokenizer(source: Path, target: Path) -> list[str]:
    if (source / _SENTENCEPIECE).is_file():
        shutil.copyfile(source / _SENTENCEPIECE, target / _SENTENCEPIECE)
        sync_file(target / _SENTENCEPIECE)
    others = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "generation_config.json",
    ]
    left = [name for name in others if (source / name).exists()]
    return [f"not carried over: {', '.join(left)}"] if left else []


def _bits(values: Tensor) -> Tensor:
    return values.contiguous().view(-1).view(torch.uint8)
