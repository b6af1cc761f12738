"""The Makefile: its help is complete and true, and it says what is missing."""

import importlib.util
import re
import shutil
import subprocess

import pytest
from checkout import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
PHONY = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split()
PYTHON_CALLS = dict(re.findall(r"^([a-z0-9-]+):.* ## .* \| (.*)$", MAKEFILE, re.MULTILINE))

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)


@needs_make
def test_make_alone_prints_the_help():
    assert make().stdout == make("help").stdout != ""


@needs_make
@pytest.mark.parametrize("target", PHONY)
def test_help_lists_each_target_with_its_python_call(target):
    lines = make("help").stdout.splitlines()
    (position,) = (n for n, line in enumerate(lines) if line.split()[:2] == ["make", target])
    assert lines[position + 1].strip() == PYTHON_CALLS[target]


def test_every_target_without_a_file_is_phony():
    assert set(PHONY) == set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("target", PHONY)
def test_the_python_call_of_a_target_names_what_exists(target):
    for module in re.findall(r"python -m ([\w.]+)", PYTHON_CALLS[target]):
        runnable = importlib.util.find_spec(module)
        if runnable and runnable.submodule_search_locations:
            runnable = importlib.util.find_spec(f"{module}.__main__")
        assert runnable, f"python -m {module} does not run"
    for script in re.findall(r"python (\w+/\w+\.py)", PYTHON_CALLS[target]):
        assert (ROOT / script).is_file(), f"there is no {script}"


@needs_make
def test_without_a_recent_python_make_says_so(tmp_path):
    result = make("run", f"VENV={tmp_path / 'none'}", "PYTHON=false")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert not (tmp_path / "none").exists()


@needs_make
def test_the_cpu_build_of_torch_is_taken_only_on_request(tmp_path):
    usual = make("--dry-run", "run", f"VENV={tmp_path / 'none'}").stdout
    small = make("--dry-run", "run", f"VENV={tmp_path / 'none'}", "TORCH=cpu").stdout
    assert "whl/cpu" not in usual
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in small
