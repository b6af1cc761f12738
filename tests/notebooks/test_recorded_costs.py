"""What `make notebooks` recorded of each notebook's time and memory: within what the workbook promises."""

import json

import pytest
from notebook_files import NOTEBOOKS, ROOT

RECORD = ROOT / "benchmarks" / "results" / "notebooks.json"


@pytest.fixture(scope="module")
def recorded() -> dict:
    if not RECORD.exists():
        pytest.skip("nothing is recorded yet: `make notebooks` measures")
    return json.loads(RECORD.read_text())["notebooks"]


def test_every_notebook_was_measured(recorded):
    assert set(recorded) == {path.stem for path in NOTEBOOKS}, "`make notebooks` measures all"


def test_each_works_less_than_a_minute_and_all_together_less_than_six(recorded):
    busy = {name: measured["cpu_seconds"] for name, measured in recorded.items()}
    assert max(busy.values()) < 60, busy
    assert sum(busy.values()) < 360, busy


def test_each_takes_less_than_a_gigabyte(recorded):
    memory = {name: measured["peak_memory_mb"] for name, measured in recorded.items()}
    assert max(memory.values()) < 1000, memory
