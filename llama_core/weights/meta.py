"""Meta's model folders: ``params.json`` and ``consolidated.00.pth``, or one file for each machine it was trained on.

Names are Meta's (wq, w1, tok_embeddings), and the rows of q and k are ordered for rotary pairs (2i, 2i + 1). Here they
get the names and the order of Hugging Face files as they are read. Where there are several files, each holds a part
of every matrix: wq wk wv w1 w3 output are cut by rows, wo and w2 by columns, tok_embeddings by columns up to Llama 2
and by rows since Llama 3; norms are the same in all.
Source: the layers of fairscale that Meta's ``llama/model.py`` uses (ColumnParallelLinear, RowParallelLinear,
ParallelEmbedding, VocabParallelEmbedding).
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llama_core.config import LlamaConfig
from llama_core.dtypes import dtype_name
from llama_core.errors import WeightsError
from llama_core.layers.rope import layout_permutation
from llama_core.names import PARAMETERS
from llama_core.weights.archive_directory import read_directory
from llama_core.weights.expected import HARMLESS, check_size, match_tensors
from llama_core.weights.meta_params import PARAMS, read_params
from llama_core.weights.pickle_scan import check_pickle
from llama_core.weights.safetensors_file import DTYPE_NAMES
from llama_core.weights.stored import StoredModel

SHARD = re.compile(r"consolidated\.(\d{2})\.pth")
EMBEDDING = "tok_embeddings.weight"

#: The end of a name -> the axis that it is cut along; norms are not cut. The embedding is told by its shape.
_AXIS = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}


@dataclass(frozen=True, eq=False)
class JoinedTensor:
    """One parameter of a Meta folder, put together from its parts when it is read.

    Attributes:
        name: Meta's name. path: the first file that it is in.
        dtype: as safetensors calls it, such as ``BF16``. shape: of the whole, rows first.
        parts: what each file has of it, mapped. axis: the axis to join them along; None for a copy in each file.
        head_dim: D for q and k, whose rows change their order; else None.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]
    axis: int | None
    head_dim: int | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.parts[0].dtype.itemsize

    def read(self, copy: bool = False) -> Tensor:
        """The values, rows of q and k in the half layout; views of the file where nothing had to be moved.

        Raises:
            WeightsError: when files that must hold copies of one tensor differ.
        """
        if self.axis is None:
            for n, part in enumerate(self.parts[1:], 1):
                if not torch.equal(part.view(torch.uint8), self.parts[0].view(torch.uint8)):
                    raise WeightsError(
                        f"{self.name} differs between the first file and file {n}",
                        file=self.path.with_name(f"consolidated.{n:02d}.pth"),
                        key=self.name,
                        expected=f"the values of {self.path.name}",
                        actual="other values",
                        hint="the files are of different models",
                    )
        whole = self.parts[0] if self.axis is None or len(self.parts) == 1 else torch.cat(self.parts, self.axis)
        if self.head_dim:
            whole = reorder_heads(whole, self.head_dim, "interleaved", "half")
        return whole.clone() if copy and whole is self.parts[0] else whole.contiguous()


def reorder_heads(rows: Tensor, head_dim: int, source: str, target: str) -> Tensor:
    """The rows of q_proj or k_proj [N·D, …] with the D rows of each head brought from one rotary layout to another."""
    order = layout_permutation(head_dim, source, target)
    return rows.unflatten(0, (-1, head_dim))[:, order].flatten(0, 1)


def is_meta(folder: Path) -> bool:
    """Whether this is Meta's form of a folder. One that holds both forms is read in the other."""
    return (folder / PARAMS).exists() and not (folder / "config.json").exists()


def open_meta(folder: Path) -> StoredModel:
    """Read and check everything but the weights' values: names, shapes, dtypes, what the archives hold.

    Raises:
        ConfigError, WeightsError: with file, key, expected, actual and a hint.
    """
    params = read_params(folder)
    shards = _shard_names(folder)
    tables = [_read_table(folder, shard) for shard in shards]
    found = _join(tables, [folder / shard for shard in shards], params.fields["hidden_size"])
    ignored = tuple(name for name in found if HARMLESS.fullmatch(name))
    wanted = {name: entry for name, entry in found.items() if name not in ignored}
    vocab_size = params.vocab_size or _rows_of_embedding(wanted, folder)
    dtypes = {part.dtype for entry in wanted.values() for part in entry.parts}
    dtype = next((d for d in DTYPE_NAMES if d in dtypes), torch.float32)  # of several, the widest
    config = params.config(vocab_size, dtype_name(dtype))
    check_size(config, wanted, folder, PARAMS)
    parameters = match_tensors(config, wanted, folder, "meta")
    parameters = {name: _with_heads(name, entry, config) for name, entry in parameters.items()}
    return StoredModel(folder, "meta", config, tuple(shards), parameters, None, ignored)


def meta_names(config: LlamaConfig) -> Iterator[tuple[str, str]]:
    """(name in ``state_dict``, Meta's name) of every parameter, with a head of its own whether tied or not."""
    for parameter in PARAMETERS:
        if parameter.optional in ("", "untied"):
            layers = range(config.num_hidden_layers) if "{n}" in parameter.name else (0,)
            for n in layers:
                yield parameter.name.replace("{n}", str(n)), parameter.meta.replace("{n}", str(n))


def is_rotated(name: str) -> bool:
    """Whether the rows of this parameter are ordered by rotary pairs."""
    return name.endswith(("q_proj.weight", "k_proj.weight"))


def _with_heads(name: str, entry: JoinedTensor, config: LlamaConfig) -> JoinedTensor:
    if not is_rotated(name):
        return entry
    return JoinedTensor(entry.name, entry.path, entry.dtype, entry.shape, entry.parts, entry.axis, config.head_dim)


def _shard_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if SHARD.fullmatch(path.name))
    expected = [f"consolidated.{n:02d}.pth" for n in range(len(names))]
    if not names:
        others = sorted(
            path.name for path in folder.iterdir() if path.suffix in (".pth", ".pt", ".bin", ".safetensors")
        )
        raise WeightsError(
            "the folder has params.json, but no consolidated.00.pth",
            file=folder / "consolidated.00.pth",
            key="consolidated.00.pth",
            expected="consolidated.00.pth, and 01, 02 … where there are several",
            actual=", ".join(others[:5]) or "no weights",
            hint="the download is incomplete",
        )
    if names != expected:
        absent = next(name for name in expected if name not in names)
        raise WeightsError(
            f"{absent} is missing, but {names[-1]} is there",
            file=folder / absent,
            key=absent,
            expected=", ".join(expected[:20]),
            actual=", ".join(names[:20]),
            hint="the download is incomplete",
        )
    return names


def _read_table(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file, mapped and not read."""
    archive = read_directory(folder, name)
    check_pickle(archive)
    try:
        table = torch.load(archive.path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError, KeyError, TypeError, OSError, AssertionError) as e:
        raise WeightsError(
            f"torch cannot read {name}: {str(e).splitlines()[0][:200]}",
            file=archive.path,
            expected="a table of tensors",
            actual=type(e).__name__,
            hint="download it again, or save the weights again with torch.save",
        ) from e
    for key, value in table.items() if isinstance(table, dict) else [("", table)]:
        if not isinstance(key, str) or not isinstance(value, Tensor):
            what = type(value).__name__ if isinstance(key, str) else f"the key {key!r}"[:80]
            raise WeightsError(
                f"{name} holds something else than tensors under their names",
                file=archive.path,
                key=str(key)[:120] or None,
                expected="a table: name -> tensor",
                actual=what,
                hint="if the weights are a part of it, such as ['model'], save that part alone",
            )
    return table


def _join(tables: list[dict[str, Tensor]], paths: list[Path], dim: int) -> dict[str, JoinedTensor]:
    """Every name with its parts from all files; their shapes must go together."""
    found = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        absent = [path for path, table in zip(paths, tables, strict=True) if name not in table]
        if absent:
            raise WeightsError(
                f"{name[:120]!r} is not in {absent[0].name}",
                file=absent[0],
                key=name[:120],
                expected="a part of every tensor in every file",
                actual=f"in {len(paths) - len(absent)} of {len(paths)} files",
                hint="the files are of different models",
            )
        parts = tuple(table[name] for table in tables)
        first = parts[0]
        other = next(
            (n for n, part in enumerate(parts) if (part.shape, part.dtype) != (first.shape, first.dtype)), None
        )
        if other is not None:
            raise WeightsError(
                f"{name[:120]!r} has another shape or dtype in {paths[other].name}",
                file=paths[other],
                key=name[:120],
                expected=f"{list(first.shape)}, {dtype_name(first.dtype)}, as in {paths[0].name}",
                actual=f"{list(parts[other].shape)}, {dtype_name(parts[other].dtype)}",
                hint="the files are of different models",
            )
        axis = _cut_axis(name, first, dim)
        shape = tuple(size * (len(parts) if n == axis else 1) for n, size in enumerate(first.shape))
        dtype = DTYPE_NAMES.get(first.dtype, dtype_name(first.dtype))
        found[name] = JoinedTensor(name, paths[0], dtype, shape, parts, axis)
    return found


def _cut_axis(name: str, part: Tensor, dim: int) -> int | None:
    if part.ndim != 2:
        return None
    if name == EMBEDDING:
        return 0 if part.shape[1] == dim else 1
    return _AXIS.get(name.removesuffix(".weight").rpartition(".")[2])


def _rows_of_embedding(found: dict[str, JoinedTensor], folder: Path) -> int:
    entry = found.get(EMBEDDING)
    if entry is None or len(entry.shape) != 2 or 0 in entry.shape:
        raise WeightsError(
            f"vocab_size is -1, and {EMBEDDING} does not say it either",
            file=folder / PARAMS,
            key="vocab_size",
            expected=f"a number, or {EMBEDDING} of shape [V, E]",
            actual="no such tensor" if entry is None else f"a tensor of shape {list(entry.shape)}",
        )
    return entry.shape[0]
