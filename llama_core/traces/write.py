"""Write a trace while a model runs: one file for each call and layer, so that memory is bounded by one layer.

Sums and extremes are taken of a tensor as it comes, while the processor has it at hand. At the end of a layer its
tensors are hashed and written, as many at a time as there are processors: a model that runs meanwhile would wait for
the processors that it shares. What takes time and no processor, bringing the files to the disk, goes on beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from llama_core.dtypes import as_torch_dtype
from llama_core.errors import TraceError
from llama_core.traces.format import (
    DTYPE_NAMES,
    HEADER_NAMES,
    MANIFEST,
    NOISE,
    STORED,
    Call,
    Manifest,
    Statistics,
    TensorRecord,
    known_axes,
)
from llama_core.weights.folder import named_path
from llama_core.weights.replace_folder import staged_folder

#: Threads that hash and write, and files that are on their way to the disk while the model goes on.
_THREADS = min(os.cpu_count() or 1, 8)
_SYNCING = 8
_OURS = re.compile(r"call-\d+-[a-z0-9-]+\.safetensors")


class TraceWriter:
    """A folder that becomes a trace when the ``with`` block ends, and is not there if it ends with an exception.

    Args:
        folder: where to; an older trace there is replaced as a whole. Any other folder with something in it is refused.
        manifest: what is known before the run; tensors are added as they come.
        statistics_only: leave out the values.

    ``add`` takes tensors in the order of the dataflow; those of one call and layer are kept until the next layer
    begins, then written to one file. Until then nobody may write into them; what attention reads, a view of a cache,
    is copied.
    """

    def __init__(self, folder: str | PathLike[str], manifest: Manifest, statistics_only: bool = False):
        self.place = named_path(folder, "out", TraceError).resolve()
        self.manifest = manifest
        self._statistics_only = statistics_only
        self._stack = ExitStack()
        self._kept: list[tuple[TensorRecord, np.ndarray]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._disk: ThreadPoolExecutor | None = None
        self._syncing: deque[Future] = deque()
        self._part: tuple[int, str] | None = None
        self.staged = self.place
        self.bytes_written = 0

    def __enter__(self) -> TraceWriter:
        check_place(self.place)
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self.staged = self._stack.enter_context(staged_folder(self.place, is_ours))
            self._pool = self._stack.enter_context(ThreadPoolExecutor(_THREADS, "trace"))
            self._disk = self._stack.enter_context(ThreadPoolExecutor(_SYNCING, "trace-to-disk"))
        except OSError as e:
            raise self._failed(e) from e
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if problem is not None:
            wait(self._syncing)
            self._stack.__exit__(kind, problem, trace)
            if isinstance(problem, OSError):
                raise self._failed(problem) from problem
            return
        try:
            with self._stack:
                self._flush()
                self._sync(0)
                text = json.dumps(self.manifest.to_json(), separators=(",", ":")).encode()
                write_synced(self.staged / MANIFEST, text)
        except OSError as e:
            raise self._failed(e) from e

    def begin_call(self, call: Call) -> int:
        """Announce a forward pass; returns its number."""
        self._flush()
        self.manifest.calls.append(call)
        return len(self.manifest.calls) - 1

    def add(
        self,
        name: str,
        values: Tensor | np.ndarray,
        rows: tuple[int, ...] | None = None,
        axes: str = "",
        call: int | None = None,
    ) -> None:
        """Add one tensor of the current call (or of an earlier one); ``rows`` are those of S that ``values`` holds."""
        number = len(self.manifest.calls) - 1 if call is None else call
        part = (number, _part_of(name))
        if part != self._part:
            self._flush()
            self._part = part
        if name.endswith((".cache_k", ".cache_v")):
            values = values.copy() if isinstance(values, np.ndarray) else values.detach().clone()
        stored, header = as_stored(values, self.manifest.storage_dtype)
        record = TensorRecord(
            name,
            number,
            axes or known_axes(name),
            tuple(stored.shape),
            DTYPE_NAMES[header],
            rows,
            "" if self._statistics_only else f"call-{number}-{part[1]}.safetensors",
            statistics=Statistics.of(_numbers(stored, header)),
        )
        self._kept.append((record, stored))

    def so_far(self):
        """What has been written, as a trace to read from."""
        from llama_core.traces.read import Trace

        self._flush()
        return Trace.open_manifest(self.place.name, self.manifest, self.staged)

    def _flush(self) -> None:
        """Hash and write what is kept; its file is brought to the disk meanwhile."""
        kept, self._kept = self._kept, []
        if not kept or self._statistics_only:
            self.manifest.tensors.extend(record for record, _ in kept)
            return
        assert self._pool is not None and self._disk is not None
        records = [record for record, _ in kept]
        arrays = {record.name: stored for record, stored in kept}
        writing = self._pool.submit(_write_unsynced, self.staged / records[0].file, arrays, records)
        digests = self._pool.map(lambda pair: hashlib.sha256(pair[1].data).hexdigest(), kept)
        for record, digest in zip(records, digests, strict=True):
            self.manifest.tensors.append(dataclasses.replace(record, sha256=digest))
        file, size = writing.result()
        self.bytes_written += size
        self._syncing.append(self._disk.submit(_sync_and_close, file))
        self._sync(_SYNCING)

    def _sync(self, left: int) -> None:
        """Wait until no more files than that are on their way to the disk."""
        while len(self._syncing) > left:
            self._syncing.popleft().result()

    def _failed(self, problem: OSError) -> TraceError:
        return TraceError(
            f"the trace could not be written: {problem.strerror or problem}",
            file=self.place,
            key="folder",
            expected="room on the disk and the right to write",
            actual=problem.strerror or str(problem),
            hint="what was in the folder before is unchanged",
        )


def check_place(place: Path) -> None:
    """Refuse to take the place of anything but a trace, a new or an empty folder."""
    if not place.exists():
        return
    if place.is_dir() and not Path.cwd().is_relative_to(place):
        if (place / MANIFEST).is_file() or not any(place.iterdir()):
            return
        found = "a folder with other things in it"
    else:
        found = "the working directory, or what it lies in" if place.is_dir() else "a file"
    raise TraceError(
        f"{place.name} is {found}",
        file=place,
        key="out",
        expected="a new or empty folder, or a trace to replace",
        actual=found,
        hint="name a new folder",
    )


def is_ours(name: str) -> bool:
    """Whether a file belongs to a trace, which a new one replaces."""
    return name in (MANIFEST, NOISE) or bool(_OURS.fullmatch(name))


def _numbers(stored: np.ndarray, header: str) -> np.ndarray | Tensor:
    """Stored bytes as numbers, not copied."""
    return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16) if header == "BF16" else stored


def _part_of(name: str) -> str:
    """The part of the model that shares a file: one layer, or what comes before or after the layers."""
    found = re.match(r"layers\.(\d+)\.", name)
    if found:
        return f"layer-{int(found[1]):03d}"
    return "output" if name in ("final_norm", "logits") else "input"


def as_stored(values: Tensor | np.ndarray, dtype: str) -> tuple[np.ndarray, str]:
    """The bytes as they are stored, and the header's name of their type; bfloat16 as its 16 bits."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    values = values.detach()
    if not values.is_floating_point():
        return np.ascontiguousarray(values.to("cpu", torch.int64).numpy()), "I64"
    values = values.to("cpu", as_torch_dtype(dtype)).contiguous()
    if dtype == "bfloat16":
        return values.view(torch.int16).numpy().view(np.uint16), "BF16"
    return values.numpy(), HEADER_NAMES[dtype]


def widened(stored: np.ndarray, header: str) -> np.ndarray:
    """Stored bytes as numbers: bfloat16 as float32, all others as they are."""
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32) if header == "BF16" else stored


def write_arrays(path: Path, arrays: dict[str, np.ndarray], records: list[TensorRecord]) -> int:
    """A safetensors file of arrays as ``as_stored`` gives them; brought to the disk. Returns its size in bytes."""
    file, size = _write_unsynced(path, arrays, records)
    _sync_and_close(file)
    return size


def _write_unsynced(path: Path, arrays: dict[str, np.ndarray], records: list[TensorRecord]) -> tuple[BinaryIO, int]:
    """The file, written and still open, and its size in bytes."""
    order = sorted(records, key=lambda record: -np.dtype(STORED[HEADER_NAMES[record.dtype]]).itemsize)
    header: dict[str, object] = {}
    position = 0
    for record in order:
        stop = position + arrays[record.name].nbytes
        dtype = HEADER_NAMES[record.dtype]
        header[record.name] = {"dtype": dtype, "shape": list(record.shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file = open(path, "xb")  # noqa: SIM115 (closed once it is on the disk)
    try:
        file.write(struct.pack("<Q", len(text)) + text)
        for record in order:
            file.write(arrays[record.name].data)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file, 8 + len(text) + position


def _sync_and_close(file: BinaryIO) -> None:
    with file:
        os.fsync(file.fileno())


def write_synced(path: Path, text: bytes) -> None:
    with open(path, "xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
