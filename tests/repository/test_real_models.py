"""The fixture `real_models`: skipped where nobody names the folder, never skipped where it is required."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

USER = "def test_that_uses_them(real_models):\n    assert real_models.is_dir()\n"


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """A folder with this project's conftest and one test that asks for the models."""
    suite = tmp_path_factory.mktemp("suite")
    shutil.copy(ROOT / "tests" / "conftest.py", suite)
    (suite / "test_user.py").write_text(USER)
    return suite


def closing_line(suite: Path, **variables: object) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_CORE_")}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | {key: str(value) for key, value in variables.items()}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    return subprocess.run(command, cwd=suite, env=env, capture_output=True, text=True).stdout.splitlines()[-1]


def test_unset_skips(suite):
    assert closing_line(suite).startswith("1 skipped")


def test_a_folder_that_is_there_is_used(suite, tmp_path):
    assert closing_line(suite, LLAMA_CORE_REAL_MODELS=tmp_path).startswith("1 passed")


def test_a_folder_that_is_not_there_fails(suite, tmp_path):
    assert "1 error" in closing_line(suite, LLAMA_CORE_REAL_MODELS=tmp_path / "missing")


def test_required_and_unset_fails(suite):
    assert "1 error" in closing_line(suite, LLAMA_CORE_REQUIRE_REAL=1)
