"""Traces, maps of names, candidates."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import ANY, Case, Refusal
from folders import no_regular_file
from small_traces import edit_manifest, ids, model

MANIFEST_FILE, LAYER = "model/manifest.json", "call-0-layer-001.safetensors"


@functools.cache
def _original() -> Path:
    """A small trace, written once; deleted with the process's other temporary files."""
    from llama_core.traces import record

    folder = Path(tempfile.mkdtemp(prefix="trace-"))
    record(model(), ids(), folder / "t", steps=1, names=["layers.1.*", "logits"])
    return folder / "t"


def in_trace(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """A good trace in ``place/model``, which ``make`` then changes."""

    def apply(place: Path) -> None:
        shutil.copytree(_original(), place / "model")
        make(place / "model")

    return apply


def validate(place: Path) -> None:
    from llama_core.traces.read import validate

    validate(place / "model")


def trace_cases() -> Iterator[Case]:
    from bad_manifests import BAD_MANIFESTS, change

    concern = "traces"

    def bad(name: str, make: Callable[[Path], Any], *refusal: Any, use: Any = validate, **facts: Any) -> Case:
        return Case(concern, name, in_trace(make), use, Refusal("TraceError", *refusal, **facts))

    for name, (key, value, words) in BAD_MANIFESTS.items():
        make = lambda f, k=key, v=value: edit_manifest(f, change(k, v))  # noqa: E731
        file = MANIFEST_FILES.get(name, MANIFEST_FILE)
        yield bad(f"manifest: {name}", make, file, ANY, words)
    documents = {
        "empty": ("", None),
        "cut off": ("{", None),
        "a list": ("[]", None),
        "a key twice": ('{"format": 1, "format": 2}', "format"),
        "NaN": ('{"format": NaN}', "format"),
        "nested deep": ("[" * 100_000, None),
        "no object": ("7", None),
        "nothing in it": ("{}", "format"),
    }
    for name, (text, key) in documents.items():
        make = lambda f, t=text: (f / "manifest.json").write_text(t)  # noqa: E731
        yield bad(f"manifest: {name}", make, MANIFEST_FILE, key)
    more = {
        "a name with a newline": (("tensors", 0, "name"), "layers.1\n"),
        "a file name of 300 letters": (("tensors", 0, "file"), "n" * 300),
        "a reason that is a number": (("not_provided",), [{"names": "*", "reason": 5}]),
        "statistics that are infinite": (("tensors", 0, "statistics", "sum"), 10**400),
        "200,000 calls": (("calls",), [{}] * 200_000),
        "no calls": (("calls",), []),
        "no tensors": (("tensors",), []),
        "rows beyond the prompt": (("tensors", 0, "rows"), [99]),
        "a rope_scaling that is text": (("model", "config", "rope_scaling"), "linear"),
        "a configuration that is a list": (("model", "config"), []),
        "end ids that are text": (("model", "config", "eos_token_ids"), "2"),
        "an axis of no letter": (("tensors", 0, "axes"), "B S Z"),
        "key positions of another length": (("calls", 0, "key_positions"), [[0, 1]]),
        "sequences twice": (("calls", 0, "sequences"), [0, 0]),
    }
    for name, (key, value) in more.items():
        make = lambda f, k=key, v=value: edit_manifest(f, change(k, v))  # noqa: E731
        yield bad(f"manifest: {name}", make, MANIFEST_FILE, ANY)
    files = {
        "a file cut off": lambda f: os.truncate(f / LAYER, (f / LAYER).stat().st_size - 10),
        "a file cut within its header": lambda f: os.truncate(f / LAYER, 100),
        "an empty file": lambda f: (f / LAYER).write_bytes(b""),
        "a page in place of a file": lambda f: (f / LAYER).write_bytes(b"<html>" + b" " * 100),
        "a changed byte": lambda f: _flip(f / LAYER),
        "a missing file": lambda f: (f / LAYER).unlink(),
        "two files that changed places": lambda f: _swap(f),
    }
    for name, make in files.items():
        yield bad(name, make, f"model/{LAYER}", ANY)
    for name, make in no_regular_file(LAYER).items():
        yield bad(f"a file that is {name}", make, f"model/{LAYER}", ANY)
    for name, make in no_regular_file("manifest.json").items():
        yield bad(f"a manifest that is {name}", make, MANIFEST_FILE)
    for name in ("/no/such", "a\0b", "n" * 5000, "~no-such-user/t", None, 5):
        use = lambda place, n=name: _open(n)  # noqa: E731
        file = name if name == "/no/such" else None
        refusal = Refusal("TraceError", file, "trace")
        yield Case(concern, f"the trace {str(name)[:20]!r}", lambda place: None, use, refusal)
    yield from _record_cases(concern)
    yield from _map_cases()
    yield from _candidate_cases()


#: Of the manifests that lie about a file, the file that shows it.
MANIFEST_FILES = {
    "file that is not there": "model/call-9.safetensors",
    "lying shape": f"model/{LAYER}",
    "huge shape": f"model/{LAYER}",
    "lying dtype": f"model/{LAYER}",
    "wrong hash": f"model/{LAYER}",
    "the same tensor twice": MANIFEST_FILE,
}


def _open(name: Any) -> None:
    from llama_core.traces import Trace

    Trace.open(name)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _swap(folder: Path) -> None:
    other = folder / "call-1-layer-001.safetensors"
    (folder / LAYER).rename(folder / "aside")
    other.rename(folder / LAYER)
    (folder / "aside").rename(other)


def _record_cases(concern: str) -> Iterator[Case]:
    from llama_core.traces import record

    options: dict[str, tuple[dict[str, Any], str]] = {
        "rows beyond the prompt": (dict(rows="7"), "rows"),
        "rows that are none": (dict(rows="last,x"), "rows"),
        "rows of 10^12": (dict(rows="0-1000000000000"), "rows"),
        "names that are none": (dict(names="nothing"), "names"),
        "a storage type that is none": (dict(storage_dtype="int4"), "dtype"),
        "a noise type that is none": (dict(noise=["int4"]), "noise"),
        "steps below none": (dict(steps=-1), "steps"),
        "steps that are a fraction": (dict(steps=1.5), "steps"),
        "a chunk of none": (dict(chunk=0), "chunk"),
        "a chunk below none": (dict(chunk=-3), "chunk"),
        "ids beyond the vocabulary": (dict(input_ids=[[99]]), "input_ids"),
        "ids that are text": (dict(input_ids=[["a"]]), "input_ids"),
        "ids that are fractions": (dict(input_ids=[[1.5]]), "input_ids"),
        "no ids": (dict(input_ids=[]), "input_ids"),
        "ragged ids": (dict(input_ids=[[1, 2], [3]]), "input_ids"),
        "a mask of another shape": (dict(attention_mask=[[1, 1]]), "attention_mask"),
    }
    for name, (changes, key) in options.items():

        def use(place: Path, changes: dict[str, Any] = changes) -> None:
            try:
                record(model(), changes.get("input_ids", ids()), place / "out", **{"steps": 1} | _without_ids(changes))
            finally:
                assert not (place / "out").exists(), "a part of a trace was left"

        yield Case(concern, f"to record: {name}", lambda place: None, use, Refusal(ANY, None, key))


def _without_ids(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key != "input_ids"}


#: what is wrong -> (the text of a map, the key that the error names)
MAPS = {
    "no TOML": ("version = ", "map"),
    "empty": ("", "map"),
    "another version": ("version = 2\ntensor = []", "map"),
    "nested deep": ("a = " + "[" * 20_000, "map"),
    "a megabyte": ("# " + "x" * 1_000_000, "map"),
    "a rule without ours": ('version = 1\n[[tensor]]\ntheirs = "a"', "tensor"),
    "a rule that is a number": ("version = 1\ntensor = [5]", "tensor"),
    "a name that is none of ours": ('version = 1\n[[tensor]]\ntheirs = "a"\nours = "b"', "ours"),
    "a layer on one side": ('version = 1\n[[tensor]]\ntheirs = "a"\nours = "layers.{n}.q"', "theirs"),
    "axes of another tensor": ('version = 1\n[[tensor]]\ntheirs = "a"\nours = "logits"\naxes = "B H"', "axes"),
    "times NaN": ('version = 1\n[[tensor]]\ntheirs = "a"\nours = "logits"\ntimes = nan', "times"),
    "times 10^400": ('version = 1\n[[tensor]]\ntheirs = "a"\nours = "logits"\ntimes = 1' + "0" * 400, "times"),
    "a layout of no kind": (
        'version = 1\n[[tensor]]\ntheirs = "a{n}"\nours = "layers.{n}.q"\nlayout = "diagonal"',
        "layout",
    ),
    "an order that is none": (
        'version = 1\n[[tensor]]\ntheirs = "a{n}"\nours = "layers.{n}.q"\norder = {H = [0, 0]}',
        "order",
    ),
    "a name with braces": ('version = 1\n[[tensor]]\ntheirs = "a{n}"\nours = "layers.{n}.{q}"', "ours"),
}


def _map_cases() -> Iterator[Case]:
    def use(place: Path) -> None:
        from llama_core.traces.maps import read_map

        read_map(place / "map.toml")

    for name, (text, key) in MAPS.items():
        make = lambda place, t=text: (place / "map.toml").write_text(t)  # noqa: E731
        yield Case("maps of names", name, make, use, Refusal("TraceError", "map.toml", key))
    for name, make in no_regular_file("map.toml").items():
        if "out of" in name:
            continue  # a map is named by hand, wherever it lies
        made = lambda place, m=make: ((place / "model").mkdir(), m(place / "model"))  # noqa: E731

        def linked(place: Path) -> None:
            from llama_core.traces.maps import read_map

            read_map(place / "model" / "map.toml")

        yield Case("maps of names", name, made, linked, Refusal("TraceError", "model/map.toml", "map"))


def _candidate_cases() -> Iterator[Case]:
    def use(place: Path) -> None:
        from llama_core.traces import compare

        compare(place / "model", place / "candidate")

    def with_file(name: str, content: bytes) -> Callable[[Path], None]:
        def make(place: Path) -> None:
            shutil.copytree(_original(), place / "model")
            (place / "candidate").mkdir()
            (place / "candidate" / name).write_bytes(content)

        return make

    npy = "candidate/logits.npy"
    huge = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        + b"\n"
    )
    contents: dict[str, tuple[str, bytes, str | None]] = {
        "an array cut off": ("logits.npy", b"\x93NUMPY", "logits"),
        "an array of 10^12 values": ("logits.npy", huge, "logits"),
        "an array of objects": ("logits.npy", npy_bytes(np.array([{"a": 1}])), "logits"),
        "an array of text": ("logits.npy", npy_bytes(np.array(["a"])), "logits"),
        "an archive named as an array": ("logits.npy", b"PK\x03\x04" + b"\0" * 60, "logits"),
        "a page named as an array": ("logits.npy", b"<html></html>", "logits"),
        "an empty array file": ("logits.npy", b"", "logits"),
        "a damaged safetensors file": ("out.safetensors", b"\xff" * 100, None),
        "an empty safetensors file": ("out.safetensors", b"", None),
    }
    for name, (file, content, key) in contents.items():
        refusal = Refusal("TraceError", npy if file.endswith("npy") else f"candidate/{file}", key)
        yield Case("candidates", name, with_file(file, content), use, refusal)
    nothing = with_file("notes.txt", b"")
    yield Case("candidates", "nothing to compare", nothing, use, Refusal("TraceError", "candidate", "candidate"))
    yield Case(
        "candidates", "no folder", in_trace(lambda f: None), use, Refusal("TraceError", "candidate", "candidate")
    )


def npy_bytes(values: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    import io

    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


# Good ones


def good_trace_cases() -> Iterator[Case]:
    makers: dict[str, Callable[[Path], Any]] = {
        "as written": lambda f: None,
        "a manifest with spaces": lambda f: (f / "manifest.json").write_text(
            json.dumps(json.loads((f / "manifest.json").read_text()), indent=4)
        ),
        "no hashes": lambda f: edit_manifest(f, lambda d: [t.pop("sha256") for t in d["tensors"]]),
        "no statistics": lambda f: edit_manifest(f, lambda d: [t.pop("statistics") for t in d["tensors"]]),
        "no configuration": lambda f: edit_manifest(f, lambda d: d["model"].update(config=None)),
        "no word of what is not provided": lambda f: edit_manifest(f, lambda d: d.pop("not_provided")),
        "sequences and key positions left out": lambda f: edit_manifest(
            f, lambda d: [c.pop(key) for c in d["calls"] for key in ("sequences", "key_positions", "past")]
        ),
        "other files beside it": lambda f: (f / "notes.txt").write_text("kept"),
    }
    for name, make in makers.items():
        yield Case("good traces", name, in_trace(make), validate)
