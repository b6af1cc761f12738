"""Write a model as a GGUF file for llama.cpp: one tensor in memory at a time, whole or not at all.

Rows of q and k are put in llama.cpp's interleaved order. Norms and biases are float32, which llama.cpp asks for.
Source of names and keys: ``gguf-py`` and ``convert_hf_to_gguf.py`` in llama.cpp.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llama_core.config import LlamaConfig
from llama_core.errors import WeightsError
from llama_core.sentencepiece_model import KINDS, SentencePieceModel, parse_sentencepiece_model
from llama_core.weights.expected import expected_tensors
from llama_core.weights.folder import read_small_file
from llama_core.weights.gguf_config import ARCHITECTURE, ROPE_FACTORS, gguf_metadata, rope_factors, with_length
from llama_core.weights.gguf_tensor import TYPES, StoredType, gguf_package
from llama_core.weights.load import Source, check_equal_head
from llama_core.weights.meta import is_rotated, reorder_heads
from llama_core.weights.replace_folder import sync_folder
from llama_core.weights.scan import check_finite
from llama_core.weights.stored import StoredModel, StoredTensor

#: What matrices can be written as -> ggml's name for it.
KINDS_TO_WRITE = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
_BY_NAME = {stored.name: stored for stored in TYPES.values()}
_EXACT = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_VOCABULARY = "tokenizer.model"
_MAX_VOCABULARY = 64 * 2**20
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}


@dataclass(frozen=True)
class Planned:
    """One tensor to write: its names, shape, where it comes from (None for the rotary factors) and how it is stored."""

    name: str
    shape: tuple[int, ...]
    source: StoredTensor | None
    type: StoredType
    rotated: bool = False


def write_gguf(stored: StoredModel, path: Path, kind: str | None = None) -> tuple[int, int, list[str]]:
    """Write a model to ``path``, which must not be there. Returns how many tensors and bytes of values, and notes.

    Args:
        kind: what matrices become, of ``KINDS_TO_WRITE``; None for what they are, bit for bit.

    Raises:
        ConfigError: GGUF cannot say what the model computes.
        WeightsError: the ``gguf`` package is not installed, a value does not fit the type, the file cannot be written.
    """
    gguf = gguf_package()
    notes: list[str] = []
    metadata = gguf_metadata(stored.config)
    planned = _plan(stored, kind, notes)
    vocabulary = _vocabulary(stored, notes)
    source = Source(stored, mmap=True)
    check_equal_head(stored, source)
    total = 0
    with _whole_file(path) as staged:
        writer = gguf.GGUFWriter(staged, ARCHITECTURE)
        try:
            _add_metadata(gguf, writer, metadata | vocabulary, stored, planned)
            for plan in planned:
                shape, dtype, nbytes = _as_written(plan)
                raw = gguf.GGMLQuantizationType[plan.type.name]
                writer.add_tensor_info(plan.name, shape, np.dtype(dtype), nbytes, raw)
                total += nbytes
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for plan in planned:
                writer.write_tensor_data(_values(gguf, plan, source, stored.config))
        finally:
            writer.close()
    return len(planned), total, notes


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A file to write, which gets its name when it is whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.saving-", dir=path.parent)
        os.close(descriptor)
        staged = Path(name)
        try:
            yield staged
            with open(staged, "rb+") as file:
                os.fsync(file.fileno())
            umask = os.umask(0o077)
            os.umask(umask)
            os.chmod(staged, 0o666 & ~umask)
            os.rename(staged, path)
            sync_folder(path.parent)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as e:
        raise WeightsError(
            f"the file could not be written: {e.strerror or e}",
            file=path,
            key="target",
            expected="room on the disk and the right to write",
            actual=e.strerror or str(e),
        ) from e


def _plan(stored: StoredModel, kind: str | None, notes: list[str]) -> list[Planned]:
    planned = []
    scaling = stored.config.rope_scaling
    if scaling is not None and scaling.kind == "llama3":
        planned.append(Planned(ROPE_FACTORS, (stored.config.head_dim // 2,), None, _BY_NAME["F32"]))
    whole = []
    for name, file, shape in expected_tensors(stored.config, "gguf"):
        entry = stored.parameters[name]
        chosen = KINDS_TO_WRITE[kind] if kind else entry.dtype
        if len(shape) == 1:
            chosen = "F32"
        if chosen not in _BY_NAME:
            raise WeightsError(
                f"{entry.name} is {entry.dtype}, which GGUF files for llama.cpp do not hold",
                file=entry.path,
                key="type",
                expected=" | ".join(KINDS_TO_WRITE),
                actual=entry.dtype,
                hint="choose one of them with --type",
            )
        if shape[-1] % _BY_NAME[chosen].block:
            whole.append(file)
            chosen = "F32"
        rotated = is_rotated(name) or name.endswith(("q_proj.bias", "k_proj.bias"))
        planned.append(Planned(file, shape, entry, _BY_NAME[chosen], rotated))
    if whole:
        notes.append(f"{len(whole)} tensors such as {whole[0]} stay F32: their rows do not divide into blocks of 32")
    return planned


def _as_written(plan: Planned) -> tuple[tuple[int, ...], str, int]:
    """Shape and numpy type as the package wants to hear them, of quantized rows those of their bytes; and bytes."""
    size = int(np.prod(plan.shape)) // plan.type.block * plan.type.bytes
    if plan.type.quantized:
        return (*plan.shape[:-1], plan.shape[-1] // plan.type.block * plan.type.bytes), "uint8", size
    return plan.shape, {"F32": "float32", "F16": "float16", "BF16": "uint16"}[plan.type.name], size


def _values(gguf, plan: Planned, source: Source, config: LlamaConfig) -> np.ndarray:
    if plan.source is None:
        return rope_factors(with_length(config), config.head_dim, config.rope_theta).astype(np.float32)
    values = source.tensor(plan.source)
    target = _EXACT.get(plan.type.name, torch.float32)
    check_finite(values, plan.source, target)
    if plan.rotated:
        values = reorder_heads(values, config.head_dim, "half", "interleaved")
    values = values.to(target).contiguous()
    if plan.type.quantized:
        return gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType[plan.type.name])
    return _as_numpy(values)


def _as_numpy(values: Tensor) -> np.ndarray:
    return values.view(torch.int16).numpy().view(np.uint16) if values.dtype == torch.bfloat16 else values.numpy()


def _add_metadata(gguf, writer, values: dict[str, Any], stored: StoredModel, planned: list[Planned]) -> None:
    matrices = [plan.type.name for plan in planned if len(plan.shape) == 2]
    usual = max(set(matrices), key=matrices.count)
    writer.add_name(stored.folder.name)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[usual]])
    if usual == "Q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


# The vocabulary


def _vocabulary(stored: StoredModel, notes: list[str]) -> dict[str, Any]:
    config = stored.config
    ids = {"bos": config.bos_token_id, "eos": next(iter(config.eos_token_ids), None), "padding": config.pad_token_id}
    if len(config.eos_token_ids) > 1:
        ids["eot"] = config.eos_token_ids[1]
    if len(config.eos_token_ids) > 2:
        notes.append(f"of the ids that end a text, {config.eos_token_ids[2:]} are not in the file")
    found: dict[str, Any] = {
        f"tokenizer.ggml.{name}_token_id": i for name, i in ids.items() if i is not None and i >= 0
    }
    model = _sentencepiece(stored, notes)
    if model is None:
        return {"tokenizer.ggml.model": "none", **found}
    texts = [piece.text for piece in model.pieces]
    scores = [piece.score for piece in model.pieces]
    numbers = {kind: number for number, kind in KINDS.items()}
    special = {i for i in (config.bos_token_id, config.pad_token_id, *config.eos_token_ids) if i is not None}
    kinds = [
        numbers["control"] if i in special and piece.kind in ("normal", "user-defined") else numbers[piece.kind]
        for i, piece in enumerate(model.pieces)
    ]
    for i in range(len(texts), config.vocab_size):
        texts.append(f"[PAD{i}]")
        scores.append(-1e4)
        kinds.append(numbers["unused"])
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_bos_token": config.bos_token_id is not None,
        "tokenizer.ggml.add_space_prefix": model.adds_leading_space,
        **found,
    }


def _sentencepiece(stored: StoredModel, notes: list[str]) -> SentencePieceModel | None:
    """The vocabulary, if it is one that llama.cpp's tokenizer ``llama`` reads in the same way."""
    folder = stored.folder
    model = None
    if not (folder / _VOCABULARY).is_file():
        why = f"there is no {_VOCABULARY}"
    else:
        from llama_core.tiktoken_vocabulary import is_tiktoken

        content = read_small_file(folder, _VOCABULARY, _MAX_VOCABULARY, WeightsError)
        if is_tiktoken(content):
            why = f"{_VOCABULARY} is tiktoken's"
        else:
            model = parse_sentencepiece_model(content, folder / _VOCABULARY)
            reasons = {
                f"its algorithm is {model.algorithm}": model.algorithm != "bpe",
                "it rewrites characters": model.rewrites,
                "it merges spaces": model.merges_spaces,
                f"it has {len(model.pieces)} pieces": len(model.pieces) > stored.config.vocab_size,
            }
            why = next((text for text, holds in reasons.items() if holds), "")
    if why:
        notes.append(f"the vocabulary is not in the file, because {why}: llama.cpp takes ids from it, no text")
        return None
    return model
