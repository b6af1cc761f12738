"""What is handed to the gates: arguments, implementations, answers to exported cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import AS_GIVEN, Case, Refusal
from trace_cases import npy_bytes


def gate_cases() -> Iterator[Case]:
    from llama_core.checkpoints import check, checkpoint
    from llama_core.cli import main

    concern = "gates"

    def bad(name: str, use: Callable[[Path], Any], *refusal: Any) -> Case:
        return Case(concern, name, lambda place: None, use, Refusal(*refusal))

    for value in ("99", "attention", "3\n", 99, "1b "):
        yield bad(
            f"the checkpoint {value!r}", lambda place, v=value: checkpoint(v), "CheckpointError", None, "checkpoint"
        )
    for key, value in (("dtype", "int8"), ("dtype", "float64"), ("device", "abacus"), ("device", "cuda:99")):
        use = lambda place, k=key, v=value: check("3", **{k: v})  # noqa: E731
        yield bad(f"{key} {value!r}", use, "CheckpointError", None, key)
    implementations = {
        "a module that is not there": ("no_such_module:attention", ""),
        "no name": ("math", ""),
        "a file that is not there": ("nowhere.py:attention", ""),
        "a file with an error": ("broken.py:attention", "def attention(:"),
        "a file that raises": ("raises.py:attention", "raise OSError('no')"),
        "a name that is not in the file": ("lacks.py:attention", "x = 1"),
    }
    for name, (argument, text) in implementations.items():

        def use(place: Path, argument: str = argument, text: str = text) -> None:
            if text:
                (place / argument.split(":")[0]).write_text(text)
            _raise_what_the_command_says(place, ["check", "3", "--implementation", argument])

        # The command names the file as it was given, which for a module is its name.
        yield bad(f"an implementation: {name}", use, "CheckpointError", AS_GIVEN, "implementation")
    yield bad(
        "results that are not there",
        lambda place: check("3", results=place / "none"),
        "CheckpointError",
        "none",
        "results",
    )
    out = lambda place: ((place / "file").write_text(""), checkpoint("3").export(place / "file"))  # noqa: E731
    yield bad("an export to a file", out, "CheckpointError", "file")
    assert main  # the command line is what people use
    yield from _result_cases()


def _raise_what_the_command_says(place: Path, arguments: list[str]) -> None:
    from llama_core.cli import parse

    args = parse(arguments)
    args.run(args)


def _result_cases() -> Iterator[Case]:
    """Answers to an exported case: one that cannot be read fails the gate, and the result says which file."""
    from safetensors.numpy import save

    from llama_core.checkpoints import check, checkpoint

    right = np.zeros((2, 1, 4, 8), np.float32)
    huge = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        + b"\n"
    )
    answers: dict[str, tuple[str, bytes]] = {
        "empty": ("results.safetensors", b""),
        "a page": ("results.safetensors", b"<html>" + b" " * 100),
        "cut off": ("results.safetensors", save({"attention_context": right})[:-10]),
        "a claim of 256 terabytes": (
            "results.safetensors",
            _raw(b'{"attention_context":{"dtype":"F32","shape":[70368744177664],"data_offsets":[0,281474976710656]}}'),
        ),
        "400,000 empty tensors": ("results.safetensors", _raw(_many(400_000))),
        "nested deep": ("results.safetensors", _raw(b'{"a":' * 100_000)),
        "zeros": ("results.safetensors", save({"attention_context": right})),
        "NaN": ("results.safetensors", save({"attention_context": right * np.nan})),
        "another shape": ("results.safetensors", save({"attention_context": right[:1]})),
        "another name": ("results.safetensors", save({"out": right})),
        "whole numbers": ("results.safetensors", save({"attention_context": right.astype(np.int64)})),
        "objects": ("attention_context.npy", npy_bytes(np.array([{"a": 1}]))),
        "10^12 values": ("attention_context.npy", huge),
        "an archive": ("attention_context.npy", b"PK\x03\x04" + b"\0" * 60),
        "nothing": ("notes.txt", b""),
    }
    for name, (file, content) in answers.items():

        def use(place: Path, file: str = file, content: bytes = content) -> None:
            from llama_core.errors import CheckpointError

            folder = place / "answers" / "3" / "decode"
            folder.mkdir(parents=True)
            (folder / file).write_bytes(content)
            result = check("3", results=place / "answers", cases=[checkpoint("3").case("decode")])
            assert not result.passed, "wrong answers passed"
            raise CheckpointError(
                result.problem or str(result), key="results", expected="right answers", actual="wrong"
            )

        refusal = Refusal("CheckpointError", None, "results", "decode")
        yield Case("answers to the gates", name, lambda place: None, use, refusal)


def _raw(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def _many(count: int) -> bytes:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({f"t{n}": empty for n in range(count)}).encode()
