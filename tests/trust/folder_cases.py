"""Hugging Face folders: configurations, safetensors files, shards, weights."""

from __future__ import annotations

import json
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from case import ANY, Case, Refusal
from model_folders import CONFIG, edit_config, edit_header, edit_tensors, weights, write_folder, write_raw

from llama_core.errors import LlamaCoreError

CONFIG_FILE, GENERATION_FILE = "model/config.json", "model/generation_config.json"
WEIGHTS_FILE, INDEX_FILE = "model/model.safetensors", "model/model.safetensors.index.json"


def load(place: Path, **options: Any) -> Any:
    """Load ``place/model``. What is refused must not be converted either, and must be described or refused."""
    from llama_core.weights import convert, describe, load_model

    folder = place / "model"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load_model(folder, **options)
    except LlamaCoreError:
        for target, use in (("hf", convert), ("meta", convert), ("", describe)):
            try:
                if target:
                    use(folder, place / "converted", to=target)
                    assert options, "convert took what load refuses"
                else:
                    use(folder)
            except LlamaCoreError:
                assert not target or not (place / "converted").exists(), "a part of a conversion was left"
        raise


def equal_to(expected: Callable[[], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """A use that demands these values, under the names that Hugging Face files have."""

    def use(place: Path) -> None:
        state = load(place).state_dict()
        for name, values in expected().items():
            assert torch.equal(state[name.removeprefix("model.")], values), name

    return use


def in_model(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """A good folder ``place/model``, which ``make`` then changes."""

    def apply(place: Path) -> None:
        write_folder(place / "model")
        make(place / "model")

    return apply


def no_regular_file(name: str) -> dict[str, Callable[[Path], Any]]:
    """What may take the place of a file in ``place/model`` that is none, or lies elsewhere."""

    def instead(make: Callable[[Path, Path], Any]) -> Callable[[Path], None]:
        def apply(folder: Path) -> None:
            path, elsewhere = folder / name, folder.parent / "elsewhere"
            if path.exists():
                path.rename(elsewhere)
            else:
                elsewhere.write_text("{}")
            make(path, elsewhere)

        return apply

    return {
        "a pipe": instead(lambda path, _: os.mkfifo(path)),
        "a folder": instead(lambda path, _: path.mkdir()),
        "a link to nothing": instead(lambda path, _: path.symlink_to("gone")),
        "a link to itself": instead(lambda path, _: path.symlink_to(path.name)),
        "a link out of the folder": instead(lambda path, elsewhere: path.symlink_to(elsewhere)),
        "a link to a device": instead(lambda path, _: path.symlink_to("/dev/zero")),
    }


def bad(concern: str, name: str, make: Callable[[Path], Any], *refusal: Any, use: Any = load, **facts: Any) -> Case:
    """A good folder with something wrong in it."""
    return Case(concern, name, in_model(make), use, Refusal(*refusal, **facts))


# Configurations

LARGER = {"num_hidden_layers": 10**6, "hidden_size": 2**20, "vocab_size": 2**31 - 1, "intermediate_size": 2**31 - 1}
#: text of config.json that is wrong in one key -> the key
KEYED_DOCUMENTS = {
    "duplicate key": "vocab_size",
    "duplicate inner key": "a",
    "float overflow": "rope_theta",
    "NaN": "rms_norm_eps",
    "Infinity": "rope_theta",
    "minus infinity": "rope_theta",
}
ENDLESS = {  # numbers that float32 cannot hold, or whose tables it cannot
    "rms_norm_eps": [1e300, 1e-60],
    "rope_theta": [1e-300, 1e308],
}
GENERATION = {
    "an id beyond the vocabulary": ('{"eos_token_id": 99}', "eos_token_id"),
    "an id that is text": ('{"eos_token_id": "2"}', "eos_token_id"),
    "an id that is true": ('{"bos_token_id": true}', "bos_token_id"),
    "an id that is a fraction": ('{"pad_token_id": 1.5}', "pad_token_id"),
    "a list of lists": ('{"eos_token_id": [[2]]}', "eos_token_id"),
    "a key twice": ('{"eos_token_id": 2, "eos_token_id": 3}', "eos_token_id"),
    "NaN": ('{"temperature": NaN}', "temperature"),
    "a list": ("[]", None),
    "empty": ("", None),
    "a page": ("<html></html>", None),
    "nested deep": ("[" * 200_000, None),
}


def config_cases() -> Iterator[Case]:
    from config_variants import BAD_DOCUMENTS, BAD_VALUES, GOOD_TEXT, LLAMA3, YARN

    concern = "configuration"
    for changes, key, words in BAD_VALUES:
        key = key or "rope_scaling.original_max_position_embeddings"
        name = json.dumps({k: "(absent)" if v is ... else v for k, v in changes.items()})[:240]
        yield bad(concern, name, lambda f, c=changes: edit_config(f, **c), "ConfigError", CONFIG_FILE, key, words)
    for name, (text, words) in BAD_DOCUMENTS.items():
        make = lambda f, t=text: (f / "config.json").write_text(t, encoding="utf-8")  # noqa: E731
        key = KEYED_DOCUMENTS.get(name)
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE, key, words)
    bytes_of = {
        "UTF-16": GOOD_TEXT.encode("utf-16"),
        "a NUL in it": GOOD_TEXT.encode() + b"\0",
        "bytes that are no text": b'{"model_type": "ll\xffama"}',
        "two million brackets": b'{"a": [' + b"[]," * 660_000 + b"[]]}",
        "120,000 keys": b"{" + b",".join(b'"k%d":{}' % n for n in range(120_000)) + b"}",
    }
    for name, content in bytes_of.items():
        make = lambda f, c=content: (f / "config.json").write_bytes(c)  # noqa: E731
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE, None)
    for name, make in no_regular_file("config.json").items():
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE)
    yield bad(concern, "missing", lambda f: (f / "config.json").unlink(), "ConfigError", CONFIG_FILE)
    for key, value in LARGER.items():
        named = key if key == "num_hidden_layers" else "hidden_size"
        make = lambda f, k=key, v=value: edit_config(f, **{k: v, "head_dim": 4})  # noqa: E731
        yield bad(concern, f"{key} {value}", make, "WeightsError", CONFIG_FILE, named, "much larger model")
    for key, values in ENDLESS.items():
        for value in values:
            make = lambda f, k=key, v=value: edit_config(f, **{k: v})  # noqa: E731
            yield bad(concern, f"{key} {value}", make, "ConfigError", CONFIG_FILE, key)
    stretched = {
        "an attention factor of 1e300": (YARN | {"attention_factor": 1e300}, "attention_factor"),
        "a factor of 1e308": (LLAMA3 | {"factor": 1e308}, "factor"),
        "two attention factors of 1e-300": (YARN | {"mscale": 1e300, "mscale_all_dim": 1e-300}, "mscale"),
    }
    for name, (scaling, key) in stretched.items():
        make = lambda f, s=scaling: edit_config(f, rope_scaling=s)  # noqa: E731
        yield bad(concern, name, make, "ConfigError", CONFIG_FILE, f"rope_scaling.{key}")
    for name, (text, key) in GENERATION.items():
        make = lambda f, t=text: (f / "generation_config.json").write_text(t)  # noqa: E731
        yield bad("generation_config.json", name, make, "ConfigError", GENERATION_FILE, key)
    for name, make in no_regular_file("generation_config.json").items():
        yield bad("generation_config.json", name, make, "ConfigError", GENERATION_FILE)


# Safetensors files


def safetensors_cases() -> Iterator[Case]:
    from bad_safetensors import BAD_HEADERS, BAD_STARTS, FOREIGN, NAME

    concern, refused = "safetensors", ("WeightsError", WEIGHTS_FILE)
    for name, (content, words) in FOREIGN.items():
        make = lambda f, c=content: (f / "model.safetensors").write_bytes(c)  # noqa: E731
        yield bad(concern, name, make, *refused, None, words)
    for name, (edit, key, words) in BAD_HEADERS.items():
        make = lambda f, e=edit: edit_header(f, e)  # noqa: E731
        # Bytes that no tensor owns have no key.
        yield bad(concern, name, make, *refused, None if name == "tensor left out" else key or ANY, words)
    for name, (header, length, words) in BAD_STARTS.items():
        key = "a" if name in ("header with a key twice", "header with NaN") else None
        make = lambda f, h=header, n=length: write_raw(f / "model.safetensors", h, length=n)  # noqa: E731
        yield bad(concern, name, make, *refused, key, words)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    headers = {
        "400,000 empty tensors": (json.dumps({f"t{n}": empty for n in range(400_000)}), None, "at most"),
        "60,000 empty tensors": (json.dumps({f"t{n}": empty for n in range(60_000)}, separators=(",", ":")), None, ""),
        "a million brackets": ('{"a":[' + "[]," * 1_300_000 + "[]]}", None, ""),
        "a claim of 256 terabytes": (
            json.dumps({NAME: {"dtype": "F32", "shape": [2**46], "data_offsets": [0, 2**48]}}),
            NAME,
            "cut off",
        ),
        "metadata that are a number": ('{"__metadata__": 5}', "__metadata__", "metadata"),
        "metadata that hold a number": ('{"__metadata__": {"format": 5}}', "__metadata__", "metadata"),
        "no tensor at all": ("{}", ANY, "weight files are missing"),
        "a name of half a surrogate": (json.dumps({"\ud800": empty}), ANY, "weight files are missing"),
        "a name of a megabyte": (json.dumps({"n" * 2**20: [1]}), ANY, ""),
    }
    for name, (header, key, words) in headers.items():
        make = lambda f, h=header: write_raw(f / "model.safetensors", h.encode())  # noqa: E731
        # A file without tensors is whole; it is config.json that does not go with it.
        file = CONFIG_FILE if "missing" in words else WEIGHTS_FILE
        yield bad(concern, name, make, "WeightsError", file, key, words)
    for cut in (1, 7, 8, 9, 100, 2000, -2000, -100, -1):
        make = lambda f, n=cut: _truncate(f / "model.safetensors", n)  # noqa: E731
        yield bad(concern, f"cut off at {cut}", make, *refused, ANY if cut < 0 else None)
    yield bad(concern, "seven bytes behind the end", lambda f: _append(f, b"\0" * 7), *refused, None, "no tensor owns")
    for name, make in no_regular_file("model.safetensors").items():
        yield bad(concern, name, make, *refused)


def _truncate(path: Path, size: int) -> None:
    os.truncate(path, size if size > 0 else path.stat().st_size + size)


def _append(folder: Path, content: bytes) -> None:
    with open(folder / "model.safetensors", "ab") as file:
        file.write(content)


# Weights

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
UP = "model.layers.1.mlp.up_proj.weight"


def weight_cases() -> Iterator[Case]:
    from bad_folders import BAD_TENSORS, NO_WEIGHTS

    concern = "weights"
    for name, (edit, key, words) in BAD_TENSORS.items():
        # What is missing or unexpected as a whole is the folder's; what has the wrong form, its file's.
        make = lambda f, e=edit: edit_tensors(f, e)  # noqa: E731
        file = _file_at_fault(name)
        yield bad(concern, name, make, "WeightsError", file, key or ANY, words[0])
    for dtype in DTYPES:
        for value in (float("nan"), float("inf"), float("-inf")):

            def spoil(tensors: dict[str, torch.Tensor], dtype: torch.dtype = dtype, value: float = value) -> None:
                for name in tensors:
                    tensors[name] = tensors[name].to(dtype)
                tensors[UP][23, 15] = value

            name = f"{value} in {str(dtype).removeprefix('torch.')}"
            make = lambda f, s=spoil: edit_tensors(f, s)  # noqa: E731
            yield bad(concern, name, make, "WeightsError", WEIGHTS_FILE, UP, "[23, 15]")
    yield bad(
        concern,
        "a value that float16 cannot hold",
        lambda f: edit_tensors(f, lambda t: t["lm_head.weight"][2].fill_(70_000.0)),
        *("WeightsError", WEIGHTS_FILE, "lm_head.weight", "float16 cannot hold"),
        use=lambda place: load(place, dtype="float16"),
    )
    heads = {
        "a tied head that differs": lambda t: None,
        "a tied head of another shape": lambda t: t.update({"lm_head.weight": torch.ones(8, 16)}),
        "a tied head of another dtype": lambda t: t.update({"lm_head.weight": t["lm_head.weight"].half()}),
    }
    for name, edit in heads.items():

        def tie(folder: Path, edit: Callable = edit) -> None:
            edit_config(folder, tie_word_embeddings=True)
            edit_tensors(folder, edit)

        yield bad(concern, name, tie, "WeightsError", WEIGHTS_FILE, "lm_head.weight")
    for name, (names, words) in NO_WEIGHTS.items():

        def only(folder: Path, names: list[str] = names) -> None:
            (folder / "model.safetensors").unlink()
            for other in names:
                (folder / other).write_bytes(b"x")

        yield bad(concern, f"only {name}", only, "WeightsError", "model", "model.safetensors", words)
    for name in ("llama-2-7b", "no/such/folder", "a\0b", "", "n" * 5000, None, 5, b"\xff"):
        use = lambda place, n=name: _load_by_name(n)  # noqa: E731
        yield Case(concern, f"the folder {name!r}"[:80], _nothing, use, Refusal("WeightsError", None, "folder"))
    for key, value in (("dtype", "int8"), ("dtype", torch.int64), ("dtype", 5), ("device", "abacus"), ("device", None)):
        make = lambda f: None  # noqa: E731
        use = lambda place, k=key, v=value: _load_plainly(place, **{k: v})  # noqa: E731
        yield bad(concern, f"{key} {value!r}", make, ANY, None, key, use=use)


def _file_at_fault(name: str) -> str:
    in_file = (
        "one too many",
        "a layer too many",
        "transposed",
        "vocabulary padded",
        "key heads",
        "an axis too many",
        *("int8", "bool", "complex", "float8", "biases"),
    )
    return CONFIG_FILE if name == "nothing" else WEIGHTS_FILE if name in in_file else "model"


def _load_by_name(name: Any) -> None:
    from llama_core import Llama

    Llama.from_pretrained(name)


def _load_plainly(place: Path, **options: Any) -> None:
    from llama_core.weights import load_model

    load_model(place / "model", **options)


def _nothing(place: Path) -> None:
    pass


# Good folders


def _header_text(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The text of the header changed, the tensors' bytes kept."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        write_raw(path, change(content[8 : 8 + length].rstrip(b" ")), content[8 + length :])

    return apply


def _tied(stored: bool) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        edit_config(folder, tie_word_embeddings=True)
        edit_tensors(
            folder,
            lambda t: (
                t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
                if stored
                else t.pop("lm_head.weight")
            ),
        )

    return apply


def _tied_weights() -> dict[str, torch.Tensor]:
    tensors = weights()
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}


def _inv_freq(folder: Path) -> None:
    edit_tensors(
        folder,
        lambda t: t.update(
            {
                "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
                "model.rotary_emb.inv_freq": torch.full((2,), torch.nan),
            }
        ),
    )


def _hub_cache(place: Path) -> None:
    """Links as ``huggingface_hub`` has them in its cache."""
    snapshot = place / "models--someone--small" / "snapshots" / "0123456789abcdef"
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write_folder(snapshot)
    for number, name in enumerate(["config.json", "model.safetensors"]):
        (snapshot / name).rename(blobs / f"{number:064x}")
        (snapshot / name).symlink_to(f"../../blobs/{number:064x}")
    (place / "model").symlink_to(snapshot)


def good_folder_cases() -> Iterator[Case]:
    from config_variants import GOOD_VALUES

    concern, same = "model folders", equal_to(weights)
    makers: dict[str, tuple[Callable[[Path], Any], Callable]] = {
        "as written": (lambda f: None, same),
        "rotary_emb.inv_freq stored": (_inv_freq, same),
        "a tied head that is stored": (_tied(True), equal_to(_tied_weights)),
        "a tied head that is not stored": (_tied(False), equal_to(_tied_weights)),
        "a header with spaces and newlines": (_header_text(lambda h: h.replace(b",", b" ,\n\t")), same),
        "a header padded with spaces": (_header_text(lambda h: h + b" " * 71), same),
        "a header with escapes": (_header_text(lambda h: h.replace(b"model.norm", rb"mod\u0065l.norm")), same),
        "a header without metadata": (lambda f: edit_header(f, lambda h: h.pop("__metadata__")), same),
        "a header with much metadata": (
            lambda f: edit_header(f, lambda h: h["__metadata__"].update({f"k{n}": "x" * 1000 for n in range(200)})),
            same,
        ),
        "tensors in another order": (lambda f: edit_header(f, _reversed), same),
        "a header that aligns nothing": (_header_text(lambda h: h + b" " * (1 - len(h) % 2)), same),
        "config.json in one line": (lambda f: _respell(f, separators=(",", ":")), same),
        "config.json with tabs": (lambda f: _respell(f, indent="\t"), same),
        "config.json with Windows line ends": (lambda f: _windows(f), same),
        "config.json with spaces around it": (lambda f: _respell(f, around="\n \t\r\n"), same),
        "config.json with keys in another order": (lambda f: _respell(f, sort_keys=True), same),
        "config.json with whole numbers for fractions": (lambda f: edit_config(f, rope_theta=10000), same),
        "config.json with a note": (lambda f: edit_config(f, my_notes={"trained": [1, 2]}), same),
        "config.json with a note in all planes": (lambda f: edit_config(f, notes="日本 🙂 \U0010ffff \0"), same),
        "generation_config.json": (lambda f: (f / "generation_config.json").write_text('{"eos_token_id": [2]}'), same),
        "other files beside it": (lambda f: _others(f), same),
        "a link inside the folder": (lambda f: _link_inside(f), same),
    }
    for name, (make, use) in makers.items():
        yield Case(concern, name, in_model(make), use)
    yield Case(concern, "links of the hub's cache", _hub_cache, same)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        make = lambda f, d=dtype: edit_tensors(f, lambda t: t.update({n: x.to(d) for n, x in t.items()}))  # noqa: E731
        expected = lambda d=dtype: {n: x.to(d) for n, x in weights().items()}  # noqa: E731
        yield Case(concern, str(dtype).removeprefix("torch."), in_model(make), equal_to(expected))
    yield Case(concern, "biases", in_model(_biases), load)
    padded = lambda f: (edit_config(f, vocab_size=64), edit_tensors(f, _pad))  # noqa: E731
    yield Case(concern, "a padded vocabulary", in_model(padded), load)
    for changes, fields in GOOD_VALUES:
        if set(changes) & {"num_key_value_heads", "head_dim", "attention_bias", "torch_dtype", "dtype"}:
            continue  # these go with other tensors; the tests on config.json have them

        def use(place: Path, fields: dict = fields) -> None:
            config = load(place).config
            assert {key: getattr(config, key) for key in fields} == fields

        name = json.dumps({k: "(absent)" if v is ... else v for k, v in changes.items()})[:240]
        make = lambda f, c=changes: edit_config(f, **c)  # noqa: E731
        yield Case("good configurations", name, in_model(make), use)


def _reversed(header: dict) -> None:
    items = list(header.items())[::-1]
    header.clear()
    header.update(items)


def _respell(folder: Path, around: str = "", **style: Any) -> None:
    (folder / "config.json").write_text(around + json.dumps(CONFIG, **style) + around, newline="")


def _windows(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2), newline="\r\n")


def _others(folder: Path) -> None:
    (folder / "README.md").write_text("# notes")
    (folder / "pytorch_model.bin.index.json").write_text("{")
    (folder / "original").mkdir()
    (folder / "adapter_notes.safetensors").write_bytes(b"x")


def _link_inside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "step-1000.weights")
    (folder / "model.safetensors").symlink_to("step-1000.weights")


def _biases(folder: Path) -> None:
    edit_config(folder, attention_bias=True, mlp_bias=True)

    def add(tensors: dict[str, torch.Tensor]) -> None:
        for name, values in list(tensors.items()):
            if "proj" in name:
                tensors[name.replace("weight", "bias")] = torch.ones(len(values))

    edit_tensors(folder, add)


def _pad(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat((tensors[name], torch.zeros(24, 16)))
