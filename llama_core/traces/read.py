"""Read a trace strictly: the manifest before anything else, then tensors one at a time, each checked by its hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np

from llama_core.config import LlamaConfig
from llama_core.errors import LlamaCoreError, TraceError
from llama_core.traces.format import DTYPE_NAMES, HEADER_NAMES, MANIFEST, STORED, Manifest, TensorRecord
from llama_core.traces.manifest import MAX_MANIFEST_BYTES, MAX_MANIFEST_VALUES, config_of, parse_manifest
from llama_core.traces.write import widened
from llama_core.weights.folder import check_plain_name, named_path, open_regular, read_small_file
from llama_core.weights.safetensors_file import TensorEntry, read_header
from llama_core.weights.strict_json import parse_object


class Trace:
    """A trace: its manifest, and its tensors when they are asked for.

    Attributes:
        label: its folder's name, for people.
        manifest: see ``format.Manifest``.
        records: (name, call) -> the record.
    """

    def __init__(
        self,
        label: str,
        manifest: Manifest,
        load: Callable[[TensorRecord], np.ndarray],
        folder: Path | None = None,
        notes: tuple[str, ...] = (),
    ):
        self.label, self.manifest, self.folder, self.notes = label, manifest, folder, notes
        self._load = load
        self.records = {(t.name, t.call): t for t in manifest.tensors}

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Trace:
        """The trace in a folder. Reads the manifest and the headers of its files.

        Raises:
            TraceError: naming the file, the key, what was expected and what was found.
        """
        place = trace_folder(folder)
        text = read_small_file(place, MANIFEST, MAX_MANIFEST_BYTES, TraceError)
        document = parse_object(text, place / MANIFEST, TraceError, MAX_MANIFEST_VALUES)
        manifest = parse_manifest(document, place / MANIFEST)
        return cls.open_manifest(place.name, manifest, place)

    @classmethod
    def open_manifest(cls, label: str, manifest: Manifest, place: Path) -> Trace:
        """A trace whose manifest is known."""
        entries = _entries(place, manifest)

        def load(record: TensorRecord) -> np.ndarray:
            return _read(place, entries[record.file][record.name], record)

        return cls(label, manifest, load, place)

    @property
    def config(self) -> LlamaConfig | None:
        return config_of(self.manifest.config, self.folder / MANIFEST if self.folder else None)

    @property
    def calls(self):
        return self.manifest.calls

    def values(self, name: str, call: int) -> np.ndarray | None:
        """A tensor of a call, floating point as float32 or wider; None where there are statistics only.

        Raises:
            TraceError: when its bytes are not those that the manifest states.
        """
        record = self.records[name, call]
        return self._load(record) if record.file else None


def trace_folder(folder: str | PathLike[str]) -> Path:
    """The folder, if it is one that holds a manifest."""
    place = named_path(folder, "trace", TraceError)
    if not place.is_dir() or not os.path.lexists(place / MANIFEST):
        found = "nothing" if not place.exists() else "a file" if not place.is_dir() else f"no {MANIFEST} in it"
        raise TraceError(
            f"{str(folder)!r} is no trace",
            file=place,
            key="trace",
            expected=f"a folder with {MANIFEST}",
            actual=found,
            hint="llama-core trace --model DIR --prompt TEXT --out FOLDER writes one",
        )
    return place


def validate(folder: str | PathLike[str]) -> Trace:
    """Open a trace and check all of it: every hash, every shape against the configuration, every statistic.

    Raises:
        TraceError: for the first thing that is wrong.
    """
    from llama_core.traces.format import Statistics, expected_shape, known_axes

    trace = Trace.open(folder)
    config = trace.config
    file = trace.folder / MANIFEST
    if not trace.records:
        raise TraceError("the trace holds no tensors", file=file, key="tensors", expected="at least one", actual=0)
    for (name, call), record in trace.records.items():
        axes = known_axes(name)
        if axes and axes != record.axes:
            raise TraceError(f"the axes of {name} are wrong", file=file, key=name, expected=axes, actual=record.axes)
        if axes and config:
            shape = expected_shape(axes, trace.calls[call], record.rows if "S" in axes else None, config)
            if shape != record.shape:
                raise TraceError(
                    f"the shape of {name} in call {call} is not the model's",
                    file=file,
                    key=name,
                    expected=list(shape),
                    actual=list(record.shape),
                )
        values = trace.values(name, call)
        if values is not None and record.statistics is not None:
            _check_statistics(file, record, Statistics.of(values))
    return trace


def _check_statistics(file: Path, record: TensorRecord, found) -> None:
    for key, stated in vars(record.statistics).items():
        actual = getattr(found, key)
        if abs(stated - actual) > 1e-6 * max(1.0, found.l2, abs(actual)):
            raise TraceError(
                f"the statistics of {record.name} in call {record.call} are not those of its values",
                file=file,
                key=f"{record.name} {key}",
                expected=actual,
                actual=stated,
            )


def _entries(place: Path, manifest: Manifest) -> dict[str, dict[str, TensorEntry]]:
    """File -> its tensors, each checked against the manifest's record of it."""
    entries: dict[str, dict[str, TensorEntry]] = {}
    for record in manifest.tensors:
        if not record.file:
            continue
        try:
            check_plain_name(record.file, place / MANIFEST, record.name)
            if record.file not in entries:
                entries[record.file] = read_header(place, record.file)
        except LlamaCoreError as e:
            hint = e.hint and e.hint.replace("download it again", "write it again")
            raise TraceError(
                e.message, file=e.file, key=e.key or record.name, expected=e.expected, actual=e.actual, hint=hint
            ) from e
        entry = entries[record.file].get(record.name)
        if entry is None:
            raise TraceError(
                f"{record.file} has no tensor {record.name}",
                file=place / record.file,
                key=record.name,
                expected="the tensor that the manifest lists",
                actual=f"{len(entries[record.file])} other tensors",
            )
        if (entry.shape, entry.dtype) != (record.shape, HEADER_NAMES[record.dtype]):
            raise TraceError(
                f"the manifest and {record.file} disagree about {record.name}",
                file=place / record.file,
                key=record.name,
                expected=f"{record.dtype} {list(record.shape)}, as the manifest states",
                actual=f"{DTYPE_NAMES.get(entry.dtype, entry.dtype)} {list(entry.shape)}",
            )
    return entries


def _read(place: Path, entry: TensorEntry, record: TensorRecord) -> np.ndarray:
    stored = read_bytes(entry)
    found = hashlib.sha256(stored.data).hexdigest()
    if record.sha256 and found != record.sha256:
        raise TraceError(
            f"the bytes of {record.name} in call {record.call} have changed since the trace was written",
            file=place / record.file,
            key=record.name,
            expected=f"sha256 {record.sha256}",
            actual=f"sha256 {found}",
            hint="the file is damaged, or was edited by hand; write the trace again",
        )
    return widened(stored, entry.dtype)


def read_bytes(entry: TensorEntry) -> np.ndarray:
    """A tensor of a safetensors file as it is stored."""
    with open_regular(entry.path.parent, entry.path.name, TraceError) as file:
        file.seek(entry.start)
        content = file.read(entry.nbytes)
    count = len(content)
    if count != entry.nbytes:
        raise TraceError(
            "the file became shorter while it was read",
            file=entry.path,
            key=entry.name,
            expected=f"{entry.nbytes:,} bytes",
            actual=f"{count:,} bytes",
        )
    return np.frombuffer(content, STORED[entry.dtype]).reshape(entry.shape)
