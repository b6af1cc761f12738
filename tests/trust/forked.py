"""Run each case in a process of its own, forked from one that has everything imported, under limits.

A crash, a hang or a kill ends that process only, and is the verdict on its case. Linux only: fork, /proc.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from case import MEGABYTES, Case, Verdict

from llama_core.errors import LlamaCoreError

# All that a case may need, so that no forked process imports it once more.
for _module in (
    "batch",
    "chat",
    "checkpoints",
    "cli",
    "commands.check",
    "text_stream",
    "traces",
    "tokenizer",
    "weights",
):
    import_module(f"llama_core.{_module}")
for _module in ("sentencepiece", "tiktoken", "tokenizers"):
    import_module(_module)

#: Bounds that end a process. Those of the promise are narrower, and judged afterwards: a slow machine is no hang.
_CPU_SECONDS, _WALL_SECONDS = 20, 120
_MIB = 2**20


def run_all(cases: Iterable[Case], root: Path | None = None) -> Iterator[tuple[Case, Verdict, Path]]:
    """Each case with its verdict and the folder that it was made in, which is deleted before the next one is made."""
    gc.freeze()
    for case in cases:
        place = Path(tempfile.mkdtemp(prefix="case-", dir=root)).resolve()
        try:
            case.make(place)
            yield case, run(case, place), place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def run(case: Case, place: Path, seconds: float = _WALL_SECONDS) -> Verdict:
    """What comes of ``case.use(place)`` in a forked process."""
    _give_back_memory()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_in_child(case, place, writer)  # does not return
    os.close(writer)
    said, hung = _listen(reader, time.monotonic() + seconds)
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    ran = (place / "ran").exists()
    if hung:
        return Verdict("hung", text=f"no end within {seconds:.0f} s", ran=ran)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return Verdict("killed", signal.Signals(-code).name, ran=ran)
    facts = json.loads(said)
    return Verdict(**facts, seconds=usage.ru_utime + usage.ru_stime, ran=ran)


def _listen(reader: int, deadline: float) -> tuple[str, bool]:
    """All that comes through a pipe until it is closed; and whether the time was up first."""
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return said.decode(), True
            part = pipe.read(65536)
            if not part:
                return said.decode(), False
            said += part


def _run_in_child(case: Case, place: Path, writer: int) -> None:
    os.setsid()
    os.chdir(place)
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    on_disk = sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))
    before = _memory()
    # Of private memory that can be written to, so that asking for too much fails at once and not when it is touched.
    # The promise is about what is refused; a megabyte of text that is accepted may need more.
    room = 2 * MEGABYTES if case.refusal else 4096
    limit = before["VmData"] + 2 * on_disk + room * _MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**34, 2**34))
    facts: dict = {}
    try:
        case.use(place)
        facts = {"outcome": "accepted"}
    except LlamaCoreError as e:
        stated = {name: getattr(e, name) for name in ("file", "key", "expected", "actual", "hint")}
        stated = {name: None if value is None else str(value) for name, value in stated.items()}
        facts = {"outcome": "refused", "error": type(e).__name__, "facts": stated, "text": str(e)}
    except BaseException as e:  # also a panic of Rust code, which is no Exception
        facts = {"outcome": "raised", "error": type(e).__name__, "text": traceback.format_exc()[-1500:]}
    after = _memory()
    # Pages of files (the libraries' code, mapped weights) are no memory that was asked for.
    grown = after["VmHWM"] - before["VmRSS"] - (after["RssFile"] - before["RssFile"])
    facts["megabytes"] = max(0.0, (grown - on_disk) / _MIB)
    try:
        os.write(writer, json.dumps(facts).encode("utf-8", "backslashreplace"))
    finally:
        os._exit(0)


def _memory() -> dict[str, int]:
    """Bytes that this process has, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, value in fields}


def _give_back_memory() -> None:
    """Freed memory would be used again by the forked process, whose own need would then not show."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # a C library without it
        pass
