"""The directory of a ``torch.save`` archive, looked at before anything in it is used.

Such a file is a zip archive without compression: ``NAME/data.pkl`` is a pickle that tells of the tensors,
``NAME/data/0``, ``NAME/data/1`` … are their bytes. Whatever else a zip archive can be (compressed, overlapping, with
bytes before or behind it) is not what ``torch.save`` writes, and is refused: two programs could read it in two ways.
Source of the layout: APPNOTE.TXT 6.3.10 of PKWARE, sections 4.3.7, 4.3.12 to 4.3.16.
"""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama_core.errors import WeightsError
from llama_core.weights.folder import open_regular
from llama_core.weights.recognise import recognise
from llama_core.weights.strict_json import excerpt

#: Llama 3.1 405B has about 1,100 tensors: 0.1 MB of directory, 0.2 MB of pickle.
MAX_DIRECTORY_BYTES = 2_000_000
MAX_PICKLE_BYTES = 1_000_000
_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"


@dataclass(frozen=True)
class Archive:
    """What the directory of an archive says, once it is believable.

    Attributes:
        path: the file. pickle: the bytes of ``data.pkl``.
        records: key of a storage, such as ``"12"`` -> its number of bytes.
    """

    path: Path
    pickle: bytes
    records: dict[str, int]


def read_directory(folder: Path, name: str) -> Archive:
    """The directory and the pickle of ``folder/name``; no tensor is read.

    Raises:
        WeightsError: when the file is no whole, plain archive of ``torch.save``.
    """
    with open_regular(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        path = folder / name
        _check_start(file, size, path)
        _check_end(file, size, path)
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                _check_entries(entries, file, size, path)
                return _contents(archive, entries, path)
        except (zipfile.BadZipFile, struct.error, NotImplementedError, EOFError, RuntimeError, ValueError) as e:
            if isinstance(e, WeightsError):
                raise
            raise _damaged(path, f"its directory cannot be read: {e}") from e


def _check_start(file: BinaryIO, size: int, path: Path) -> None:
    start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return
    what = {"file": path, "expected": "an archive that torch.save wrote (a zip file)"}
    if size == 0:
        raise WeightsError(f"{path.name} is empty", **what, actual="0 bytes", hint="download it again")
    known = recognise(start)
    if known and "pickle" in known[0]:
        hint = "such files run code as they are read; load it where you trust it and save it with torch ≥ 1.6"
        raise WeightsError(f"{path.name} is a pickle without an archive", **what, actual=known[0], hint=hint)
    actual = known[0] if known else f"{size:,} bytes that begin with {excerpt(start[:16])}"
    hint = known[1] if known else "the file may be damaged or of another kind; download it again"
    raise WeightsError(
        f"{path.name} is {known[0] if known else 'no archive of torch.save'}", **what, actual=actual, hint=hint
    )


def _check_end(file: BinaryIO, size: int, path: Path) -> None:
    """The directory ends where the end record begins, is not huge, and nothing follows."""
    file.seek(max(0, size - 22))
    end = file.read(22)
    if len(end) < 22 or end[:4] != _END or end[20:] != b"\0\0":
        raise _damaged(path, "it does not end with the record that ends an archive", "the download is incomplete")
    count, length, offset = struct.unpack("<HII", end[10:20])
    stop = size - 22
    if 0xFFFF == count or 0xFFFFFFFF in (length, offset) or _is_locator(file, stop):
        file.seek(max(0, stop - 20 - 56))
        wide = file.read(56 + 20)
        if wide[:4] != _END64 or wide[56:60] != _LOCATOR:
            raise _damaged(path, "its 64-bit end record is not where it must be")
        stop -= 76
        length, offset = struct.unpack("<QQ", wide[40:56])
    if length > MAX_DIRECTORY_BYTES:
        raise WeightsError(
            f"the directory of {path.name} has {length:,} bytes",
            file=path,
            expected=f"at most {MAX_DIRECTORY_BYTES:,} bytes",
            actual=f"{length:,} bytes",
            hint="no Llama needs so many entries; this file is something else",
        )
    if offset + length != stop:
        raise _damaged(path, f"its directory is not {length:,} bytes just before the end")


def _is_locator(file: BinaryIO, stop: int) -> bool:
    file.seek(max(0, stop - 20))
    return file.read(4) == _LOCATOR


def _check_entries(entries: list[zipfile.ZipInfo], file: BinaryIO, size: int, path: Path) -> None:
    """Every entry is stored as it is, once, and its bytes are its own."""
    names = [entry.filename for entry in entries]
    twice = next((name for n, name in enumerate(sorted(names)[1:]) if name == sorted(names)[n]), None)
    if twice is not None:
        raise _damaged(path, f"the entry {twice[:80]!r} is there twice")
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        label = entry.filename[:80]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            how = "encrypted" if entry.flag_bits & 1 else "compressed"
            raise WeightsError(
                f"the entry {label!r} of {path.name} is {how}",
                file=path,
                key=label,
                expected="entries stored as they are, as torch.save writes them",
                actual=f"{how}: {entry.compress_size:,} bytes for {entry.file_size:,}",
                hint="unpacked it could fill the memory; save the weights again with torch.save",
            )
        file.seek(entry.header_offset)
        local = file.read(30)
        if entry.header_offset < position or local[:4] != b"PK\x03\x04" or entry.compress_size != entry.file_size:
            raise _damaged(path, f"the entry {label!r} has no bytes of its own")
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        position = entry.header_offset + 30 + name_length + extra_length + entry.file_size
        if file.read(name_length) != entry.orig_filename.encode("utf-8", "surrogateescape") or position > size:
            raise _damaged(path, f"the entry {label!r} is not where the directory says")


def _contents(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], path: Path) -> Archive:
    root = entries[0].filename.split("/")[0] if entries else ""
    sizes = {entry.filename.removeprefix(f"{root}/"): entry.file_size for entry in entries}
    if "constants.pkl" in sizes or any(name.startswith("code/") for name in sizes):
        raise WeightsError(
            f"{path.name} is a TorchScript program, not weights",
            file=path,
            expected="an archive that torch.save wrote",
            actual="an archive with code in it",
            hint="get the weights themselves: code from a file is not run here",
        )
    if "data.pkl" not in sizes or any(not entry.filename.startswith(f"{root}/") for entry in entries):
        raise WeightsError(
            f"{path.name} is a zip archive, but not one of torch.save",
            file=path,
            key="data.pkl",
            expected="NAME/data.pkl and NAME/data/0, 1, 2 …",
            actual=", ".join(entry.filename[:40] for entry in entries[:5]) or "an empty archive",
            hint="unpack it, if the weights are inside",
        )
    if sizes["data.pkl"] > MAX_PICKLE_BYTES:
        raise WeightsError(
            f"the pickle of {path.name} has {sizes['data.pkl']:,} bytes",
            file=path,
            key="data.pkl",
            expected=f"at most {MAX_PICKLE_BYTES:,} bytes",
            actual=f"{sizes['data.pkl']:,} bytes",
            hint="no Llama needs so many names; this file is something else",
        )
    if sizes.get("byteorder", 0) < 16 and "byteorder" in sizes and archive.read(f"{root}/byteorder") != b"little":
        raise _damaged(path, "its numbers are not little-endian", "save it again on an ordinary machine")
    records = {name.removeprefix("data/"): n for name, n in sizes.items() if name.startswith("data/")}
    return Archive(path, archive.read(f"{root}/data.pkl"), records)


def _damaged(path: Path, why: str, hint: str = "download it again, or save the weights again") -> WeightsError:
    return WeightsError(
        f"{path.name} is no whole archive: {why}",
        file=path,
        expected="an archive that torch.save wrote",
        actual=why,
        hint=hint,
    )
