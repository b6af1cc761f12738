"""How far right runs of this model on this prompt lie from the golden trace, row by row and head by head.

The right runs of a dtype: this package's eager and fused attention, the prompt in one piece, in chunks and token by
token; and every right arithmetic (``checkpoints.arithmetic``), or, where a model is too large for that, what another
engine might do (``another_engine``). The largest error of each group (``measure``) is stored beside the golden trace as
``DTYPE/NAME`` [N, G], rows sorted by sequence and position. ``float32:q8_0`` in place of a dtype: computed in float32,
inputs of products with weights rounded to q8_0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llama_core.checkpoints.arithmetic import Arithmetic, right_engines, round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.steps import evaluate_model
from llama_core.dtypes import as_torch_dtype
from llama_core.errors import LlamaCoreError, TraceError
from llama_core.model import Llama
from llama_core.names import activation_axes
from llama_core.traces.align import Golden, level, to_rows
from llama_core.traces.another_engine import compute_as_another_engine, use_inexact_frequencies
from llama_core.traces.format import FLOAT_DTYPES, NOISE, PRODUCT_INPUTS, Call, TensorRecord, make_call
from llama_core.traces.measure import group_errors, hide, rounding, units
from llama_core.traces.read import Trace, read_bytes
from llama_core.traces.recorder import Plan, run_plan
from llama_core.traces.write import write_arrays
from llama_core.weights.safetensors_file import read_header

#: Parameters times tokens up to which the gates' arithmetics are run over the whole model.
_SMALL = 200_000_000
_EAGER_ONLY = ("scores", "masked_scores", "attention_weights")
Floors = dict[str, np.ndarray]


class Collector:
    """Takes a run's tensors as a writer would, and keeps the largest error of every group of the golden's rows."""

    def __init__(self, golden: Golden):
        self.golden = golden
        self.calls: list[Call] = []
        self.floors: Floors = {}

    def begin_call(self, call: Call) -> int:
        self.calls.append(call)
        return len(self.calls) - 1

    def add(self, name: str, values: Any, rows: tuple[int, ...] | None = None, **ignored: Any) -> None:
        if name in ("input_ids", "position_ids"):
            return
        array = values.detach().double().cpu().numpy() if isinstance(values, torch.Tensor) else values
        found = to_rows(activation_axes(name), array, self.calls[-1], rows)
        matched = self.golden.matching(name, found)
        if matched is None:
            return
        have, right_rows = matched
        mine, right, seen = level(name, found.only(have), right_rows)
        mine, _ = hide(mine, right)
        unit = units(right, seen)
        errors = group_errors(mine, right, unit)
        index = self.golden.index(name)
        if name not in self.floors:
            self.floors[name] = np.zeros((len(index), errors.shape[1]))
        pairs = zip(right_rows.sequence.tolist(), right_rows.position.tolist(), strict=True)
        at = [index[pair] for pair in pairs]
        np.maximum.at(self.floors[name], at, errors)


def measure_noise(golden: Trace, model: Llama, dtype: str, wanted: Sequence[str]) -> Floors:
    """Name -> the largest error [N, G] of the right runs of a dtype on the golden's own ids.

    ``dtype`` may say what inputs of products are rounded to, as ``Manifest.arithmetic`` does: ``float32:q8_0``.
    """
    dtype, product_inputs = _arithmetic_of(dtype)
    rows = next((t.rows for t in golden.manifest.tensors if t.rows is not None), None)
    collector = Collector(Golden(golden, keep=4096))
    plan = Plan([*golden.calls])
    for run in _right_runs(model, dtype, product_inputs, plan, wanted, rows):
        collector.calls = []
        run(collector)
    for name, floors in collector.floors.items():
        if floors.any():
            floors[:] = np.maximum(floors, _rounding_of(collector, name, dtype))
    return collector.floors


def _rounding_of(collector: Collector, name: str, dtype: str) -> np.ndarray:
    """Half a unit in the last place, which any right run may be off by."""
    out = np.zeros_like(collector.floors[name])
    index = collector.golden.index(name)
    for call in collector.golden.calls_of[name]:
        rows = collector.golden.rows(name, call)
        _, right, seen = level(name, rows, rows)
        unit = units(right, seen)
        at = [index[pair] for pair in zip(rows.sequence.tolist(), rows.position.tolist(), strict=True)]
        out[at] = rounding(right, unit, dtype)
    return out


def _arithmetic_of(name: str) -> tuple[str, str]:
    """``float32:q8_0`` as (``float32``, ``q8_0``); a dtype alone as (it, "").

    Raises:
        TraceError: when there is no such arithmetic.
    """
    dtype, colon, product_inputs = name.partition(":")
    if dtype not in FLOAT_DTYPES or (colon and product_inputs not in PRODUCT_INPUTS):
        raise TraceError(
            f"there is no arithmetic {name!r} to measure noise in",
            key="noise",
            expected=f"{' | '.join(FLOAT_DTYPES)}, perhaps with :{' | :'.join(PRODUCT_INPUTS)}",
            actual=name,
        )
    return dtype, product_inputs


def _right_runs(
    model: Llama, dtype: str, product_inputs: str, plan: Plan, wanted: Sequence[str], rows
) -> Iterator[Callable]:
    twin = _converted(model, dtype, product_inputs)
    plain = [name for name in wanted if name.split(".")[-1] not in _EAGER_ONLY]
    for names, attention in ((wanted, "eager"), (plain, "fused")):

        def run(collector, names=names, attention=attention):
            twin.attention = attention
            run_plan(twin, plan, collector, names, rows)

        yield run
    for width in (1, 5):
        pieces = split_calls(plan.calls, width)

        def chunked(collector, pieces=pieces):
            twin.attention = "eager"
            run_plan(twin, Plan(pieces), collector, wanted)

        if len(pieces) > len(plan.calls) and sum(c.positions.size for c in pieces) <= 256:
            yield chunked
    if model.config.num_parameters * sum(call.positions.size for call in plan.calls) <= _SMALL:
        weights = {n: round_to(p.detach().double().cpu().numpy(), dtype) for n, p in model.state_dict().items()}
        for arithmetic in right_engines(dtype, product_inputs):
            yield lambda collector, a=arithmetic: _run_reference(model, weights, plan, collector, wanted, a)
        return
    twin.attention = "eager"
    for change in (use_inexact_frequencies, compute_as_another_engine):

        def changed(collector, change=change):
            change(twin)
            run_plan(twin, plan, collector, wanted, rows)

        yield changed


def split_calls(calls: Sequence[Call], width: int) -> list[Call]:
    """The same tokens in calls of at most ``width``; calls with padding stay whole."""
    pieces: list[Call] = []
    for call in calls:
        if (call.key_positions < 0).any():
            return list(calls)
        for start in range(0, call.positions.shape[1], width):
            part = slice(start, start + width)
            pieces.append(make_call(pieces, call.input_ids[:, part], call.positions[:, part], call.sequences))
    return pieces


def _converted(model: Llama, dtype: str, product_inputs: str) -> Llama:
    tensors = {name: p.detach().to(as_torch_dtype(dtype), copy=True) for name, p in model.state_dict().items()}
    twin = Llama(model.config.replace(dtype=dtype))
    twin.load_state_dict(tensors, assign=True)
    if product_inputs:
        arithmetic = Arithmetic(product_inputs=product_inputs)

        def round_input(_, arguments):
            rounded = arithmetic.round_input(arguments[0].detach().double().cpu().numpy())
            return torch.from_numpy(rounded).to(arguments[0])

        for module in twin.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(round_input)
    return twin.to(model.device)


def _run_reference(model: Llama, weights, plan: Plan, collector, wanted, arithmetic) -> None:
    """The table of steps with one right arithmetic, call by call."""
    pasts: dict[int, dict[str, np.ndarray]] = {}
    for number, call in enumerate(plan.calls):
        past = {} if call.past is None else pasts[call.past]
        given = {"input_ids": call.input_ids, "position_ids": call.positions, "key_positions": call.key_positions}
        given["attention_mask"] = (call.key_positions >= 0).astype(np.int64)
        context = Context(model.config, weights, given, arithmetic, past, call=number)
        with np.errstate(all="ignore"):
            values = evaluate_model(context)
        pasts[number] = {
            n: v for n, v in values.items() if n == "key_positions" or n.endswith((".cache_k", ".cache_v"))
        }
        collector.begin_call(call)
        for name in wanted:
            collector.add(name, values[name])


def write_noise(folder: Path, writer, model: Llama, wanted: Sequence[str], dtypes: Sequence[str]) -> None:
    """Measure the noise of some dtypes, and store it in a trace that is being written."""
    golden = writer.so_far()
    arrays: dict[str, np.ndarray] = {}
    for dtype in dtypes:
        for name, floors in measure_noise(golden, model, dtype, wanted).items():
            arrays[f"{dtype}/{name}"] = floors.astype(np.float32)
    records = [TensorRecord(name, 0, "", x.shape, "float32") for name, x in arrays.items()]
    write_arrays(folder / NOISE, arrays, records)


def stored_noise(golden: Trace, dtype: str) -> Floors | None:
    """The noise that is stored beside a golden trace for a dtype, or None.

    Raises:
        TraceError: when the file is not what it must be.
    """
    if golden.folder is None or not (golden.folder / NOISE).exists():
        return None
    try:
        entries = read_header(golden.folder, NOISE)
    except LlamaCoreError as e:
        raise TraceError(e.message, file=e.file, key=e.key, expected=e.expected, actual=e.actual) from e
    found = {name.partition("/")[2]: e for name, e in entries.items() if name.partition("/")[0] == dtype}
    floors = {}
    for name, entry in found.items():
        ok = entry.dtype == "F32" and len(entry.shape) == 2
        values = read_bytes(entry).astype(np.float64) if ok else np.zeros((0, 0))
        if not ok or not np.isfinite(values).all() or (values < 0).any():
            raise TraceError(
                f"the noise of {name} is not a table of numbers",
                file=golden.folder / NOISE,
                key=entry.name,
                expected="float32 [rows, heads], finite, not below 0",
                actual=f"{entry.dtype} {list(entry.shape)}",
            )
        floors[name] = values
    return floors or None
