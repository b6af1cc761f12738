"""Safetensors files: the header checked before anything is allocated, tensors as views of the mapped file.

Layout: eight bytes, the header's length N, little-endian; N bytes of JSON, ``{name: {dtype, shape, data_offsets}}``;
then the tensors' bytes, which ``data_offsets`` count from here. Every byte belongs to exactly one tensor.
Source: https://github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_core.errors import WeightsError
from llama_core.weights.folder import open_regular
from llama_core.weights.recognise import HEADER_START, recognise
from llama_core.weights.strict_json import describe_value, excerpt, parse_object

#: A Llama's header has about 100 bytes a tensor: 0.1 MB for 405B. Parsing more than this takes noticeable memory.
MAX_HEADER_BYTES = 4_000_000

#: dtype in the header -> bits of one value. 4-bit and scale types are known so that they can be named, not read.
DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}
TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file, as the header states it.

    Attributes:
        name: its name in the file. path: the file.
        dtype: the header's name for it, such as ``BF16``. shape: rows first.
        start, stop: the bytes of the file that hold it.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def read_header(folder: Path, name: str) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, in the order of their bytes. Reads the header only.

    Raises:
        WeightsError: when the file is not safetensors (it says what it is instead), is cut off or has bytes left over,
            or when the header is not well-formed: unknown dtype, shape and offsets that disagree, overlaps, holes.
    """
    path = folder / name
    with open_regular(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(64)
        length = _header_length(start, size, path)
        file.seek(HEADER_START)
        text = file.read(length)
    header = parse_object(text, path, WeightsError)
    _check_metadata(header.pop("__metadata__", {}), path)
    data = HEADER_START + length
    entries = [_entry(key, value, path, data) for key, value in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_layout(entries, path, data, size)
    return {entry.name: entry for entry in entries}


class MappedFile:
    """The tensors of one file as views of the file mapped into memory: nothing is copied, pages are read when touched.

    The mapping is private: writing to a tensor changes no file. It outlives the file's name, not its bytes: a file that
    another program cuts short while it is mapped ends this process. ``read`` is for that case.
    """

    def __init__(self, path: Path):
        self.path = path
        size = path.stat().st_size
        try:
            storage = torch.UntypedStorage.from_file(str(path), False, size)
        except RuntimeError as e:
            raise WeightsError(f"{path.name} cannot be mapped into memory: {e}", file=path) from e
        self._bytes = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)

    def tensor(self, entry: TensorEntry) -> Tensor:
        """The tensor, read-only in spirit. Copied only where the file does not align it."""
        values = self._bytes[entry.start : entry.stop]
        dtype = TORCH_DTYPES[entry.dtype]
        if entry.start % dtype.itemsize:
            values = values.clone()
        return values.view(dtype).view(entry.shape)


def read_tensor(entry: TensorEntry, scratch: Tensor | None = None) -> Tensor:
    """The tensor, read into memory of its own, or into ``scratch``, bytes that the next call may overwrite.

    Raises:
        WeightsError: when the file has become shorter since its header was read.
    """
    if scratch is None:
        scratch = torch.empty(entry.nbytes, dtype=torch.uint8, device="cpu")
    values = scratch[: entry.nbytes]
    with open(entry.path, "rb") as file:
        file.seek(entry.start)
        count = file.readinto(values.numpy())
    if count != entry.nbytes:
        raise WeightsError(
            "the file became shorter while it was read",
            file=entry.path,
            key=entry.name,
            expected=f"{entry.nbytes:,} bytes",
            actual=f"{count:,} bytes",
        )
    return values.view(TORCH_DTYPES[entry.dtype]).view(entry.shape)


def _header_length(start: bytes, size: int, path: Path) -> int:
    """The header's length, once the first bytes and the file's size make it believable."""
    what = {"file": path, "expected": "a safetensors file"}
    if size == 0:
        raise WeightsError(f"{path.name} is empty", **what, actual="0 bytes", hint="download it again")
    length = struct.unpack("<Q", start[:8])[0] if size >= HEADER_START + 2 else 0
    if start[8:9] == b"{" and 2 <= length <= size - HEADER_START:
        if length > MAX_HEADER_BYTES:
            raise WeightsError(
                f"the header of {path.name} has {length:,} bytes",
                file=path,
                expected=f"at most {MAX_HEADER_BYTES:,} bytes",
                actual=f"{length:,} bytes",
                hint="no Llama needs so many names; this file is something else",
            )
        return length
    if start[8:9] == b"{" and size < length < 2**32:
        raise WeightsError(
            f"{path.name} is cut off within its header",
            file=path,
            expected=f"at least {HEADER_START + length:,} bytes",
            actual=f"{size:,} bytes",
            hint="the download is incomplete; download it again",
        )
    known = recognise(start)
    if known:
        raise WeightsError(f"{path.name} is {known[0]}", **what, actual=known[0], hint=known[1])
    raise WeightsError(
        f"{path.name} is no safetensors file",
        **what,
        actual=f"{size:,} bytes that begin with {excerpt(start[:16])}",
        hint="the file may be damaged or of another kind; download it again",
    )


def _check_metadata(metadata: Any, path: Path) -> None:
    """Notes of whoever wrote the file: from text to text, by the format's definition."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(
            f"the header's __metadata__ of {path.name} is no table of texts",
            file=path,
            key="__metadata__",
            expected="an object whose values are all strings",
            actual=describe_value(metadata),
            hint="the header is damaged, or was made by hand",
        )


def _entry(name: str, value: Any, path: Path, data: int) -> TensorEntry:
    def wrong(message: str, expected: str, actual: str) -> WeightsError:
        return WeightsError(
            f"the header's entry for {name[:120]!r} {message}",
            file=path,
            key=name[:120],
            expected=expected,
            actual=actual,
        )

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        actual = ", ".join(list(value)[:6]) if isinstance(value, dict) else describe_value(value)
        raise wrong("is malformed", "dtype, shape and data_offsets", actual or "nothing")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise wrong("has an unknown dtype", " | ".join(DTYPE_BITS), describe_value(dtype))
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_size(n) for n in shape):
        raise wrong("has an impossible shape", "up to 8 whole numbers from 0 to 2^48", str(shape)[:80])
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(_is_size(n) for n in offsets)
        or offsets[0] > offsets[1]
    ):
        raise wrong("has impossible data_offsets", "[start, stop], 0 ≤ start ≤ stop", str(offsets)[:80])
    needed, given = math.prod(shape) * DTYPE_BITS[dtype], offsets[1] - offsets[0]
    if needed != given * 8:
        raise wrong(f"gives {given:,} bytes to {dtype} {shape}", f"{(needed + 7) // 8:,} bytes", f"{given:,} bytes")
    return TensorEntry(name, path, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _check_layout(entries: list[TensorEntry], path: Path, data: int, size: int) -> None:
    """The tensors' bytes must follow each other from the header's end to the file's."""
    position, previous = data, "the header"
    for entry in entries:
        if entry.start != position:
            how = "overlaps" if entry.start < position else "leaves a hole after"
            raise WeightsError(
                f"{entry.name!r} {how} {previous}",
                file=path,
                key=entry.name,
                expected=f"bytes from {position - data:,}",
                actual=f"bytes from {entry.start - data:,}",
                hint="the header is damaged, or was made by hand",
            )
        position, previous = entry.stop, repr(entry.name)
    if position == size:
        return
    if position > size:
        lost = [entry.name for entry in entries if entry.stop > size]
        raise WeightsError(
            f"{path.name} is cut off: {position - size:,} bytes and {len(lost)} of {len(entries)} tensors are missing",
            file=path,
            key=lost[0],
            expected=f"{position:,} bytes",
            actual=f"{size:,} bytes",
            hint="the download is incomplete; download it again",
        )
    raise WeightsError(
        f"{path.name} has {size - position:,} bytes that no tensor owns",
        file=path,
        expected=f"{position:,} bytes",
        actual=f"{size:,} bytes",
        hint="the file is damaged, or two files were joined",
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**48
