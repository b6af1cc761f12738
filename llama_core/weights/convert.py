"""From one form of model to another, every value bit for bit unless asked otherwise, and what the other cannot say."""

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
from llama_core.weights.gguf_tensor import GgufTensor
from llama_core.weights.load import Source, check_equal_head
from llama_core.weights.meta import is_rotated, meta_names, reorder_heads
from llama_core.weights.meta_params import PARAMS, write_params
from llama_core.weights.open_folder import open_folder
from llama_core.weights.safetensors_file import TORCH_DTYPES
from llama_core.weights.save import place_whole, sync_file, write_huggingface
from llama_core.weights.scan import check_finite
from llama_core.weights.stored import StoredModel

FORMS = {"hf": "huggingface", "meta": "meta", "gguf": "gguf"}
EMBEDDING = "embed_tokens.weight"
_SENTENCEPIECE = "tokenizer.model"
_ARCHIVE = "consolidated.00.pth"


@dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        source, target: the folders, or files. form: of the target, ``hf``, ``meta`` or ``gguf``.
        tensors, bytes: how many were written.
        notes: what the target does not hold or says in another way, in sentences.
        type: what matrices were turned into, as ``--type`` names it; "" where every value stayed as it was.
    """

    source: Path
    target: Path
    form: str
    tensors: int
    bytes: int
    notes: tuple[str, ...]
    type: str = ""

    def to_text(self) -> str:
        how = f"matrices in {self.type}, from" if self.type else "bit for bit those of"
        lines = [f"{self.target}: {self.tensors} tensors, {self.bytes:,} bytes, {how} {self.source}"]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def convert(source: str | PathLike[str], target: str | PathLike[str], to: str, type: str | None = None) -> Conversion:
    """Write a model anew in another form; rows of q and k change places, and no value changes unless ``type`` is given.

    Hugging Face's form has a tied head once, Meta's always has a head. So a head that equals the embedding bit for bit
    is left out on the way to Hugging Face, and written on the way to Meta. ``tokenizer.model`` is copied. The target
    appears whole or not at all.

    Args:
        source: a model folder, a GGUF file, or ``"stories"``.
        target: a folder that is not there yet, or is empty; for ``gguf`` a file that is not there yet.
        to: ``hf``, ``meta`` or ``gguf``.
        type: of GGUF files: what matrices become, ``f32``, ``f16``, ``bf16`` or ``q8_0``; None for what they are.

    Raises:
        WeightsError: the target is in use or cannot be written, or the source is in that form already; and as loading.
        ConfigError: the model computes something that the other form cannot say.
    """
    if to not in FORMS:
        raise WeightsError(f"there is no form {to!r}", key="to", expected=" | ".join(FORMS), actual=to)
    place = named_path(target, "target", WeightsError).resolve()
    if to == "gguf":
        _check_new_file(place)
    elif type:
        raise WeightsError("only GGUF files take a type", key="type", expected="to=gguf", actual=f"to={to}")
    else:
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
    if to == "gguf":
        return _to_gguf(stored, place, type)
    tensors = _read_all(stored)
    notes = [f"{name} is a buffer that is computed when needed, and was left out" for name in stored.ignored]
    total = sum(values.nbytes for values in tensors.values())
    with place_whole(place, lambda name: False, total) as staged:
        if to == "hf":
            config, tied = _tied(stored.config, tensors)
            notes += tied + (_not_in_params(config) if stored.format == "meta" else [])
            named = {file: tensors[name] for name, file, _ in expected_tensors(config)}
            write_huggingface(config, named, staged)
        else:
            notes += write_params(stored.config, staged)
            named = _meta_tensors(stored.config, tensors)
            _write_archive(staged / _ARCHIVE, named)
            sync_file(staged / PARAMS)
        notes += _copy_tokenizer(stored.folder, staged)
    written = sum(values.nbytes for values in named.values())
    if stored.format != "gguf":
        return Conversion(stored.folder, place, to, len(named), written, tuple(notes))
    kinds = sorted({e.type.name for e in stored.parameters.values() if isinstance(e, GgufTensor) and e.type.quantized})
    notes.append(
        "the vocabulary of a GGUF file is not carried over: put the model's own tokenizer.model into the folder"
    )
    notes += [f"{', '.join(kinds)} was multiplied out to float32"] * bool(kinds)
    return Conversion(stored.folder, place, to, len(named), written, tuple(notes), "f32" if kinds else "")


def _to_gguf(stored: StoredModel, place: Path, kind: str | None) -> Conversion:
    from llama_core.weights.gguf_write import KINDS_TO_WRITE, write_gguf

    if kind is not None and kind not in KINDS_TO_WRITE:
        raise WeightsError(f"there is no type {kind!r}", key="type", expected=" | ".join(KINDS_TO_WRITE), actual=kind)
    count, size, notes = write_gguf(stored, place, kind)
    return Conversion(stored.folder, place, "gguf", count, size, tuple(notes), kind or "")


def _check_new_file(place: Path) -> None:
    if place.exists() or place.is_symlink():
        raise WeightsError(
            "the target is in use",
            file=place,
            key="target",
            expected="a file that is not there yet",
            actual="a folder" if place.is_dir() else "a file",
            hint="nothing is overwritten: name a new file, such as model.gguf",
        )


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
    if config.tie_word_embeddings:
        return config, []
    head, embedding = tensors[TIED_HEAD], tensors[EMBEDDING]
    if head.dtype != embedding.dtype or not torch.equal(_bits(head), _bits(embedding)):
        return config, []
    note = "the head equals the embedding: it is stored once, with tie_word_embeddings true"
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
    return torch.empty(0, dtype=values.dtype, device="cpu").set_(storage, 0, values.shape)


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
