"""The decode step is one graph that stays the same from step to step, and nobody who watches it is ignored."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

CHILD = Path(__file__).with_name("compile_child.py")
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.15, "float16": 0.02}
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler"
)


@cache  # starting a process costs more than all that it is asked for
def child(backend: str, device: str) -> dict:
    scenarios = ["steps:float32", "generate:float32", "streams:float32"]
    if backend == "eager":
        scenarios += ["steps:bfloat16", "steps:float16", "dynamic:float32", "capture:float32", "whole:float32"]
        scenarios += ["capacities:float32"]
    run = subprocess.run(
        [sys.executable, str(CHILD), backend, device, *scenarios], capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_graph_serves_every_step_and_gives_the_uncompiled_logits(dtype, device):
    found = child("eager", device.type)[f"steps:{dtype}"]
    assert found["graphs"] == found["graphs after contiguous"] == 1 and found["steps"] == 16
    assert found["contiguous"] < TOLERANCE[dtype] and found["padded"] < TOLERANCE[dtype], found


def test_dynamic_rotary_scaling_is_one_graph_too():
    found = child("eager", "cpu")["dynamic:float32"]
    assert found["graphs"] == 1 and found["contiguous"] < TOLERANCE["float32"]


def test_caches_of_twelve_capacities_share_two_graphs():
    found = child("eager", "cpu")["capacities:float32"]
    assert found["caches"] == 12 and found["graphs"] <= 2
    assert found["difference"] < TOLERANCE["float32"], found


def test_generate_with_compile_gives_the_same_ids(device):
    found = child("eager", device.type)["generate:float32"]
    assert found["same"] == [True] * 4 and found["graphs"] == 1


@pytest.mark.slow
@needs_compiler
def test_generate_compiles_by_itself_and_gives_the_same_ids(device):
    found = child("inductor", device.type)["generate:float32"]
    assert found["same"] == [True] * 4
    assert (found["compiled before"], found["compiled after"]) == (False, True)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=[pytest.mark.slow, needs_compiler])])
def test_matrices_read_in_several_streams_give_the_same_ids(backend):
    assert child(backend, "cpu")["streams:float32"]["same"] == [True] * 4


@pytest.mark.slow
@needs_compiler
def test_inductor_gives_the_uncompiled_logits(device):
    found = child("inductor", device.type)["steps:float32"]
    assert found["graphs"] == 1
    assert found["contiguous"] < TOLERANCE["float32"] and found["padded"] < TOLERANCE["float32"], found


def test_a_capture_of_a_compiled_model_sees_and_replaces():
    found = child("eager", "cpu")["capture:float32"]
    assert found["seen"] == [*(f"layers.{n}.attention_weights" for n in range(3)), "logits"]
    assert found["last logits"] == 0
    assert found["watched"] < TOLERANCE["float32"] and found["afterwards"] < TOLERANCE["float32"]
    assert found["more graphs"] == 0


def test_a_capture_is_not_ignored_by_a_model_that_was_compiled_whole():
    assert child("eager", "cpu")["whole:float32"] == {"model": ["layers.1.output"], "compiled": ["layers.1.output"]}


def test_tf32_is_off_while_tests_run():
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
