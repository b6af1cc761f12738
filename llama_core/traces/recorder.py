"""Run a model and write its named activations: prefill, then decode steps, tensor by tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from llama_core import __version__
from llama_core.cache import KVCache
from llama_core.capture import capture
from llama_core.dtypes import dtype_name
from llama_core.errors import TraceError
from llama_core.model import Llama
from llama_core.names import activation_axes, match_activations
from llama_core.traces.format import Call, Manifest, fingerprint, make_call, parse_rows
from llama_core.traces.read import Trace
from llama_core.traces.write import TraceWriter


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fed to a model, call by call.

    Attributes:
        calls: what is known of them in advance.
        steps: how many greedy steps follow; each is fed the token that the one before chose.
    """

    calls: list[Call]
    steps: int = 0

    @property
    def length(self) -> int:
        """Slots that the longest cache needs."""
        return max(call.key_positions.shape[1] for call in self.calls) + self.steps


def plan_prompt(input_ids, attention_mask=None, steps: int = 0, chunk: int | None = None) -> Plan:
    """Prefill, in one call or in chunks, and then greedy steps.

    Args:
        input_ids: [B, S] or a list of ids. attention_mask: [B, S], 0 for padding.
    """
    ids = _whole_numbers(input_ids, "input_ids")
    if not ids.size:
        raise TraceError("there are no token ids to trace", key="input_ids", expected="at least one", actual="none")
    for key, value, least in (("steps", steps, 0), ("chunk", 1 if chunk is None else chunk, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise TraceError(f"{key} is {value!r}", key=key, expected=f"a whole number, {least} or more", actual=value)
    mask = np.ones_like(ids) if attention_mask is None else _whole_numbers(attention_mask, "attention_mask")
    if mask.shape != ids.shape:
        raise TraceError(
            "the mask has another shape than the ids",
            key="attention_mask",
            expected=list(ids.shape),
            actual=list(mask.shape),
        )
    positions = np.where(mask != 0, np.cumsum(mask != 0, axis=1) - 1, -1)
    calls: list[Call] = []
    width = chunk or ids.shape[1]
    for start in range(0, ids.shape[1], width):
        part = slice(start, start + width)
        past = len(calls) - 1 if calls else None
        call = make_call(calls, ids[:, part] * mask[:, part], positions[:, part], range(len(ids)))
        if past is not None and call.past is None:  # padding on the right: the slots go on all the same
            slots = np.concatenate([calls[past].key_positions, positions[:, part]], axis=1)
            call = dataclasses.replace(call, past=past, key_positions=slots)
        calls.append(call)
    return Plan(calls, steps)


def _whole_numbers(values, key: str) -> np.ndarray:
    """A table [B, S] of whole numbers, from a tensor, an array or lists."""
    try:
        table = np.atleast_2d(np.asarray(values))
    except ValueError as e:  # rows of several lengths
        raise TraceError(f"{key} is no table", key=key, expected="rows of one length", actual=str(e)[:120]) from e
    if table.ndim != 2 or (table.size and table.dtype.kind not in "iub"):
        raise TraceError(
            f"{key} is no table of whole numbers",
            key=key,
            expected="[B, S], whole numbers",
            actual=f"{list(table.shape)}, {table.dtype}",
        )
    return table.astype(np.int64)


def plan_like(trace: Trace) -> Plan:
    """The calls of another trace, its decoded ids included: whoever runs them is teacher-forced."""
    return Plan([dataclasses.replace(call) for call in trace.calls])


def record(
    model: Llama,
    input_ids,
    folder: str | PathLike[str],
    *,
    steps: int = 0,
    rows: str | None = None,
    names: str | Sequence[str] = "*",
    attention_mask=None,
    storage_dtype: str | None = None,
    chunk: int | None = None,
    plan: Plan | None = None,
    statistics_only: bool = False,
    noise: Sequence[str] = (),
) -> Trace:
    """Write the activations of a run to a folder, whole or not at all.

    Args:
        model: the model; it computes in its own dtype.
        input_ids: the prompt, [B, S] or a list. Ignored if there is a ``plan``.
        steps: greedy decode steps behind the prompt, each a call of its own.
        rows: the query rows of the prompt to keep, such as ``"0,last,16"``; keys and values are kept whole.
        names: shell patterns of activation names.
        storage_dtype: None for the model's.
        chunk: feed the prompt in pieces of so many tokens.
        plan: calls to make instead, such as those of another trace (``plan_like``).
        noise: dtypes whose noise is measured and stored beside the trace (``traces.noise``).
        statistics_only: sums and extremes of every tensor, no values.

    Raises:
        TraceError, InputError, CaptureError: before anything is written.
    """
    plan = plan or plan_prompt(input_ids, attention_mask, steps, chunk)
    wanted = wanted_names(names, model.config.num_hidden_layers)
    manifest = manifest_of(model, storage_dtype)
    selected = parse_rows(rows, plan.calls[0].positions.shape[1])
    with TraceWriter(folder, manifest, statistics_only) as writer:
        run_plan(model, plan, writer, wanted, selected)
        if noise:
            from llama_core.traces.noise import write_noise

            write_noise(writer.staged, writer, model, wanted, noise)
    return Trace.open(folder)


def wanted_names(names: str | Sequence[str], layers: int) -> list[str]:
    """The activations that any pattern names; every pattern has to name one."""
    patterns = [names] if isinstance(names, str) else list(names)
    for pattern in patterns:
        if not match_activations(pattern, layers):
            raise TraceError(
                f"{pattern!r} names no activation of a model with {layers} layers",
                key="names",
                expected='patterns such as "*", "layers.*.q" or "logits"',
                actual=pattern,
            )
    return match_activations(patterns, layers)


def manifest_of(model: Llama, storage_dtype: str | None = None, compute_dtype: str | None = None) -> Manifest:
    """What a trace of a model says of itself, calls and tensors apart."""
    config = dataclasses.asdict(model.config.replace(dtype=dtype_name(model.dtype)))
    own = dtype_name(model.dtype)
    parameters = ((n, p) for n, p in model.named_parameters())  # a tied head is listed once
    return Manifest(
        {"name": "llama-core", "version": __version__, "device": model.device.type},
        config,
        fingerprint(parameters),
        compute_dtype or own,
        storage_dtype or compute_dtype or own,
        model.config.rope_layout,
        [],
    )


@torch.no_grad()
def run_plan(model: Llama, plan: Plan, writer, wanted: Sequence[str], rows: tuple[int, ...] | None = None) -> None:
    """Make the calls, and hand every wanted activation to ``writer.add``, which may be any object that has it."""
    caches: dict[tuple[int, ...], KVCache] = {}
    calls = list(plan.calls)
    logits: Tensor | None = None
    for number in range(len(calls) + plan.steps):
        if logits is not None and number >= len(calls):
            calls.append(next_call(calls, logits))
        call = calls[number]
        cache = _cache_for(model, call, plan, caches)
        writer.begin_call(call)
        logits = _run_call(model, call, cache, writer, wanted, rows if number == 0 else None)


def next_call(calls: list[Call], logits: Tensor) -> Call:
    """A greedy step: the most likely token behind each row's last real one."""
    before = calls[-1]
    last = before.positions.argmax(1)
    chosen = logits[torch.arange(len(last)), torch.from_numpy(last)].argmax(-1).cpu().numpy()[:, None]
    positions = before.key_positions.max(1, keepdims=True) + 1
    slots = np.concatenate([before.key_positions, positions], axis=1)
    return Call(chosen.astype(np.int64), positions, before.sequences, len(calls) - 1, slots)


def _cache_for(model: Llama, call: Call, plan: Plan, caches) -> KVCache:
    if call.past is None:
        caches[call.sequences] = KVCache(
            model.config, len(call.sequences), plan.length, dtype=model.dtype, device=model.device
        )
        return caches[call.sequences]
    cache = caches.get(call.sequences)
    past = call.key_positions.shape[1] - call.positions.shape[1]
    if cache is None or cache.length != past:
        raise TraceError(
            "a call of the plan does not follow from the one before it",
            key="calls",
            expected=f"{past} slots in the cache",
            actual=f"{cache.length if cache else 0} slots",
        )
    return cache


def selected_rows(name: str, value: Tensor, rows: tuple[int, ...] | None) -> tuple[Tensor, tuple[int, ...] | None]:
    """An activation cut to some query positions, and which they are; whole, and None, where it has no such axis."""
    axes = activation_axes(name).split()
    if rows is None or "S" not in axes:
        return value, None
    return value.index_select(axes.index("S"), torch.tensor(rows, device=value.device)), rows


def _run_call(model: Llama, call: Call, cache: KVCache, writer, wanted: Sequence[str], rows) -> Tensor:
    def sink(name: str):
        def keep(value: Tensor) -> Tensor:
            if name == "position_ids":
                shown = value.masked_fill(torch.from_numpy(call.positions < 0).to(value.device), -1)
            else:
                shown = value
            shown, chosen = selected_rows(name, shown, rows)
            writer.add(name, shown, chosen)
            return value

        return keep

    real = call.key_positions >= 0
    mask = None if real.all() else torch.from_numpy(real.astype(np.int64)).to(model.device)
    ids = torch.from_numpy(call.input_ids).to(model.device)
    with capture(model, replace={name: sink(name) for name in wanted}):
        return model(ids, attention_mask=mask, cache=cache)
