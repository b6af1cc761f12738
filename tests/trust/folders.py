"""A model folder with something done to it, and what a case does with it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from case import Case, Refusal
from model_folders import write_folder

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
