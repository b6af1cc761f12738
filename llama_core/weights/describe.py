"""What a model folder holds, told from its configuration and the headers of its files; no weight is read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from os import PathLike
from typing import Any

from llama_core.config import LlamaConfig
from llama_core.dtypes import as_torch_dtype
from llama_core.weights.expected import fold_layers
from llama_core.weights.gguf_tensor import GgufTensor
from llama_core.weights.open_folder import open_folder
from llama_core.weights.safetensors_file import TORCH_DTYPES
from llama_core.weights.stored import StoredModel, StoredTensor

DTYPES = ("float32", "bfloat16", "float16")

_LAYOUTS = {
    "half": "half: pair i is coordinates (i, i + D/2), as in Hugging Face files",
    "interleaved": "interleaved: pair i is coordinates (2i, 2i + 1), as in Meta's files and llama.cpp",
}

_FORMATS = {
    "huggingface": "Hugging Face, safetensors",
    "meta": "Meta, torch archives; rows of q and k interleaved, put in order as they are read",
    "gguf": "GGUF, llama.cpp; rows of q and k interleaved, put in order as they are read",
}


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that differ in the layer's number only.

    Attributes:
        name: ``model.layers.[0-21].mlp.up_proj.weight``. count: how many. dtype, shape: of each.
        parameters, bytes: of all of them together.
    """

    name: str
    count: int
    dtype: str
    shape: tuple[int, ...]
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes needed to run with weights and cache in one dtype, activations not counted."""

    dtype: str
    weights: int
    kv_cache: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache


@dataclass(frozen=True)
class Description:
    """A model folder at a glance.

    Attributes:
        folder, format, files: where it is, how it is written, its weight files.
        config: its configuration.
        groups: its tensors, those of all layers in one row each.
        tensors: how many there are. parameters: of the model, a tied head counted once. bytes: of the tensors on disk.
        ignored: names of stored buffers that are not read.
        context, batch_size: what ``memory`` is for. memory: one entry per dtype.
    """

    folder: str
    format: str
    files: tuple[str, ...]
    config: LlamaConfig
    groups: tuple[TensorGroup, ...]
    tensors: int
    parameters: int
    bytes: int
    ignored: tuple[str, ...]
    context: int
    batch_size: int
    memory: tuple[Memory, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dictionaries."""
        content = dataclasses.asdict(self)
        content["memory"] = [dataclasses.asdict(m) | {"total": m.total} for m in self.memory]
        return content

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """A page for the terminal, at most 100 columns unless names of files are longer."""
        sections = [
            ("", _facts(self)),
            ("Architecture", _architecture(self.config)),
            ("Rotary embedding", _rotary(self.config)),
            ("Tokens", _tokens(self.config)),
        ]
        width = max(len(label) for _, rows in sections for label, _ in rows) + 2
        lines = []
        for title, rows in sections:
            lines += ["", title] if title else []
            lines += [f"  {label:<{width}}{value}" for label, value in rows]
        lines += ["", "Tensors", *_table(_tensor_rows(self.groups), left=(0, 1, 2))]
        where = f"{self.context:,} tokens" + (f", batch of {self.batch_size}" if self.batch_size > 1 else "")
        lines += ["", f"Memory at {where} (activations not counted)", *_table(_memory_rows(self.memory), left=(0,))]
        return "\n".join(lines)


def describe(folder: str | PathLike[str], context: int | None = None, batch_size: int = 1) -> Description:
    """Describe a model folder; everything but the values of its weights is checked as for loading.

    Args:
        folder: a model folder, or ``"stories"``.
        context: tokens in the cache that ``memory`` reckons with; None for ``max_position_embeddings``.
        batch_size: sequences in that cache.

    Raises:
        ConfigError, WeightsError: as ``load_model``.
    """
    stored = open_folder(folder)
    config = stored.config
    entries = [*stored.parameters.values(), *([stored.extra_head] if stored.extra_head else [])]
    context = config.max_position_embeddings if context is None else context
    memory = []
    for dtype in DTYPES:
        size = as_torch_dtype(dtype).itemsize
        cache = config.kv_cache_bytes(context, batch_size, size)
        memory.append(Memory(dtype, config.num_parameters * size, cache))
    return Description(
        folder=str(stored.folder),
        format=stored.format,
        files=stored.files,
        config=config,
        groups=tuple(_groups(stored)),
        tensors=len(entries),
        parameters=config.num_parameters,
        bytes=sum(_on_disk(entry)[1] for entry in entries),
        ignored=stored.ignored,
        context=context,
        batch_size=batch_size,
        memory=tuple(memory),
    )


def in_units(count: int) -> str:
    """A number of bytes as people say it: ``2.20 GB`` (10⁹)."""
    return _rounded(count, (" TB", " GB", " MB", " kB", " B"))


def _rounded(count: int, units: tuple[str, ...] = (" T", " G", " M", " k", "")) -> str:
    """Three digits and a unit of a thousand: 65,536,000 as ``65.5 M``."""
    for power, unit in zip((12, 9, 6, 3), units, strict=False):
        value = count / 10**power
        if value >= 0.9995:
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{count}{units[-1]}"


def _on_disk(entry: StoredTensor) -> tuple[str, int]:
    """The type a tensor is stored in, and its bytes: of quantized ones not what they are read as."""
    return (entry.type.name, entry.stored_bytes) if isinstance(entry, GgufTensor) else (entry.dtype, entry.nbytes)


def _groups(stored: StoredModel) -> list[TensorGroup]:
    kinds: dict[tuple[str, str, tuple[int, ...]], list[StoredTensor]] = {}
    entries = [*stored.parameters.values(), *([stored.extra_head] if stored.extra_head else [])]
    for entry in entries:
        parts = entry.name.split(".")
        kind = ".".join("N" if part.isdigit() else part for part in parts)
        kinds.setdefault((kind, _on_disk(entry)[0], entry.shape), []).append(entry)
    return [
        TensorGroup(
            name=fold_layers(entry.name for entry in group)[0],
            count=len(group),
            dtype=dtype,
            shape=shape,
            parameters=sum(entry.numel for entry in group),
            bytes=sum(_on_disk(entry)[1] for entry in group),
        )
        for (_, dtype, shape), group in kinds.items()
    ]


def _facts(d: Description) -> list[tuple[str, str]]:
    order = list(TORCH_DTYPES)
    dtypes = sorted({group.dtype for group in d.groups}, key=lambda t: order.index(t) if t in order else len(order))
    files = d.files[0] if len(d.files) == 1 else f"{len(d.files)} files, {d.files[0]} …"
    rows = [
        ("folder", d.folder),
        ("format", _FORMATS[d.format]),
        ("weights", f"{files}, {' and '.join(dtypes)}, {in_units(d.bytes)}"),
        ("parameters", f"{d.parameters:,} in {d.tensors:,} tensors"),
    ]
    return rows + (
        [("not read", f"{len(d.ignored)} buffer{'s' * (len(d.ignored) > 1)}: {fold_layers(d.ignored)[0]}")]
        if d.ignored
        else []
    )


def _architecture(c: LlamaConfig) -> list[tuple[str, str]]:
    shared = c.num_attention_heads // c.num_key_value_heads
    kinds = (("q, k and v", c.qkv_bias and not c.attention_bias), ("attention", c.attention_bias))
    biases = [name for name, there in (*kinds, ("feed-forward", c.mlp_bias)) if there]
    extra = [("q and k", "each head normalised before it is rotated")] if c.qk_norm else []
    if c.sliding_window is not None:
        extra += [("sliding window", f"{c.sliding_window:,} tokens")]
    heads = "one for each query head" if shared == 1 else f"each for {shared} query heads"
    return [
        ("layers", f"{c.num_hidden_layers}"),
        ("hidden size", f"{c.hidden_size:,}"),
        ("feed-forward size", f"{c.intermediate_size:,}"),
        ("query heads", f"{c.num_attention_heads} of {c.head_dim}"),
        ("key/value heads", f"{c.num_key_value_heads}, {heads}"),
        ("vocabulary", f"{c.vocab_size:,}, head {'tied to' if c.tie_word_embeddings else 'apart from'} the embedding"),
        ("biases", " and ".join(biases) or "none"),
        ("norm epsilon", f"{c.rms_norm_eps:g}"),
        ("context", f"{c.max_position_embeddings:,} tokens"),
        *extra,
    ]


def _rotary(c: LlamaConfig) -> list[tuple[str, str]]:
    rows = [("layout", _LAYOUTS[c.rope_layout]), ("theta", f"{c.rope_theta:g}")]
    scaling = c.rope_scaling
    if scaling is None or scaling.kind == "default":
        return [*rows, ("scaling", "none")]
    text = f"{scaling.kind}, factor {scaling.factor:g}"
    if scaling.kind in ("yarn", "llama3"):
        text += f", from {scaling.original_max_position_embeddings or c.max_position_embeddings:,} tokens"
    return [*rows, ("scaling", text)]


def _tokens(c: LlamaConfig) -> list[tuple[str, str]]:
    def shown(token: int | None) -> str:
        return "none" if token is None else str(token)

    end = ", ".join(map(str, c.eos_token_ids)) or "none"
    return [("begin", shown(c.bos_token_id)), ("end", end), ("padding", shown(c.pad_token_id))]


def _tensor_rows(groups: tuple[TensorGroup, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("name", "dtype", "shape", "parameters", "size")]
    for g in groups:
        shape = " × ".join(f"{n}" for n in g.shape)
        rows.append((g.name, g.dtype, shape, _rounded(g.parameters), in_units(g.bytes)))
    return rows


def _memory_rows(memory: tuple[Memory, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("dtype", "weights", "KV cache", "together")]
    return rows + [(m.dtype, in_units(m.weights), in_units(m.kv_cache), in_units(m.total)) for m in memory]


def _table(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{cell:<{w}}" if n in left else f"{cell:>{w}}" for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
