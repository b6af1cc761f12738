"""Killed or on a full disk: the old is there whole, or the new is. Of saves, conversions and traces."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_saves import OPERATIONS, PAGES, POINTS, model

from llama_core.traces import Trace
from llama_core.traces.read import validate
from llama_core.weights import load_model


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The folder that all was done in, and what each process said."""
    if sys.platform != "linux":
        pytest.skip("fork and mounts of one process are Linux's")
    root = tmp_path_factory.mktemp("broken")
    script = Path(__file__).parent / "broken_saves.py"
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, root], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    return root, json.loads((root / "results.json").read_text())


def equal(folder, seed):
    found, wanted = load_model(folder).state_dict(), model(seed).state_dict()
    return all(torch.equal(found[name], values) for name, values in wanted.items())


def check_model(place, kind):
    if kind == "save":
        assert (place / "m" / "notes.txt").read_text() == "kept"
        assert equal(place / "m", 0) or equal(place / "m", 1)
        return
    assert equal(place / ("m" if kind == "to meta" else "meta"), 0)
    assert not (place / "new").exists() or equal(place / "new", 0)


def check_trace(place):
    trace = validate(place / "t")
    names = {name for name, _ in trace.records}
    every = 3 + 2 * 21 + 2  # before the layers, in each of the two, behind them
    assert names == {"logits"} if len(trace.calls) == 1 else len(names) == every
    with torch.no_grad():
        logits = model(len(trace.calls) - 1)(torch.tensor([[1, 7, 3]]))
    np.testing.assert_allclose(Trace.open(place / "t").values("logits", 0), logits.numpy(), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(POINTS))
@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_kill_at_any_point_leaves_the_old_or_the_new_whole(broken, kind, number):
    root, results = broken
    assert results[f"{kind} {number}"] == {"code": -signal.SIGKILL}
    place = root / f"{kind.replace(' ', '-')}-{number}"
    check_trace(place) if kind == "trace" else check_model(place, kind)


@pytest.mark.slow
@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_full_disk_is_said_and_leaves_every_byte_as_it_was(broken, kind, pages):
    root, results = broken
    said = results[f"{kind} full {pages}"]
    if "skipped" in said:
        pytest.skip(f"a small disk cannot be mounted here: {said['skipped']}")
    place = root / f"{kind.replace(' ', '-')}-full-{pages}"
    assert said["code"] == 0 and said.get("same"), said
    assert said["error"] == ("TraceError" if kind == "trace" else "WeightsError")
    assert "No space left" in said["text"]
    assert said["file"] == str(place / {"save": "m", "trace": "t"}.get(kind, "new"))
