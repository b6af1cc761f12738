"""GGUF, llama.cpp's files: the header, checked before anything of its sizes is allocated.

Layout, little-endian: ``GGUF``, the version (2 or 3), the number of tensors and of metadata entries; the entries (key,
type, value); the tensors' names, sizes (the fastest axis first), types and offsets; then, aligned, their bytes.
Source: ``docs/gguf.md`` in the ggml repository.

The ``gguf`` package trusts what a header says of itself; so the header is read here, and only quantized values are
left to that package.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llama_core.errors import WeightsError
from llama_core.weights.folder import open_regular
from llama_core.weights.gguf_tensor import TYPES, GgufTensor
from llama_core.weights.recognise import recognise
from llama_core.weights.strict_json import excerpt

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_TENSORS, MAX_ENTRIES = 100_000, 10_000
#: The longest texts are chat templates; the longest arrays the merges of large vocabularies, about half a million.
MAX_TEXT, MAX_TEXTS, MAX_TEXT_BYTES = 1_000_000, 2_000_000, 32_000_000
#: Longer arrays are vocabularies: their length is kept, not their values.
MAX_KEPT, MAX_KEPT_TEXTS = 4096, 64

#: Number of a value's type -> struct's letter for it. 8 is text, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True)
class LongArray:
    """An array that was passed over: how many values it has."""

    length: int


@dataclass(frozen=True)
class GgufHeader:
    """What a file says before its values.

    Attributes:
        path: the file. metadata: key -> number, text, flag, list or ``LongArray``; float32 as its shortest decimal.
        tensors: name -> where its bytes are.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a path is to be read as GGUF: a file, by its name or its first bytes. Pipes are not opened."""
    try:
        place = Path(path).expanduser()
        if not place.is_file():
            return False
        with open(place, "rb") as file:
            return place.suffix.lower() == ".gguf" or file.read(4) == MAGIC
    except (OSError, ValueError, TypeError, RuntimeError):
        return False


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of a GGUF file.

    Raises:
        WeightsError: it is no GGUF (it says what it is instead), of another version or byte order, cut off, has bytes
            left over, or says impossible things: sizes, types, overlaps, holes, a name twice.
    """
    with open_regular(path.parent, path.name) as file:
        reader = _Reader(file, path, os.fstat(file.fileno()).st_size)
        tensor_count, entry_count = reader.preamble()
        metadata = _metadata(reader, entry_count)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
            raise reader.error("general.alignment is impossible", "a power of two from 8 to 65536", alignment)
        infos = [_tensor(reader) for _ in range(tensor_count)]
        data = _aligned(reader.position, alignment)
    return GgufHeader(path, metadata, _placed(infos, data, alignment, reader))


class _Reader:
    """Reads forward, never beyond the end of the file."""

    def __init__(self, file: BinaryIO, path: Path, size: int):
        self.file, self.path, self.size = file, path, size
        self.position = self.texts = self.text_bytes = 0

    def error(self, message: str, expected: Any = None, actual: Any = None, key: str | None = None, hint: str = ""):
        return WeightsError(message, file=self.path, key=key, expected=expected, actual=actual, hint=hint or None)

    def need(self, count: int) -> None:
        if count > self.size - self.position:
            raise self.error(
                f"{self.path.name} is cut off within its header",
                expected=f"at least {self.position + count:,} bytes",
                actual=f"{self.size:,} bytes",
                hint="the download is incomplete; download it again",
            )

    def read(self, count: int) -> bytes:
        self.need(count)
        content = self.file.read(count)
        if len(content) != count:
            raise self.error("the file became shorter while it was read", f"{self.size:,} bytes")
        self.position += count
        return content

    def skip(self, count: int) -> None:
        self.need(count)
        self.file.seek(count, os.SEEK_CUR)
        self.position += count

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.read(struct.calcsize("<" + letter)))[0]

    def raw_text(self) -> bytes:
        length = self.number("Q")
        if length > MAX_TEXT:
            self.need(length)
            raise self.error("a text in the header is too long", f"at most {MAX_TEXT:,} bytes", f"{length:,} bytes")
        return self.read(length)

    def text(self) -> str:
        raw = self.raw_text()
        self.text_bytes += len(raw)
        if self.text_bytes > MAX_TEXT_BYTES:
            raise self.error("the header holds too much text", f"at most {MAX_TEXT_BYTES:,} bytes, vocabulary apart")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("a text in the header is not UTF-8", "UTF-8", excerpt(raw[:40])) from None

    def preamble(self) -> tuple[int, int]:
        start = self.file.read(64)
        self.file.seek(0)
        what = {"expected": "a GGUF file"}
        if not self.size:
            raise self.error(f"{self.path.name} is empty", **what, actual="0 bytes", hint="download it again")
        if start[:4] != MAGIC:
            known = recognise(start) or (f"no GGUF file: it begins with {excerpt(start[:16])}", "")
            raise self.error(f"{self.path.name} is {known[0]}", **what, actual=known[0], hint=known[1])
        self.skip(4)
        version = self.number("I")
        if version not in VERSIONS:
            swapped = version & 0xFFFF == 0
            raise self.error(
                "the file is of the other byte order" if swapped else f"this is GGUF version {version}",
                expected=" or ".join(map(str, VERSIONS)) + ", little-endian",
                actual=version,
                hint="convert it again with a recent llama.cpp",
            )
        tensors, entries = self.number("Q"), self.number("Q")
        for found, limit, kind in ((tensors, MAX_TENSORS, "tensors"), (entries, MAX_ENTRIES, "metadata entries")):
            if found > limit:
                raise self.error(f"the header announces {found:,} {kind}", f"at most {limit:,}", f"{found:,}")
        return tensors, entries


def _metadata(reader: _Reader, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        key = reader.text()
        if key in found:
            raise reader.error(f"{key[:120]!r} is in the header twice", "each key once", key=key[:120])
        found[key] = _value(reader, reader.number("I"), key)
    return found


def _value(reader: _Reader, kind: int, key: str) -> Any:
    if kind == _TEXT:
        return reader.text()
    if kind in _SCALARS:
        return _scalar(kind, reader.number(_SCALARS[kind]))
    if kind != _ARRAY:
        raise reader.error(f"{key[:120]!r} has a value of an unknown type", "types 0 to 12", kind, key=key[:120])
    inner, length = reader.number("I"), reader.number("Q")
    if inner == _TEXT:
        return _texts(reader, length, key)
    if inner not in _SCALARS:
        raise reader.error(f"{key[:120]!r} is an array of an unknown type", "numbers or texts", inner, key=key[:120])
    size = struct.calcsize("<" + _SCALARS[inner])
    if length > MAX_KEPT:
        reader.skip(length * size)
        return LongArray(length)
    content = reader.read(length * size)
    return [_scalar(inner, value) for value in struct.unpack(f"<{length}{_SCALARS[inner]}", content)]


def _scalar(kind: int, value: Any) -> Any:
    """A float32 as the decimal that was meant: 1e-05, not 9.999999747378752e-06."""
    if _SCALARS[kind] != "f" or not math.isfinite(value):
        return value
    return next(short for digits in (6, 7, 8, 9) if _as_float32(short := float(f"{value:.{digits}g}")) == value)


def _as_float32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf


def _texts(reader: _Reader, length: int, key: str) -> list[str] | LongArray:
    reader.texts += length
    if reader.texts > MAX_TEXTS:
        raise reader.error(
            f"{key[:120]!r} has {length:,} texts", f"at most {MAX_TEXTS:,} in a file", f"{length:,}", key=key[:120]
        )
    reader.need(8 * length)
    if length <= MAX_KEPT_TEXTS:
        return [reader.text() for _ in range(length)]
    for _ in range(length):
        reader.raw_text()
    return LongArray(length)


def _tensor(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, offset) of one tensor."""
    name = reader.text()
    dimensions = reader.number("I")
    if not 1 <= dimensions <= 4:
        raise reader.error(f"{name[:120]!r} has {dimensions} axes", "1 to 4", dimensions, key=name[:120])
    sizes = tuple(reader.number("Q") for _ in range(dimensions))
    if not all(0 < size < 2**40 for size in sizes):
        raise reader.error(f"{name[:120]!r} has an impossible shape", "sizes from 1 to 2^40", sizes, key=name[:120])
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in TYPES:
        raise reader.error(
            f"{name[:120]!r} is stored in a type that is not known here",
            " | ".join(t.name for t in TYPES.values()),
            f"type {kind}",
            key=name[:120],
            hint="get the model in one of these types",
        )
    block = TYPES[kind].block
    if sizes[0] % block:
        raise reader.error(
            f"rows of {name[:120]!r} do not divide into blocks", f"a multiple of {block}", sizes[0], key=name[:120]
        )
    return name, sizes[::-1], kind, offset


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _placed(infos, data: int, alignment: int, reader: _Reader) -> dict[str, GgufTensor]:
    """The tensors, whose bytes must follow each other, aligned, from the header's end to the file's."""
    found: dict[str, GgufTensor] = {}
    position, previous = data, "the header"
    for name, shape, kind, offset in sorted(infos, key=lambda info: info[3]):
        if name in found:
            raise reader.error(f"{name[:120]!r} is in the header twice", "each tensor once", key=name[:120])
        if data + offset != position:
            how = "overlaps" if data + offset < position else "leaves a hole after"
            raise reader.error(
                f"{name[:120]!r} {how} {previous}",
                f"offset {position - data:,}",
                f"offset {offset:,}",
                key=name[:120],
                hint="the header is damaged, or was made by hand",
            )
        found[name] = entry = GgufTensor(name, reader.path, shape, TYPES[kind], position)
        end, position, previous = (
            entry.start + entry.stored_bytes,
            _aligned(entry.start + entry.stored_bytes, alignment),
            repr(name),
        )
        if end > reader.size:
            lost = sum(data + other[3] >= entry.start for other in infos)
            raise reader.error(
                f"{reader.path.name} is cut off: {lost} of {len(infos)} tensors are missing or not whole",
                f"at least {end:,} bytes",
                f"{reader.size:,} bytes",
                key=name,
                hint="the download is incomplete; download it again",
            )
    if reader.size > max(position, data):
        raise reader.error(
            f"{reader.path.name} has {reader.size - position:,} bytes that no tensor owns",
            f"{position:,} bytes",
            f"{reader.size:,} bytes",
            hint="the file is damaged, or two files were joined",
        )
    return {info[0]: found[info[0]] for info in infos}
