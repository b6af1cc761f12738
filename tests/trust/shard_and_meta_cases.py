"""Folders with several weight files, and Meta's folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import meta_folders
import torch
from case import ANY, Case, Refusal
from folders import INDEX_FILE, equal_to, load, no_regular_file
from meta_folders import PARAMS, as_state_dict, meta_weights, write_meta
from model_folders import read_index, weights, write_index, write_shards
from safetensors.torch import save_file

INDEX = "model.safetensors.index.json"
SECOND_FILE = "model/model-00002-of-00002.safetensors"
ARCHIVE_FILE, PARAMS_FILE = "model/consolidated.00.pth", "model/params.json"
Q0 = "model.layers.0.self_attn.q_proj.weight"


def _in(write: Callable[[Path], Any], make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        write(place / "model")
        make(place / "model")

    return apply


# Shards


def shard_cases() -> Iterator[Case]:
    from bad_folders import BAD_SHARDS, OUTSIDE, SECOND

    def bad(name: str, make: Callable[[Path], Any], *refusal: Any) -> Case:
        return Case("shards", name, _in(write_shards, make), load, Refusal("WeightsError", *refusal))

    for name in [*OUTSIDE, "n" * 300, "\ud800.safetensors", "\u202egnp.safetensors", "~/m.safetensors"]:
        make = lambda f, n=name: write_index(f, read_index(f) | {Q0: n})  # noqa: E731
        yield bad(f"an index that names {name[:40]!r}", make, INDEX_FILE, Q0, "not a plain name")
    for name, (spoil, file, key, words) in BAD_SHARDS.items():
        key = None if name == "index no JSON" else key
        yield bad(name, spoil, f"model/{file}", key, words)
    documents = {
        "an index nested deep": ('{"weight_map":' * 100_000, None, "nested too deep"),
        "an index of five million brackets": ('{"weight_map": [' + "[]," * 5_000_000 + "[]]}", None, "values"),
        "an index of 17 megabytes": ("{" + " " * 17_000_000 + "}", None, "at most"),
        "an index that is a list": ("[]", None, "a list"),
        "an index with NaN": ('{"metadata": {"total_size": NaN}}', "total_size", "NaN"),
        "an index that is empty": ("", None, "not JSON"),
        "an index that names itself": (_index_of(INDEX), None, INDEX),
        "an index that names config.json": (_index_of("config.json"), None, "config.json"),
        "an index that names a folder": (_index_of("sub"), None, "sub"),
    }
    for name, (text, key, words) in documents.items():

        def make(folder: Path, text: str = text) -> None:
            (folder / "sub").mkdir()
            (folder / INDEX).write_text(text)

        named = words if name.startswith("an index that names") else INDEX
        yield bad(name, make, f"model/{named}", key, words)
    for name, make in no_regular_file(INDEX).items():
        yield bad(f"an index that is {name}", make, INDEX_FILE)
    for name, make in no_regular_file(SECOND).items():
        key = "weight_map" if name in ("a link to nothing", "a link to itself") else None
        yield bad(f"a shard that is {name}", make, SECOND_FILE, key)
    yield bad(
        "a tensor in two shards, of which the index names one",
        lambda f: save_file({n: t for n, t in weights().items() if ".layers.0." not in n or n == Q0}, f / SECOND),
        *(SECOND_FILE, Q0, "is in two shards"),
    )
    yield bad("NaN in a shard", _nan_in_second, SECOND_FILE, "model.norm.weight", "nan")


def _index_of(file: str) -> str:
    return json.dumps({"weight_map": dict.fromkeys(weights(), file)})


def _nan_in_second(folder: Path) -> None:
    tensors = {n: t for n, t in weights().items() if ".layers.0." not in n}
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model-00002-of-00002.safetensors")


# Meta folders


def meta_cases() -> Iterator[Case]:
    from bad_archives import BAD_ARCHIVES
    from bad_meta import BAD_PARAMS, BAD_TENSORS

    concern = "Meta folders"

    def bad(name: str, make: Callable[[Path], Any], *refusal: Any) -> Case:
        return Case(concern, name, _in(write_meta, make), load, Refusal(*refusal))

    for name, (spoil, _) in BAD_ARCHIVES.items():
        make = lambda f, s=spoil: s(f / "consolidated.00.pth")  # noqa: E731
        yield bad(f"an archive: {name}", make, "WeightsError", ARCHIVE_FILE, ARCHIVE_KEYS.get(name))
    for name, (changes, key) in BAD_PARAMS.items():
        make = lambda f, c=changes: _write_params(f, c)  # noqa: E731
        yield bad(f"params.json: {name}", make, "ConfigError", PARAMS_FILE, key)
    more = {
        "n_layers of a million": ({"n_layers": 10**6}, "WeightsError", "num_hidden_layers"),
        "dim of a million": ({"dim": 2**20, "n_heads": 2**17}, "WeightsError", "hidden_size"),
        "norm_eps of 1e300": ({"norm_eps": 1e300}, "ConfigError", "rms_norm_eps"),
        "rope_theta of 1e-300": ({"rope_theta": 1e-300}, "ConfigError", "rope_theta"),
        "multiple_of zero": ({"multiple_of": 0}, "ConfigError", "multiple_of"),
        "multiple_of 2^31 - 1": ({"multiple_of": 2**31 - 1}, "WeightsError", "hidden_size"),
        "ffn_dim_multiplier negative": ({"ffn_dim_multiplier": -1.3}, "ConfigError", "ffn_dim_multiplier"),
        "vocab_size -2": ({"vocab_size": -2}, "ConfigError", "vocab_size"),
        "vocab_size true": ({"vocab_size": True}, "ConfigError", "vocab_size"),
        "use_scaled_rope 1": ({"use_scaled_rope": 1}, "ConfigError", "use_scaled_rope"),
    }
    for name, (changes, error, key) in more.items():
        make = lambda f, c=changes: _write_params(f, c)  # noqa: E731
        yield bad(f"params.json: {name}", make, error, PARAMS_FILE, key)
    texts = {
        "empty": ("", None),
        "a list": ("[]", None),
        "nested deep": ("[" * 200_000, None),
        "NaN": (json.dumps(PARAMS).replace("1e-05", "NaN"), "norm_eps"),
        "a key twice": (json.dumps(PARAMS)[:-1] + ', "dim": 32}', "dim"),
    }
    for name, (text, key) in texts.items():
        make = lambda f, t=text: (f / "params.json").write_text(t)  # noqa: E731
        yield bad(f"params.json: {name}", make, "ConfigError", PARAMS_FILE, key)
    for name, (edit, key, words) in BAD_TENSORS.items():

        def make(folder: Path, edit: Callable = edit) -> None:
            tensors = meta_weights()
            edit(tensors)
            write_meta(folder, tensors)

        file = "model" if name in ("missing", "no head") else ARCHIVE_FILE
        yield bad(f"tensors: {name}", make, "WeightsError", file, key, words)
    for name, make in no_regular_file("consolidated.00.pth").items():
        yield bad(f"an archive that is {name}", make, "WeightsError", ARCHIVE_FILE)
    for name, make in no_regular_file("params.json").items():
        if "nothing" in name or "itself" in name:
            continue  # then it is no Meta folder
        yield bad(f"params.json that is {name}", make, "ConfigError", PARAMS_FILE)
    yield from _several_files(concern)


#: what is wrong with an archive -> the key that the error names; the others have none
ARCHIVE_KEYS = {
    "compressed": "consolidated.00/data.pkl",
    "a zip bomb": "consolidated.00/data.pkl",
    "a table in a table": "model",
    "a name that is a number": "3",
} | dict.fromkeys(
    (
        *("another zip", "two roots", "a storage missing", "a storage cut short", "a storage too long"),
        *("a pickle of a megabyte", "an empty pickle", "a pickle cut off", "no opcodes", "a list"),
        *("os.system", "builtins.eval", "torch.load", "an object of its own"),
        *("nested 150,000 deep", "dictionaries nested 20,000 deep", "nested afterwards"),
        *("stride 0", "beyond its storage", "an offset beyond", "a negative size", "a negative stride"),
        "more values than stored",
    ),
    "data.pkl",
)


def _write_params(folder: Path, changes: dict[str, Any]) -> None:
    params = {k: v for k, v in (PARAMS | changes).items() if v is not ...}
    (folder / "params.json").write_text(json.dumps(params))


def _several_files(concern: str) -> Iterator[Case]:
    second = "consolidated.01.pth"

    def edited(edit: Callable[[dict], Any]) -> Callable[[Path], None]:
        def apply(folder: Path) -> None:
            shard = torch.load(folder / second, weights_only=True)
            edit(shard)
            torch.save(shard, folder / second)

        return apply

    spoils = {
        "the second of three missing": (lambda f: (f / second).unlink(), second, second),
        "the first missing": (lambda f: (f / "consolidated.00.pth").unlink(), "consolidated.00.pth", ANY),
        "a tensor that one lacks": (edited(lambda t: t.pop("norm.weight")), second, "norm.weight"),
        "a tensor of another shape": (edited(lambda t: t.update({"norm.weight": torch.ones(3)})), second, ANY),
        "a tensor of another dtype": (edited(lambda t: t.update({"norm.weight": torch.ones(32).half()})), second, ANY),
        "norms that differ": (edited(lambda t: t["norm.weight"].add_(1)), second, "norm.weight"),
        "one cut off": (lambda f: os.truncate(f / second, 5000), second, None),
        "NaN in the second": (
            edited(lambda t: t["output.weight"][0].fill_(torch.nan)),
            "consolidated.00.pth",
            "output.weight",
        ),
    }
    write = lambda folder: meta_folders.write_shards(folder, 4, 0)  # noqa: E731
    for name, (make, file, key) in spoils.items():
        refusal = Refusal("WeightsError", f"model/{file}", key)
        yield Case(concern, f"several files: {name}", _in(write, make), load, refusal)


# Good ones


def good_shard_and_meta_cases() -> Iterator[Case]:
    same, meta_same = equal_to(weights), equal_to(lambda: as_state_dict(meta_weights()))
    yield Case("model folders", "two shards", _in(write_shards, lambda f: None), same)
    one = _in(lambda f: write_shards(f, lambda name: 2), lambda f: None)
    yield Case("model folders", "one shard with an index", one, same)
    single = _in(lambda f: write_shards(f), _single_with_index)
    yield Case("model folders", "model.safetensors with an index", single, same)
    spaced = lambda f: (f / INDEX).write_text(json.dumps(json.loads((f / INDEX).read_text()), indent=8))  # noqa: E731
    yield Case("model folders", "an index with spaces", _in(write_shards, spaced), same)
    concern = "good Meta folders"
    makers: dict[str, Callable[[Path], Any]] = {
        "as written": write_meta,
        "vocab_size -1": lambda f: write_meta(f, params=PARAMS | {"vocab_size": -1}),
        "n_kv_heads absent": lambda f: write_meta(
            f, _all_key_heads(), {k: PARAMS[k] for k in PARAMS if k != "n_kv_heads"}
        ),
        "ffn_dim_multiplier": lambda f: write_meta(f, params=PARAMS | {"ffn_dim_multiplier": 1.1, "multiple_of": 32}),
        "rope.freqs stored": lambda f: write_meta(f, meta_weights() | {"rope.freqs": torch.ones(4)}),
        "two files": lambda f: meta_folders.write_shards(f, 2, 1),
        "four files, vocab_size -1": lambda f: meta_folders.write_shards(f, 4, 0, PARAMS | {"vocab_size": -1}),
        "an ordered dictionary of parameters": lambda f: write_meta(f, _module().state_dict()),
        "tensors in columns": lambda f: write_meta(f, {n: x.t().contiguous().t() for n, x in meta_weights().items()}),
        "one storage for all": lambda f: write_meta(f, _one_storage()),
        "an older protocol of pickle": lambda f: (write_meta(f), _save_with_protocol(f, 2)),
    }
    for name, write in makers.items():
        use = load if name in ("n_kv_heads absent",) else meta_same
        yield Case(concern, name, lambda place, w=write: w(place / "model"), use)


def _single_with_index(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    save_file(weights(), folder / "model.safetensors")
    write_index(folder, dict.fromkeys(weights(), "model.safetensors"))


def _all_key_heads() -> dict[str, torch.Tensor]:
    tensors = meta_weights()
    for name in tensors:
        if name.endswith(("wk.weight", "wv.weight")):
            tensors[name] = torch.ones(32, 32)
    return tensors


def _module() -> torch.nn.Module:
    """Modules whose state_dict has Meta's names."""
    root = torch.nn.Module()
    for name, values in meta_weights().items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(last, torch.nn.Parameter(values))
    return root


def _one_storage() -> dict[str, torch.Tensor]:
    tensors = meta_weights()
    whole = torch.cat([values.reshape(-1) for values in tensors.values()])
    parts = whole.split([values.numel() for values in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def _save_with_protocol(folder: Path, protocol: int) -> None:
    torch.save(meta_weights(), folder / "consolidated.00.pth", pickle_protocol=protocol)
