"""Archives that are not what they should be: what is done to a good one, and words of the error."""

import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import torch
from meta_folders import meta_weights

NAME = "consolidated.00.pth"


MIB = 2**20


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def rewrite(path: Path, edit, compression: int = zipfile.ZIP_STORED) -> None:
    """The archive anew by Python's zip library, after ``edit`` has changed the dictionary of its entries."""
    entries = records(path)
    edit(entries)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def root(entries: dict[str, bytes]) -> str:
    return next(iter(entries)).split("/")[0]


def set_pickle(content: bytes):
    def edit(entries):
        entries[f"{root(entries)}/data.pkl"] = content

    return lambda path: rewrite(path, edit)


def edit_bytes(edit):
    def apply(path):
        content = bytearray(path.read_bytes())
        path.write_bytes(bytes(edit(content) or content))

    return apply


def without(name: str):
    return lambda path: rewrite(path, lambda entries: entries.pop(f"{root(entries)}/{name}"))


def replaced(name: str, content: bytes):
    return lambda path: rewrite(path, lambda entries: entries.update({f"{root(entries)}/{name}": content}))


class Runs:
    """A pickle of this calls a function while it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def global_call(module: str, name: str, argument: str) -> bytes:
    text = argument.encode()
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X" + struct.pack("<I", len(text)) + text + b"\x85R."


def tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...], count: int = 1280, offset: int = 0) -> bytes:
    """A table with one tensor, written opcode by opcode: storage ``0`` of ``count`` float32."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"tQ"
    call = storage + number(offset) + numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}(" + text("norm.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + call + b"tRu."


def lazy_chain(depth: int) -> bytes:
    """Dictionaries that are all empty when they are put into each other: the depth comes afterwards."""
    made = b"".join(b"}r" + struct.pack("<I", n) for n in range(depth))
    links = b"".join(b"j" + struct.pack("<I", n) + b"K\0j" + struct.pack("<I", n + 1) + b"s0" for n in range(depth - 1))
    return b"\x80\x02" + made + links + b"j\0\0\0\0."


def double_entry(path: Path) -> None:
    entries = records(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's library says that it is there already
            archive.writestr(f"{root(entries)}/data.pkl", b"\x80\x02}.")


def overlapping(path: Path) -> None:
    """Two entries of the directory that lead to the same bytes."""
    content = bytearray(path.read_bytes())
    starts = [n for n in range(len(content)) if content[n : n + 4] == b"PK\x01\x02"]
    content[starts[5] + 42 : starts[5] + 46] = content[starts[4] + 42 : starts[4] + 46]
    path.write_bytes(bytes(content))


def huge_directory(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(60_000):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{n}"), b"")


#: what is done to a good archive -> words of the one error
BAD_ARCHIVES = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut off": (edit_bytes(lambda b: b[: len(b) // 2]), "does not end with the record"),
    "cut within the end record": (edit_bytes(lambda b: b[:-3]), "does not end with the record"),
    "bytes behind": (edit_bytes(lambda b: b + b"x"), "does not end with the record"),
    "bytes before": (edit_bytes(lambda b: b"PK\x03\x04" + b), "just before the end"),
    "a hole before the directory": (edit_bytes(lambda b: b[:-22] + b"\0" * 8 + b[-22:]), "just before the end"),
    "Git LFS": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git-LFS pointer"),
    "HTML": (lambda path: path.write_bytes(b"<!DOCTYPE html><html></html>"), "HTML page"),
    "GGUF": (lambda path: path.write_bytes(b"GGUF" + bytes(60)), "GGUF"),
    "garbage": (lambda path: path.write_bytes(bytes(range(1, 200))), "no archive of torch.save"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), "zeros only"),
    "the form before torch 1.6": (
        lambda path: torch.save(meta_weights(), path, _use_new_zipfile_serialization=False),
        "a pickle without an archive",
    ),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "a pickle without an archive"),
    "another zip": (lambda path: rewrite(path, lambda e: (e.clear(), e.update({"a/b.txt": b"x"}))), "not one of torch"),
    "an empty zip": (lambda path: rewrite(path, lambda e: e.clear()), "no archive of torch.save"),
    "two roots": (lambda path: rewrite(path, lambda e: e.update({"other/data/0": b"x"})), "not one of torch"),
    "TorchScript": (replaced("constants.pkl", b"x"), "TorchScript"),
    "big-endian": (replaced("byteorder", b"big"), "not little-endian"),
    "compressed": (lambda path: rewrite(path, lambda e: None, zipfile.ZIP_DEFLATED), "is compressed"),
    "a zip bomb": (
        lambda path: rewrite(path, lambda e: e.update({f"{root(e)}/data/0": bytes(64 * MIB)}), zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "an entry twice": (double_entry, "there twice"),
    "overlapping entries": (overlapping, "no bytes of its own|not where the directory says"),
    "60,000 entries": (huge_directory, "the directory of .* has"),
    "a storage missing": (without("data/3"), "from data/3"),
    "a storage cut short": (replaced("data/3", b"\0" * 8), "from data/3"),
    "a storage too long": (replaced("data/3", b"\0" * 8192), "from data/3"),
    "a pickle of a megabyte": (set_pickle(b"\x80\x02" + b"K\0" * MIB + b"."), "the pickle of .* has"),
    "an empty pickle": (set_pickle(b""), "is damaged"),
    "a pickle cut off": (set_pickle(tensor_pickle((16,), (1,))[:-40]), "is damaged"),
    "no opcodes": (set_pickle(b"\xff" * 40), "is damaged"),
    "a list": (set_pickle(b"\x80\x02]."), "the opcode EMPTY_LIST"),
    "a number": (set_pickle(b"\x80\x02K\x07."), "something else than tensors"),
    "a table in a table": (lambda path: torch.save({"model": meta_weights()}, path), "something else than tensors"),
    "a name that is a number": (lambda path: torch.save({3: torch.ones(2)}, path), "something else than tensors"),
    "os.system": (set_pickle(global_call("os", "system", "touch ran")), "asks for 'os system'"),
    "builtins.eval": (set_pickle(global_call("builtins", "eval", "1")), "asks for 'builtins eval'"),
    "torch.load": (set_pickle(global_call("torch", "load", "x")), "asks for 'torch load'"),
    "an object of its own": (lambda path: torch.save({"a": Runs(os.system, "touch ran")}, path), "asks for '.*system'"),
    "nested 150,000 deep": (set_pickle(b"\x80\x02)" + b"\x85" * 150_000 + b"."), "nests values without end"),
    "dictionaries nested 20,000 deep": (set_pickle(b"\x80\x02}" + b"}K\0" * 20_000 + b"s" * 20_000 + b"."), "pickle"),
    "nested afterwards": (set_pickle(lazy_chain(20_000)), "used before"),
    "stride 0": (set_pickle(tensor_pickle((10**12,), (0,))), "more values than are stored"),
    "beyond its storage": (set_pickle(tensor_pickle((16,), (100,))), "more values than are stored"),
    "an offset beyond": (set_pickle(tensor_pickle((16,), (1,), offset=1270)), "more values than are stored"),
    "a negative size": (set_pickle(tensor_pickle((-4, -4), (1, 1))), "impossible shape"),
    "a negative stride": (set_pickle(tensor_pickle((4,), (-1,), offset=10)), "impossible shape"),
    "more values than stored": (set_pickle(tensor_pickle((16,), (1,), count=10**13)), "from data/0"),
}
