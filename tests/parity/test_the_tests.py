"""The parity tests can fail. ``tools/test_the_tests.py`` plants every mistake there is, this test the main ones."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "test_the_tests.py"
MISTAKES = [
    "attention scale dropped",
    "rotary scaling dropped",
    "rotary layout swapped",
    "mask shifted by one",
    "GQA tiled",
    "epsilon ten times too small",
    "padding ignored",
    "o_proj skipped",
    "gate and up swapped",
    "norms of a block swapped",
]


@pytest.mark.slow
def test_every_mistake_turns_a_test_red_and_every_parity_test_is_turned_red_by_one():
    run = subprocess.run([sys.executable, str(TOOL), *MISTAKES], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Tests that no mistake turns red: none" in run.stdout, run.stdout
