"""Hugging Face model folders: ``config.json``, and ``model.safetensors`` or shards with an index."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any

from llama_core.errors import WeightsError
from llama_core.weights.config_file import read_config
from llama_core.weights.expected import HARMLESS, TIED_HEAD, check_size, match_tensors
from llama_core.weights.folder import check_plain_name, model_folder, read_small_file
from llama_core.weights.safetensors_file import TensorEntry, read_header
from llama_core.weights.stored import StoredModel
from llama_core.weights.strict_json import describe_value, parse_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
MAX_INDEX_BYTES = 16_000_000


def open_huggingface(folder: str | PathLike[str]) -> StoredModel:
    """Read and check everything in the folder but the weights themselves.

    Names, shapes, dtypes and file sizes are exactly those that ``config.json`` asks for when this returns.

    Raises:
        ConfigError, WeightsError: listing every difference, with file, key, expected, actual and a hint.
    """
    folder = model_folder(folder)
    config = read_config(folder)
    found = read_tensor_table(folder)
    files = tuple(dict.fromkeys(entry.path.name for entry in found.values()))
    ignored = tuple(name for name in found if HARMLESS.fullmatch(name))
    wanted = {name: entry for name, entry in found.items() if name not in ignored}
    check_size(config, wanted, folder)
    head = wanted.pop(TIED_HEAD, None) if config.tie_word_embeddings else None
    if head is not None:
        _check_tied_head(head, wanted)
    parameters = match_tensors(config, wanted, folder)
    return StoredModel(folder, "huggingface", config, files, parameters, head, ignored)


def read_tensor_table(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of the folder's weight files under its name, from the headers alone.

    Raises:
        WeightsError: when there are no weight files or two sets of them, when a file is not whole, when the index
            names a file outside the folder, or when it and the files disagree about which tensor lies where.
    """
    names = {path.name for path in folder.iterdir()}
    if INDEX in names:
        index = _read_index(folder)
        if SINGLE in names and SINGLE not in index.values():
            raise WeightsError(
                f"the folder holds two sets of weights: {SINGLE}, and shards with {INDEX}",
                file=folder / INDEX,
                key="weight_map",
                expected=f"either {SINGLE} or an index",
                actual="both",
                hint="delete the older of the two",
            )
        return _read_shards(folder, index)
    if SINGLE in names:
        return read_header(folder, SINGLE)
    raise _no_weights(folder, names)


def _read_index(folder: Path) -> dict[str, str]:
    path = folder / INDEX
    content = parse_object(read_small_file(folder, INDEX, MAX_INDEX_BYTES, WeightsError), path, WeightsError)
    weight_map: Any = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(
            "the index has no weight_map",
            file=path,
            key="weight_map",
            expected="an object: tensor name -> file name",
            actual=describe_value(weight_map) if "weight_map" in content else "nothing",
        )
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise WeightsError(
                f"the index gives {describe_value(file)} for {name[:120]!r}",
                file=path,
                key=name[:120],
                expected="a file name",
                actual=describe_value(file),
            )
        check_plain_name(file, path, name[:120])
    return weight_map


def _read_shards(folder: Path, index: dict[str, str]) -> dict[str, TensorEntry]:
    """The headers of all shards, held against the index: each tensor lies once, and where the index says."""
    shards = sorted(set(index.values()))
    absent = [shard for shard in shards if not (folder / shard).exists()]
    if absent:
        raise WeightsError(
            f"{len(absent)} of the {len(shards)} weight files that the index names are not there: "
            + ", ".join(absent[:20]),
            file=folder / absent[0],
            key="weight_map",
            expected="every shard",
            actual=f"{len(shards) - len(absent)} of {len(shards)}",
            hint="the download is incomplete",
        )
    found: dict[str, TensorEntry] = {}
    for shard in shards:
        for name, entry in read_header(folder, shard).items():
            if name in found:
                raise WeightsError(
                    f"{name!r} is in two shards, {found[name].path.name} and {shard}",
                    file=entry.path,
                    key=name,
                    expected=f"only in {index.get(name, 'one file')}",
                    actual=f"in {found[name].path.name} and in {shard}",
                    hint="the shards are of different downloads, or were written by hand",
                )
            if index.get(name) != shard:
                raise WeightsError(
                    f"{name!r} is in {shard}, but the index "
                    + (f"says {index[name]}" if name in index else "does not name it"),
                    file=entry.path,
                    key=name,
                    expected=index.get(name, "a tensor that the index names"),
                    actual=shard,
                    hint="the index and the shards are of different downloads",
                )
            found[name] = entry
    for name, shard in index.items():
        if name not in found:
            raise WeightsError(
                f"the index says that {name[:120]!r} is in {shard}, but it is not",
                file=folder / shard,
                key=name[:120],
                expected=f"in {shard}",
                actual="in no shard",
                hint="the index and the shards are of different downloads",
            )
    return found


def _check_tied_head(head: TensorEntry, others: dict[str, TensorEntry]) -> None:
    embedding = others.get("model.embed_tokens.weight")
    if embedding and (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
        raise WeightsError(
            "tie_word_embeddings is true, but the file has a head of its own, of another shape or dtype",
            file=head.path,
            key=TIED_HEAD,
            expected=f"{embedding.dtype} {list(embedding.shape)}, as {embedding.name}",
            actual=f"{head.dtype} {list(head.shape)}",
            hint="set tie_word_embeddings to false in config.json if the head is the model's own",
        )


def _no_weights(folder: Path, names: set[str]) -> WeightsError:
    """Say what the folder holds in place of ``model.safetensors``."""

    def some(suffix: str) -> list[str]:
        return sorted(name for name in names if name.endswith(suffix))

    found = some(".safetensors")
    if any(name.startswith("adapter_") for name in names):
        actual = "an adapter's files (adapter_config.json, adapter_model.safetensors)"
        hint = "an adapter is no model: merge it into its base model first"
    elif any(SHARD.fullmatch(name) for name in found):
        actual, hint = f"{len(found)} shards without {INDEX}", f"download {INDEX} as well"
    elif "params.json" in names and some(".pth"):
        actual = "a Meta folder (params.json, consolidated.*.pth)"
        hint = "config.json says Hugging Face: take it away, if params.json describes these weights"
    elif some(".gguf"):
        actual, hint = f"GGUF: {some('.gguf')[0]}", "get the Hugging Face form of the model"
    elif some(".bin") or some(".pth") or some(".pt"):
        actual = f"pickled weights: {(some('.bin') + some('.pth') + some('.pt'))[0]}"
        hint = "convert them to safetensors; pickles can run code and are not read here"
    elif found:
        actual, hint = ", ".join(found[:5]), f"if that is the whole model, rename it to {SINGLE}"
    else:
        actual, hint = f"{len(names)} other files", "the download is incomplete"
    return WeightsError(
        f"the folder has no {SINGLE} and no {INDEX}",
        file=folder,
        key=SINGLE,
        expected=f"{SINGLE}, or shards with {INDEX}",
        actual=actual,
        hint=hint,
    )
