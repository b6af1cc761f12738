"""The page of speed says what the record says, and a ratio is taken within a round."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def run():
    pytest.importorskip("transformers")
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_page_is_written_from_the_record(run, device):
    record = json.loads((FOLDER / "results" / f"speed-{device}.json").read_text())
    assert (FOLDER / "results" / f"speed-{device}.md").read_text() == run.as_markdown(record)


def test_a_round_that_is_slow_for_both_sides_leaves_the_ratio_alone(run):
    times = [{"ours": t, "transformers": 2 * t} for t in (1.0, 5.0, 1.0)]
    assert run.ratio(times, "ours") == 2.0 and run.median(times, "ours") == 1.0


def test_both_sides_run_in_every_round_and_once_before(run):
    calls = []
    times = run.side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "cpu")
    assert calls == ["a", "b"] * 4 and [set(t) for t in times] == [{"a", "b"}] * 3
