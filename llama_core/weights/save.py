"""Write a model as a Hugging Face folder: whole or not at all, and nothing of anybody else's is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from llama_core.config import LlamaConfig
from llama_core.dtypes import dtype_name
from llama_core.errors import WeightsError
from llama_core.weights.config_file import CONFIG, GENERATION_CONFIG, write_config
from llama_core.weights.expected import expected_tensors
from llama_core.weights.folder import named_path
from llama_core.weights.huggingface import INDEX, SHARD, SINGLE
from llama_core.weights.replace_folder import staged_folder
from llama_core.weights.safetensors_file import DTYPE_NAMES
from llama_core.weights.write_safetensors import write_safetensors

SHARD_BYTES = 5_000_000_000


def save_model(model: nn.Module, folder: str | PathLike[str], max_shard_bytes: int = SHARD_BYTES) -> None:
    """Write ``config.json``, ``generation_config.json`` and the weights, which transformers 4 and 5 read too.

    The new folder is made beside the old one and takes its place in one step, so that an error, a full disk or a kill
    leaves the old folder as it was. Files in it that are not the model's configuration or weights (tokenizer, notes,
    folders) are carried over. A tied head is written once, as the embedding.

    Args:
        model: a ``Llama`` with weights.
        folder: where to; made if it is not there.
        max_shard_bytes: weights beyond this go to several files with an index; a larger tensor gets a file of its own.

    Raises:
        WeightsError: when the place is a file, the working directory, or a folder that holds folders but no
            config.json (it is no model folder); when parameters have no values; when it cannot be written.
        ConfigError: when the rotary layout is not that of Hugging Face files.
    """
    if max_shard_bytes <= 0:
        raise WeightsError(
            "a file cannot be that small", key="max_shard_bytes", expected="bytes, > 0", actual=max_shard_bytes
        )
    place = named_path(folder, "folder", WeightsError).resolve()
    _check_place(place)
    tensors = _file_tensors(model)
    first = next(iter(tensors.values()))
    config = model.config.replace(dtype=dtype_name(first.dtype))
    total = sum(values.nbytes for values in tensors.values())
    with place_whole(place, is_ours, total) as staged:
        write_huggingface(config, tensors, staged, max_shard_bytes)


def write_huggingface(
    config: LlamaConfig, tensors: dict[str, Tensor], folder: Path, max_shard_bytes: int = SHARD_BYTES
) -> None:
    """Write configuration and tensors, under the names of such files, into an empty folder. OSError as it comes."""
    total = sum(values.nbytes for values in tensors.values())
    shards = split(tensors, max_shard_bytes)
    with tqdm(total=total, desc="writing", unit="B", unit_scale=True, delay=2, leave=False) as progress:
        write_config(config, folder)
        for name, shard in shards.items():
            write_safetensors(folder / name, shard, progress.update)
    if len(shards) > 1:
        _write_index(folder / INDEX, shards, total)
    for name in (CONFIG, GENERATION_CONFIG, INDEX):
        sync_file(folder / name)


@contextmanager
def place_whole(place: Path, is_ours: Callable[[str], bool], total: int) -> Iterator[Path]:
    """A folder to write into that takes the place of ``place`` as a whole; see `staged_folder`.

    Raises:
        WeightsError: when the disk or its rights stand against it. What was there before is unchanged.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(place, is_ours) as staged:
            yield staged
    except OSError as e:
        raise WeightsError(
            f"the model could not be saved: {e.strerror or e}",
            file=place,
            key="folder",
            expected=f"room for {total:,} bytes and the right to write",
            actual=e.strerror or str(e),
            hint="what was in the folder before is unchanged",
        ) from e


def is_ours(name: str) -> bool:
    """Whether a file of this name is a model's configuration or weights, which a save replaces."""
    return name in (CONFIG, GENERATION_CONFIG, SINGLE, INDEX) or bool(SHARD.fullmatch(name))


def split(tensors: dict[str, Tensor], max_shard_bytes: int) -> dict[str, dict[str, Tensor]]:
    """File name -> its tensors, in order, no file above ``max_shard_bytes`` unless a single tensor is."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, values in tensors.items():
        if groups[-1] and size + values.nbytes > max_shard_bytes:
            groups.append({})
            size = 0
        groups[-1][name] = values
        size += values.nbytes
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {f"model-{n:05d}-of-{len(groups):05d}.safetensors": group for n, group in enumerate(groups, 1)}


def _file_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters under the names that Hugging Face files give them."""
    config: LlamaConfig = model.config
    state = model.state_dict()
    tensors = {}
    for name, file, shape in expected_tensors(config):
        values = state[name]
        if values.is_meta:
            raise WeightsError(
                f"{name} has no values yet: the model was made from a configuration alone",
                key=name,
                expected="weights",
                actual="a parameter on the meta device",
                hint="load weights first, or make some with Llama.random(config)",
            )
        if tuple(values.shape) != shape or values.dtype not in DTYPE_NAMES:
            raise WeightsError(
                f"{name} is not what model.config says",
                key=name,
                expected=f"{list(shape)}, {' | '.join(map(str, DTYPE_NAMES))}",
                actual=f"{list(values.shape)}, {values.dtype}",
            )
        tensors[file] = values
    return tensors


def _check_place(place: Path) -> None:
    """Refuse to take the place of anything that is no model folder."""

    def refuse(message: str, actual: str, hint: str) -> WeightsError:
        expected = "a new or empty folder, or one with a config.json"
        return WeightsError(message, file=place, key="folder", expected=expected, actual=actual, hint=hint)

    if not place.exists():
        return
    if not place.is_dir():
        raise refuse(f"{place.name} is a file", "a file", "name a folder")
    if Path.cwd().is_relative_to(place) or os.path.ismount(place):
        raise refuse(
            "the working directory, what it lies in, and mount points cannot be replaced",
            "the working directory or a mount point",
            "name a folder inside it",
        )
    entries = list(os.scandir(place))
    if any(entry.is_dir(follow_symlinks=False) for entry in entries) and not (place / CONFIG).exists():
        raise refuse(
            "the folder holds other folders and no config.json, so it is no model folder",
            f"{len(entries)} entries, no config.json",
            "name a new folder inside it",
        )


def _write_index(path: Path, shards: dict[str, dict[str, Tensor]], total: int) -> None:
    weight_map = {name: file for file, shard in shards.items() for name in shard}
    parameters = sum(values.numel() for shard in shards.values() for values in shard.values())
    content = {"metadata": {"total_parameters": parameters, "total_size": total}, "weight_map": weight_map}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sync_file(path: Path) -> None:
    """Have the disk keep a file, if it is there."""
    if path.exists():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
