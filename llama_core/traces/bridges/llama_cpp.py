"""Traces of llama.cpp: prefill and teacher-forced decode of a GGUF file on the CPU; its code is not touched.

A node is known by its name *and* its operation: ``Qcur-0`` is product, reshape and rotation in turn. ``kq`` is not
scaled, and padded to a multiple of 256 keys; it is scaled and cut here. Masked scores do not exist in llama.cpp.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from llama_core.config import LlamaConfig
from llama_core.errors import TraceError
from llama_core.names import activation_axes
from llama_core.traces.bridges.ggml import Context, Library, Model, Node
from llama_core.traces.format import Call, Manifest, expected_shape, fingerprint, parse_rows
from llama_core.traces.read import Trace
from llama_core.traces.recorder import Plan, next_call, selected_rows, wanted_names
from llama_core.traces.write import TraceWriter
from llama_core.weights.gguf_file import open_gguf, product_inputs
from llama_core.weights.gguf_header import is_gguf
from llama_core.weights.gguf_tensor import GgufTensor
from llama_core.weights.stored import StoredModel

_NOT_PROVIDED = {
    "layers.*.masked_scores": "llama.cpp masks inside its softmax",
    "layers.*.ffn_activation": "llama.cpp computes silu and the product in one operation",
}


def record_llama_cpp(
    model: str | PathLike[str],
    folder: str | PathLike[str],
    plan: Plan,
    *,
    rows: str | None = None,
    names: str | Sequence[str] = "*",
    storage_dtype: str | None = None,
    statistics_only: bool = False,
    threads: int | None = None,
) -> Trace:
    """Write a trace of llama.cpp.

    Every row of a batch is a run of its own, in a context of its own; padding is not fed, and is zero in the trace.

    Args:
        model: a GGUF file. plan: the calls to make (``recorder.plan_like``, ``plan_prompt``).
        threads: None for as many as torch takes. The others as in ``record``.

    Raises:
        TraceError: llama-cpp-python is not installed, or llama.cpp cannot run the model.
        ConfigError, WeightsError: the file is not a Llama's.
    """
    if not is_gguf(model):
        raise TraceError(
            "llama.cpp reads GGUF files",
            file=str(model),
            key="--model",
            expected="a .gguf file",
            hint="llama-core convert DIR model.gguf --to gguf writes one",
        )
    path = Path(model).expanduser()
    stored = open_gguf(path)  # first: nobody should compile llama.cpp to hear that the file is damaged
    library = Library()
    config = stored.config
    wanted = set(wanted_names(names, config.num_hidden_layers))
    chosen = parse_rows(rows, plan.calls[0].positions.shape[1])
    loaded = Model(library, path)
    try:
        with TraceWriter(folder, _manifest(library, stored, storage_dtype), statistics_only) as writer:
            _Run(loaded, config, plan, writer, wanted, chosen, threads or torch.get_num_threads()).run()
    finally:
        loaded.close()
    return Trace.open(folder)


def _manifest(library: Library, stored: StoredModel, storage_dtype: str | None) -> Manifest:
    tensors = {name: entry for name, entry in stored.parameters.items() if isinstance(entry, GgufTensor)}
    kinds = sorted({entry.type.name for entry in tensors.values()})
    return Manifest(
        {
            "name": "llama.cpp",
            "version": f"llama-cpp-python {library.version}",
            "device": "cpu",
            "detail": f"{', '.join(kinds)}; flash attention off, cache in float32; scores are kq times 1/sqrt(D)",
        },
        dataclasses.asdict(stored.config.replace(dtype="float32")),
        fingerprint((name, entry.read) for name, entry in tensors.items()),
        "float32",
        storage_dtype or "float32",
        "interleaved",
        [],
        not_provided=dict(_NOT_PROVIDED),
        product_inputs=product_inputs(stored),
    )


@dataclasses.dataclass(frozen=True)
class Tap:
    """Where one of our activations is seen.

    Attributes:
        ops: the operations of a node of this name that give it.
        read: from the node to the values of one sequence, axes as ours without B.
    """

    name: str
    ops: tuple[str, ...]
    read: Callable[[Node, LlamaConfig], np.ndarray]


def _rows(node: Node, config: LlamaConfig) -> np.ndarray:
    """[S, …]."""
    values = node.read()
    return values.reshape(-1, values.shape[-1])


def _heads(node: Node, config: LlamaConfig) -> np.ndarray:
    """[S, H, D], whether the heads are apart already or not."""
    return node.read().reshape(-1, config.num_attention_heads, config.head_dim)


def _key_heads(node: Node, config: LlamaConfig) -> np.ndarray:
    """[S, K, D], likewise."""
    return node.read().reshape(-1, config.num_key_value_heads, config.head_dim)


def _scores(node: Node, config: LlamaConfig) -> np.ndarray:
    """[H, S, T], scaled."""
    return _by_head(node, config) * np.float32(1 / math.sqrt(config.head_dim))


def _by_head(node: Node, config: LlamaConfig) -> np.ndarray:
    """[H, S, T]; T is still padded."""
    values = node.read()
    return values.reshape(config.num_attention_heads, -1, values.shape[-1])


def _keys(node: Node, config: LlamaConfig) -> np.ndarray:
    """[K, T, D]: what kq multiplies q with."""
    values = node.source(0).read()
    return values.reshape(config.num_key_value_heads, -1, config.head_dim)


def _values(node: Node, config: LlamaConfig) -> np.ndarray:
    """[K, T, D]: what kqv multiplies the weights with, which llama.cpp keeps transposed."""
    values = node.source(0).read()
    return values.reshape(config.num_key_value_heads, config.head_dim, -1).swapaxes(1, 2)


def taps(config: LlamaConfig) -> dict[str, list[Tap]]:
    """llama.cpp's name, its layer's number apart -> what it shows. With a bias, the sum counts, not the product."""

    def linear(name: str, bias: bool, read=_rows) -> Tap:
        return Tap(name, ("ADD",) if bias else ("MUL_MAT",), read)

    qkv, mlp = config.qkv_bias or config.attention_bias, config.mlp_bias
    return {
        "embd": [Tap("embedding", ("GET_ROWS",), _rows)],
        "attn_norm": [Tap("attention_norm", ("MUL",), _rows)],
        "Qcur": [linear("q", qkv, _heads), Tap("q_rotated", ("ROPE",), _heads)],
        "Kcur": [linear("k", qkv, _key_heads), Tap("k_rotated", ("ROPE",), _key_heads)],
        "Vcur": [linear("v", qkv, _key_heads)],
        "kq": [Tap("cache_k", ("MUL_MAT",), _keys), Tap("scores", ("MUL_MAT",), _scores)],
        "kq_soft_max": [Tap("attention_weights", ("SOFT_MAX",), _by_head)],
        "kqv": [Tap("cache_v", ("MUL_MAT",), _values)],
        "kqv_out": [Tap("attention_context", ("CONT",), _heads)],
        "attn_out": [linear("attention_output", config.attention_bias)],
        "ffn_inp": [Tap("attention_residual", ("ADD",), _rows)],
        "ffn_norm": [Tap("ffn_norm", ("MUL",), _rows)],
        "ffn_gate_b" if mlp else "ffn_gate": [linear("ffn_gate", mlp)],
        "ffn_up_b" if mlp else "ffn_up": [linear("ffn_up", mlp)],
        "ffn_swiglu": [Tap("ffn_hidden", ("GLU",), _rows)],
        "ffn_out": [linear("ffn_output", mlp)],
        "l_out": [Tap("output", ("ADD",), _rows)],
        "result_norm": [Tap("final_norm", ("MUL",), _rows)],
        "result_output": [Tap("logits", ("MUL_MAT",), _rows)],
    }


class _Run:
    """The calls of a plan, one sequence after the other."""

    def __init__(self, model: Model, config: LlamaConfig, plan: Plan, writer: TraceWriter, wanted, rows, threads: int):
        self.model, self.config, self.plan, self.writer = model, config, plan, writer
        self.wanted, self.chosen, self.threads = wanted, rows, threads
        self.taps = taps(config)
        self.contexts: dict[tuple[int, ...], list[Context]] = {}
        self.begun: dict[str, np.ndarray] = {}
        self.call: Call | None = None
        self.row = self.last_row = 0
        self.rows: tuple[int, ...] | None = None
        self.logits: np.ndarray | None = None

    def run(self) -> None:
        calls = list(self.plan.calls)
        try:
            for number in range(len(calls) + self.plan.steps):
                if number >= len(calls):
                    calls.append(next_call(calls, torch.from_numpy(self.logits)))
                self.rows = self.chosen if number == 0 else None
                self._run_call(calls[number])
        finally:
            for contexts in self.contexts.values():
                for context in contexts:
                    context.close()

    def _run_call(self, call: Call) -> None:
        self.call, self.begun = call, {}
        self.writer.begin_call(call)
        for name, values in (("input_ids", call.input_ids), ("position_ids", call.positions)):
            self._write(name, values)
        real = [row for row in range(len(call.sequences)) if (call.positions[row] >= 0).any()]
        self.last_row = real[-1]
        for self.row in real:
            there = call.positions[self.row] >= 0
            context = self._contexts(call)[self.row]
            context.run(call.input_ids[self.row][there].tolist(), call.positions[self.row][there].tolist())

    def _contexts(self, call: Call) -> list[Context]:
        if call.past is None and call.sequences not in self.contexts:
            width = max(c.positions.shape[1] for c in self.plan.calls)
            self.contexts[call.sequences] = [
                Context(self.model, self.plan.length, width, self.threads, self._wants, self._show)
                for _ in call.sequences
            ]
        return self.contexts[call.sequences]

    def _seen(self, node: Node) -> list[tuple[str, Tap]]:
        found = re.fullmatch(r"(.*?)(?:-(\d+))?", node.name)
        prefix = f"layers.{found[2]}." if found[2] else ""
        return [(prefix + tap.name, tap) for tap in self.taps.get(found[1], ()) if node.op in tap.ops]

    def _wants(self, node: Node) -> bool:
        return any(name in self.wanted or name == "logits" for name, _ in self._seen(node))

    def _show(self, node: Node) -> None:
        for name, tap in self._seen(node):
            self._keep(name, tap.read(node, self.config))

    def _keep(self, name: str, values: np.ndarray) -> None:
        """Put one sequence's values into its row; the tensor is written once the last sequence has given its own."""
        call, letters = self.call, activation_axes(name).split()
        if name not in self.begun:
            shape = expected_shape(" ".join(letters), call, None, self.config)
            self.begun[name] = np.zeros(shape, np.float32)
        whole = self.begun[name][self.row]
        there = {"S": call.positions[self.row] >= 0, "T": call.key_positions[self.row] >= 0}
        places = [
            np.flatnonzero(there[letter]) if letter in there else np.arange(size)
            for letter, size in zip(letters[1:], whole.shape, strict=True)
        ]
        if "T" in letters:  # llama.cpp's own slots: the tokens in the order they came in, then padding
            axis = letters.index("T") - 1
            values = values.take(np.arange(len(places[axis])), axis)
        if values.shape != tuple(len(place) for place in places):
            raise TraceError(
                f"llama.cpp gives {name} in a shape that is not the model's",
                key=name,
                expected=[len(place) for place in places],
                actual=list(values.shape),
            )
        whole[np.ix_(*places)] = values
        if self.row == self.last_row:
            self._write(name, self.begun.pop(name))

    def _write(self, name: str, values: np.ndarray) -> None:
        if name == "logits":
            self.logits = values
        if name in self.wanted:
            shown, chosen = selected_rows(name, torch.from_numpy(values), self.rows)
            self.writer.add(name, shown, chosen)
