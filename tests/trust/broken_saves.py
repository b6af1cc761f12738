"""Saves, conversions and traces that are killed, or that meet a full disk: one process that forks a child for each.

    python tests/trust/broken_saves.py FOLDER    writes FOLDER/results.json

Points of a kill are drawn with a seed: half of them among all calls and returns of the whole operation, a quarter among
those that touch the disk, a quarter among the last that take a name away or give one: there the old is no longer whole
unless the new is. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from llama_core import Llama, LlamaConfig
from llama_core.errors import LlamaCoreError
from llama_core.traces import record
from llama_core.weights import convert, save_model

POINTS = 20
PAGES = (0, 2, 5)  # of 4096 bytes that a full disk has left
CONFIG = LlamaConfig(vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4)
IDS = [[1, 7, 3]]
_DISK = {
    *("write", "flush", "fsync", "rename", "link", "unlink", "rmdir", "mkdir", "open", "close", "chmod", "scandir"),
    *("writestr", "write_record", "write_end_of_file", "truncate", "stat", "lstat"),
}


#: Calls that give a name or take one away. They are counted by themselves, so that the last can be met exactly.
_NAMES = {"rename", "link", "unlink", "rmdir"}
_LAST = 10


def model(seed: int) -> Llama:
    return Llama.random(CONFIG, seed=seed)


def _old_model(place: Path) -> None:
    save_model(model(0), place / "m")
    (place / "m" / "notes.txt").write_text("kept")


def _old_trace(place: Path) -> None:
    record(model(0), IDS, place / "t", names="logits")


def _meta(place: Path) -> None:
    _old_model(place)
    convert(place / "m", place / "meta", to="meta")


#: operation -> (what is there before, what is done)
OPERATIONS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "save": (_old_model, lambda place: save_model(model(1), place / "m", max_shard_bytes=4000)),
    "to meta": (_old_model, lambda place: convert(place / "m", place / "new", to="meta")),
    "to hf": (_meta, lambda place: convert(place / "meta", place / "new", to="hf")),
    "trace": (_old_trace, lambda place: record(model(1), IDS, place / "t", steps=1)),
}


def main(root: Path) -> None:
    torch.set_num_threads(1)
    results: dict[str, dict] = {}
    for name, (before, act) in OPERATIONS.items():
        kind = name.replace(" ", "-")
        (root / f"{kind}-before").mkdir()
        before(root / f"{kind}-before")
        _events(root / f"{kind}-before", root / f"{kind}-first", act)  # the first time more is imported
        events = _events(root / f"{kind}-before", root / f"{kind}-dry", act)
        names = sum(called in _NAMES for called in events)
        events = events[: len(events) * 98 // 100]  # an event more or less does not let the last point be missed
        draw = random.Random(f"{name} 7")
        on_disk = [number for number, called in enumerate(events) if called in _DISK]
        last = range(max(0, names - _LAST), names)
        at_names = [(point, True) for point in draw.sample(last, min(POINTS // 4, len(last)))]
        anywhere = draw.sample(range(len(events)), POINTS // 2)
        anywhere += draw.sample(on_disk, POINTS - len(anywhere) - len(at_names))
        for number, (point, by_name) in enumerate([*at_names, *((point, False) for point in anywhere)]):
            place = root / f"{kind}-{number}"
            shutil.copytree(root / f"{kind}-before", place)
            results[f"{name} {number}"] = _in_child(lambda p=place, a=act, n=point, by=by_name: _killed(p, a, n, by))
        for pages in PAGES:
            place = root / f"{kind}-full-{pages}"
            place.mkdir()
            results[f"{name} full {pages}"] = _in_child(lambda p=place, k=name, n=pages: _on_full_disk(p, k, n))
    (root / "results.json").write_text(json.dumps(results))


def _in_child(work: Callable[[], dict]) -> dict:
    """What ``work`` says in a forked process, and how that ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = work()
        except BaseException as e:
            said = {"error": type(e).__name__, "text": str(e)}
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code} | (json.loads(text) if text else {})


def _events(before: Path, place: Path, act: Callable[[Path], object]) -> list[str]:
    """Every call and return of the operation in its order: the name of a function in C that is called, else empty."""
    shutil.copytree(before, place)
    events: list[str] = []

    def watch(frame: object, event: str, argument: object) -> None:
        events.append(getattr(argument, "__name__", "") if event == "c_call" else "")

    sys.setprofile(watch)
    try:
        act(place)
    finally:
        sys.setprofile(None)
    return events


def _killed(place: Path, act: Callable[[Path], object], point: int, by_name: bool) -> dict:
    """Ends at an event of this number, or, ``by_name``, before the call of this number that changes names."""
    left = [point]

    def watch(frame: object, event: str, argument: object) -> None:
        if by_name and not (event == "c_call" and getattr(argument, "__name__", "") in _NAMES):
            return
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    sys.setprofile(watch)
    act(place)
    sys.setprofile(None)
    return {"finished": True}


# A full disk


def _on_full_disk(place: Path, name: str, pages: int) -> dict:
    problem = _mount_small(place)
    if problem:
        return {"skipped": problem}
    before, act = OPERATIONS[name]
    before(place)
    _fill(place / "ballast", pages)
    state = _state(place)
    try:
        act(place)
    except LlamaCoreError as e:
        return {"error": type(e).__name__, "text": str(e), "file": e.file, "same": _state(place) == state}
    return {"finished": True}


def _mount_small(place: Path) -> str | None:
    """Mount one megabyte of memory as a disk, seen by this process alone; or why that cannot be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_user = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
    if libc.unshare(new_mounts) and libc.unshare(new_mounts | new_user):
        return f"no mounts of its own: {os.strerror(ctypes.get_errno())}"
    everything, private = b"/", 0x4000 | 0x40000  # MS_REC, MS_PRIVATE
    libc.mount(b"none", everything, None, ctypes.c_ulong(private), None)
    if libc.mount(b"none", os.fsencode(place), b"tmpfs", ctypes.c_ulong(0), b"size=1m"):
        return f"no mount: {os.strerror(ctypes.get_errno())}"
    return None


def _fill(path: Path, pages: int) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
        file.truncate(max(0, file.tell() - pages * 4096))


def _state(place: Path) -> dict[str, str]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(place)): p.read_bytes().hex() for p in sorted(place.rglob("*")) if p.is_file()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
