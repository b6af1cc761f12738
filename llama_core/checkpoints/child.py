"""Somebody else's code in a process of its own, so that a hang, a crash or an exit costs one line and not the run.

The parent asks for one case at a time with a line of JSON and gets one back; outputs travel as ``.npz``. Both compute
the inputs themselves, from the same seeds. What the implementation prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.implementation import as_implementation, call
from llama_core.checkpoints.loading import arrays_of, load
from llama_core.checkpoints.outputs import Foreign, Unfit, describe_array
from llama_core.checkpoints.specification import Checkpoint, checkpoint
from llama_core.errors import CheckpointError

#: Seconds for Python, torch and the implementation's own imports, however busy the machine is.
_START = 120.0


class Child:
    """``module:name`` in a child process. A context manager; ``produce`` is a gate's source of outputs.

    Args:
        spec: ``module:name`` or ``file.py:name``.
        device: where torch implementations run.
        timeout: seconds for one case.
        model: the model folder that the cases are taken from, or None for the shipped cases.

    Raises (``produce``):
        Unfit: no outputs, in one line.
        CheckpointError: the implementation cannot be imported.
    """

    def __init__(self, spec: str, device: str, timeout: float, model: str | None = None):
        self.spec, self.device, self.timeout, self.model = spec, device, timeout, model
        self._process: subprocess.Popen | None = None
        self._replies: queue.Queue = queue.Queue()
        self._given_up: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="llama-core-")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._folder.cleanup()

    def produce(self, spec: Checkpoint, case: Case, inputs: Any, weights: Any, dtype: str) -> dict[str, Any]:
        """The outputs of one case. After a hang or a crash, the rest of that checkpoint is not run."""
        if spec.id in self._given_up:
            raise Unfit(f"not run: it {self._given_up[spec.id]}")
        try:
            self._start()
            request = {"checkpoint": spec.id, "case": case.name, "seed": case.seed, "dtype": dtype}
            reply = self._ask(request, self.timeout, f"gave no answer within {self.timeout:g} s")
        except Unfit as e:
            self._given_up[spec.id] = f"{e.message} in case {case.name!r}"
            raise
        if "unfit" in reply:
            raise Unfit(reply["unfit"], actual=reply.get("where"))
        with np.load(reply["file"], allow_pickle=False) as arrays:
            return {
                name: Foreign(kind, arrays[f"a{n}"] if f"a{n}" in arrays else None)
                for n, (name, kind) in enumerate(reply["outputs"])
            }

    def _start(self) -> None:
        if self._process is not None:
            return
        self._replies = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llama_core.checkpoints.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=_forward, args=(self._process, self._replies), daemon=True).start()
        setting = {"spec": self.spec, "device": self.device, "model": self.model, "folder": self._folder.name}
        reply = self._ask(setting, _START, f"took longer than {_START:g} s to import")
        if "error" in reply:
            self._stop()
            raise CheckpointError(**reply["error"])

    def _ask(self, request: dict, timeout: float, too_late: str) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=timeout)
        except (BrokenPipeError, queue.Empty) as e:
            self._stop()
            raise Unfit(too_late if isinstance(e, queue.Empty) else "ended its process") from None
        if line is None:
            status = self._process.wait()
            self._stop()
            raise Unfit(_death(status))
        return json.loads(line)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its own children too
        except (ProcessLookupError, PermissionError):
            pass
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


def _forward(process: subprocess.Popen, replies: queue.Queue) -> None:
    """Lines of the child into a queue that can be waited on with a limit; None at its end."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            replies.put(line)
    except ValueError:  # closed while it was read
        pass
    replies.put(None)


def _death(status: int) -> str:
    if status < 0:
        return f"crashed with {signal.Signals(-status).name}"
    return f"ended its process with status {status}"


def main() -> None:
    """The child: answer requests until there are no more."""
    requests = os.fdopen(os.dup(0), "r")
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def reply(answer: dict) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    setting = json.loads(requests.readline())
    try:
        thing = load(setting["spec"])
    except CheckpointError as e:
        reply({"error": {k: v if v is None else str(v) for k, v in vars(e).items()}})
        return
    if arrays_of(thing) == "torch":
        import torch  # noqa: F401  # on nobody's time
    reply({})
    for line in requests:
        reply(_answer(json.loads(line), thing, setting))


def _answer(request: dict, thing: Any, setting: dict) -> dict:
    spec = checkpoint(request["checkpoint"])
    case = _case(spec, request, setting["model"])
    inputs, weights = case.values(request["dtype"])
    try:
        implementation = as_implementation(thing, spec)
        outputs = call(implementation, spec, case, inputs, weights, request["dtype"], setting["device"])
        described = [(name, *describe_array(value)) for name, value in outputs.items()]
    except CheckpointError as e:
        return {"unfit": e.message, "where": None if e.actual is None else str(e.actual)}
    file = str(Path(setting["folder"]) / "outputs.npz")
    arrays: dict[str, Any] = {f"a{n}": array for n, (_, _, array) in enumerate(described) if array is not None}
    np.savez(file, **arrays)
    return {"file": file, "outputs": [(name, kind) for name, kind, _ in described]}


def _case(spec: Checkpoint, request: dict, model: str | None) -> Case:
    if model is None:
        return spec.case(request["case"]).reseeded(request["seed"])
    from llama_core.checkpoints.model_cases import cases_of_model

    return next(case for case in cases_of_model(spec, model) if case.name == request["case"])


if __name__ == "__main__":
    main()
