"""Hugging Face folders with something wrong in a safetensors file, or in the tensors that it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from case import ANY, Case, Refusal
from folders import CONFIG_FILE, WEIGHTS_FILE, bad, load, no_regular_file
from model_folders import edit_config, edit_header, edit_tensors, write_raw


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
