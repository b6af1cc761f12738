"""What is promised to be the same bits is; what is only near is within its published tolerance."""

import json
from pathlib import Path

import pytest

from llama_core.checkpoints import determinism
from llama_core.checkpoints.noise import DTYPES

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "determinism.json"


@pytest.fixture(scope="module", params=DTYPES)
def measurements(request):
    return {m.what: m for m in determinism.measure(request.param)}


@pytest.mark.slow
def test_the_same_pass_gives_the_same_bits_three_times(measurements):
    for n in (2, 3):
        assert measurements[f"the same pass, time {n} against time 1"].same_bits


def test_a_new_process_gives_the_same_bits(measurements):
    assert measurements["in a new process"].same_bits


def test_a_cache_fed_the_same_way_gives_the_same_bits(measurements):
    assert measurements["cached twice, one token at a time"].same_bits


def test_other_shapes_and_paths_are_within_the_published_tolerance(measurements):
    beyond = [(m.what, m.error, m.tolerance) for m in measurements.values() if not m.holds]
    assert beyond == []


def test_a_cache_that_loses_a_token_is_beyond_it():
    model, ids = determinism.random_model("float32")
    whole = model(ids)
    lost = determinism.in_chunks(model, ids.roll(1, dims=1), 1).roll(-1, dims=1)
    a, b = (x.detach().double().numpy()[:, 1:-1] for x in (lost, whole))
    committed = json.loads(RESULTS.read_text())["measurements"]
    near = next(m for m in committed if m["what"].startswith("cached, one") and m["dtype"] == "float32")
    assert determinism.error(a, b) > 100 * near["tolerance"]


def test_the_committed_table_covers_what_is_measured_and_holds(measurements):
    committed = json.loads(RESULTS.read_text())["measurements"]
    dtype = next(iter(measurements.values())).dtype
    assert [m["what"] for m in committed if m["dtype"] == dtype] == list(measurements)
    assert all(m["error"] <= m["tolerance"] for m in committed)
