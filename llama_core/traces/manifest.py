"""The manifest of a trace from JSON: every field of the right type, nothing unknown, nothing impossible."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from llama_core.config import ROPE_LAYOUTS, LlamaConfig, RopeScaling
from llama_core.errors import ConfigError, TraceError
from llama_core.names import AXES
from llama_core.traces.format import (
    FLOAT_DTYPES,
    FORMAT,
    HEADER_NAMES,
    PRODUCT_INPUTS,
    VERSION,
    Call,
    Manifest,
    Statistics,
    TensorRecord,
    known_axes,
    make_call,
)
from llama_core.weights.strict_json import describe_value

MAX_MANIFEST_BYTES = 64_000_000
MAX_MANIFEST_VALUES = 4_000_000  # a 7B model's prompt and 250 steps, every activation
#: Scores are laid out by the keys' positions: every one up to the last takes room.
MAX_POSITION = 2**24 - 1
_KEYS = {"format", "version", "producer", "model", "compute_dtype", "storage_dtype", "rope_layout", "calls", "tensors"}
_OPTIONAL = {"not_provided", "product_inputs"}
_TENSOR_KEYS = {"name", "call", "axes", "shape", "dtype", "rows", "file", "sha256", "statistics"}
_CALL_KEYS = {"input_ids", "positions", "sequences", "past", "key_positions"}


class _Reader:
    """Checks values and says where they stand."""

    def __init__(self, file: Path | None):
        self.file = file

    def error(self, key: str, message: str, expected: str, actual: Any) -> TraceError:
        return TraceError(message, file=self.file, key=key, expected=expected, actual=describe_value(actual))

    def need(self, ok: bool, key: str, expected: str, actual: Any) -> None:
        if not ok:
            raise self.error(key, f"{key} is {describe_value(actual)}", expected, actual)

    def keys(self, value: Any, where: str, required: set[str], optional: Collection[str] = ()) -> dict:
        self.need(isinstance(value, dict), where, "an object", value)
        for key in required - value.keys():
            raise self.error(f"{where}.{key}", f"{where} has no {key}", f"the key {key!r}", None)
        for key in value.keys() - required - set(optional):
            raise self.error(f"{where}.{key[:80]}", f"{where} has the unknown key {key[:80]!r}", "no such key", value)
        return value

    def text(self, value: Any, key: str, limit: int = 400) -> str:
        ok = isinstance(value, str) and len(value) <= limit and value.isprintable()
        self.need(ok, key, "a printable text", value)
        return value

    def choice(self, value: Any, key: str, allowed) -> str:
        self.need(isinstance(value, str) and value in allowed, key, " | ".join(allowed), value)
        return value

    def whole(self, value: Any, key: str, low: int, high: int) -> int:
        ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        self.need(ok, key, f"a whole number from {low} to {high}", value)
        return value

    def matrix(
        self, value: Any, key: str, low: int, shape: tuple[int | None, int | None], high: int = 2**31 - 1
    ) -> np.ndarray:
        """A rectangular list of lists of whole numbers."""
        ok = isinstance(value, list) and bool(value) and all(isinstance(row, list) and row for row in value)
        ok = ok and len({len(row) for row in value}) == 1
        self.need(ok, key, "a list of rows of one length", value)
        for wanted, actual in zip(shape, (len(value), len(value[0])), strict=True):
            ok = wanted is None or wanted == actual
            self.need(ok, key, f"{shape[0]} rows of {shape[1]}", [len(value), len(value[0])])
        flat = [n for row in value for n in row]
        for n in flat:
            self.whole(n, key, low, high)
        return np.array(value, np.int64)


def parse_manifest(document: dict[str, Any], file: Path | None) -> Manifest:
    """The manifest that a JSON object states.

    Raises:
        TraceError: naming the key, what was expected and what was found.
    """
    r = _Reader(file)
    if document.get("format") != FORMAT:
        raise r.error("format", "this is no manifest of a trace", FORMAT, document.get("format"))
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        error = r.error("version", f"this is a trace of version {describe_value(version)}", str(VERSION), version)
        error.hint = "a newer llama-core may read it"
        raise error
    r.keys(document, "manifest", _KEYS, _OPTIONAL)
    producer = r.keys(document["producer"], "producer", {"name"}, {"version", "device", "detail"})
    model = r.keys(document["model"], "model", set(), {"config", "weights_sha256"})
    config = model.get("config")
    r.need(config is None or isinstance(config, dict), "model.config", "an object or null", config)
    calls = _calls(r, document["calls"])
    return Manifest(
        {key: r.text(value, f"producer.{key}") for key, value in producer.items()},
        config,
        r.text(model.get("weights_sha256") or "", "model.weights_sha256", 64),
        r.choice(document["compute_dtype"], "compute_dtype", FLOAT_DTYPES),
        r.choice(document["storage_dtype"], "storage_dtype", FLOAT_DTYPES),
        r.choice(document["rope_layout"], "rope_layout", ROPE_LAYOUTS),
        calls,
        _tensors(r, document["tensors"], calls),
        _not_provided(r, document.get("not_provided", [])),
        r.choice(document.get("product_inputs", ""), "product_inputs", ("", *PRODUCT_INPUTS)),
    )


def config_of(values: dict[str, Any] | None, file: Path | None) -> LlamaConfig | None:
    """The hyper-parameters that a manifest states.

    Raises:
        TraceError: for an unknown key, or a value that no Llama can have.
    """
    if values is None:
        return None
    known = {field.name for field in dataclasses.fields(LlamaConfig)}
    scaled = {field.name for field in dataclasses.fields(RopeScaling)}
    scaling = values.get("rope_scaling")
    for key in [*(values.keys() - known), *((scaling or {}).keys() - scaled if isinstance(scaling, dict) else ())]:
        message = f"model.config has the unknown key {key[:80]!r}"
        raise TraceError(message, file=file, key="model.config", expected="fields of LlamaConfig", actual=key[:80])
    try:
        fields: dict[str, Any] = {
            key: tuple(v) if key == "eos_token_ids" and isinstance(v, list) else v for key, v in values.items()
        }
        if isinstance(scaling, dict):
            fields["rope_scaling"] = RopeScaling(**scaling)
        return LlamaConfig(**fields)
    except ConfigError as e:
        raise TraceError(e.message, file=file, key=f"model.config.{e.key}", expected=e.expected, actual=e.actual) from e
    except TypeError as e:
        message = f"model.config: {e}"
        raise TraceError(message, file=file, key="model.config", expected="a LlamaConfig", actual=str(e)) from e


def _calls(r: _Reader, value: Any) -> list[Call]:
    r.need(isinstance(value, list) and 0 < len(value) <= 100_000, "calls", "a list of 1 to 100,000 calls", value)
    calls: list[Call] = []
    for number, item in enumerate(value):
        where = f"calls[{number}]"
        r.keys(item, where, {"input_ids", "positions"}, _CALL_KEYS)
        positions = r.matrix(item["positions"], f"{where}.positions", -1, (None, None), MAX_POSITION)
        ids = r.matrix(item["input_ids"], f"{where}.input_ids", 0, positions.shape)
        rows = len(positions)
        sequences = item.get("sequences", list(range(rows)))
        ok = isinstance(sequences, list) and len(sequences) == rows and len(set(map(str, sequences))) == rows
        r.need(ok, f"{where}.sequences", f"{rows} different sequence numbers", sequences)
        for n in sequences:
            r.whole(n, f"{where}.sequences", 0, 2**31 - 1)
        slots = item.get("key_positions")
        slots = None if slots is None else r.matrix(slots, f"{where}.key_positions", -1, (rows, None), MAX_POSITION)
        call = make_call(calls, ids, positions, sequences, slots)
        if "past" in item:
            past = item["past"]
            if past is not None:
                r.whole(past, f"{where}.past", 0, number - 1)
            call = dataclasses.replace(call, past=past)
        for row in range(rows):
            real = positions[row][positions[row] >= 0]
            ok = len(np.unique(real)) == len(real)
            r.need(ok, f"{where}.positions", "every position once in a row", positions[row].tolist())
        calls.append(call)
    return calls


def _tensors(r: _Reader, value: Any, calls: list[Call]) -> list[TensorRecord]:
    r.need(isinstance(value, list) and len(value) <= 1_000_000, "tensors", "a list of tensors", value)
    records: list[TensorRecord] = []
    seen: set[tuple[str, int]] = set()
    for number, item in enumerate(value):
        where = f"tensors[{number}]"
        r.keys(item, where, {"name", "shape", "dtype"}, _TENSOR_KEYS)
        name = r.text(item["name"], f"{where}.name", 200)
        where = f"{where} ({name})"
        call = r.whole(item.get("call", 0), f"{where}.call", 0, len(calls) - 1)
        if (name, call) in seen:
            raise r.error(where, f"{name} is there twice in call {call}", "each tensor of a call once", name)
        seen.add((name, call))
        shape = item["shape"]
        ok = isinstance(shape, list) and len(shape) <= 8
        r.need(ok, f"{where}.shape", "a list of at most 8 sizes", shape)
        for size in shape:
            r.whole(size, f"{where}.shape", 0, 2**40)
        own = known_axes(name)
        if own and item.get("axes", own) == own and len(own.split()) != len(shape):
            wanted = f"{len(own.split())} sizes, {own}; or a name of your own, and a map to ours"
            raise r.error(f"{where}.shape", f"the shape of {name} has {len(shape)} sizes", wanted, shape)
        axes = r.text(item.get("axes", own), f"{where}.axes", 40)
        ok = not axes or (len(axes.split()) == len(shape) and set(axes.split()) <= AXES.keys())
        r.need(ok, f"{where}.axes", f"{len(shape)} letters of {' '.join(AXES)}", axes)
        file = r.text(item.get("file", ""), f"{where}.file")
        digest = r.text(item.get("sha256", ""), f"{where}.sha256", 64)
        statistics = _statistics(r, item.get("statistics"), where)
        r.need(bool(file) or statistics is not None, where, "a file, or statistics", item)
        rows = _rows(r, item.get("rows"), calls[call], axes, shape, where)
        dtype = r.choice(item["dtype"], f"{where}.dtype", HEADER_NAMES)
        records.append(TensorRecord(name, call, axes, tuple(shape), dtype, rows, file, digest, statistics))
    return records


def _rows(r: _Reader, rows: Any, call: Call, axes: str, shape: list[int], where: str) -> tuple[int, ...] | None:
    if rows is None or "S" not in axes.split():
        return None
    r.need(isinstance(rows, list) and bool(rows), f"{where}.rows", "a list of row numbers", rows)
    for row in rows:
        r.whole(row, f"{where}.rows", 0, call.positions.shape[1] - 1)
    r.need(rows == sorted(set(rows)), f"{where}.rows", "row numbers that rise", rows)
    size = shape[axes.split().index("S")]
    r.need(len(rows) == size, f"{where}.rows", f"{size} rows, as the shape says", rows)
    return tuple(rows)


def _statistics(r: _Reader, value: Any, where: str) -> Statistics | None:
    if value is None:
        return None
    names = {field.name for field in dataclasses.fields(Statistics)}
    r.keys(value, f"{where}.statistics", {"sum", "l2", "min", "max"}, names)
    for key, number in value.items():
        ok = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= sys.float_info.max
        r.need(ok, f"{where}.statistics.{key}", "a finite number", number)
        ok = number >= 0 or key in ("sum", "min", "max")
        r.need(ok, f"{where}.statistics.{key}", "a number that is not negative", number)
    r.need(value["min"] <= value["max"], f"{where}.statistics.min", f"at most the max, {value['max']}", value["min"])
    return Statistics(**value)


def _not_provided(r: _Reader, value: Any) -> dict[str, str]:
    r.need(isinstance(value, list), "not_provided", "a list", value)
    found = {}
    for number, item in enumerate(value):
        r.keys(item, f"not_provided[{number}]", {"names", "reason"})
        found[r.text(item["names"], "not_provided.names")] = r.text(item["reason"], "not_provided.reason")
    return found
