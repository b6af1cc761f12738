"""Hugging Face folders that must load, however they are written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from case import Case
from folders import equal_to, in_model, load
from model_folders import CONFIG, edit_config, edit_header, edit_tensors, weights, write_folder, write_raw


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
