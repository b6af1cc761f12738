"""The script that continuous integration runs, with a stand-in for make."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT

CLOSING_LINE = "=================== 3 passed, 1 skipped in 4.20s ==================="
STAND_IN = f"""#!/usr/bin/env bash
echo "make $*"
[ "$1" = e2e ] && exit ${{STAND_IN_E2E_STATUS-0}}
echo "models=${{LLAMA_CORE_REAL_MODELS-unset}} required=${{LLAMA_CORE_REQUIRE_REAL-unset}}"
echo "{CLOSING_LINE}"
echo "make: a later line"
exit ${{STAND_IN_STATUS-0}}
"""
#: What the script needs besides bash; a machine that has these alone has neither Chromium nor apt-get.
PROGRAMS = ["bash", "cat", "dirname", "env", "grep", "id", "mktemp", "rm", "tail", "tee"]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the script and, in `bin`, a `make` that only reports how it was called."""
    clone = tmp_path / "clone"
    (clone / "bin").mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", clone / ".ci")
    (clone / "bin" / "make").write_text(STAND_IN)
    (clone / "bin" / "make").chmod(0o755)
    return clone


def run(clone: Path, status: int = 0, **variables: str) -> tuple[int, list[str]]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_CORE_") and key != "CI"}
    env |= {"PATH": f"{clone / 'bin'}:{env['PATH']}", "STAND_IN_STATUS": str(status), "CHROMIUM": "chromium"}
    result = subprocess.run(
        [shutil.which("bash"), clone / ".ci" / "run"], env=env | variables, capture_output=True, text=True
    )
    return result.returncode, result.stdout.splitlines()


@pytest.fixture
def without_chromium(clone) -> dict[str, str]:
    """The variables of a machine that has no Chromium and no way to install it."""
    programs = clone / "programs"
    programs.mkdir()
    for program in PROGRAMS:
        (programs / program).symlink_to(shutil.which(program))
    return {"CHROMIUM": "", "PATH": f"{clone / 'bin'}:{programs}"}


def test_ci_runs_the_test_command_of_the_readme(clone):
    _, lines = run(clone)
    assert lines[0] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()


def test_real_models_beside_the_clone_are_named_and_required(clone):
    models = clone.parent / "shared" / "real"
    models.mkdir(parents=True)
    _, lines = run(clone)
    assert lines[1] == f"models={models} required=1"


def test_without_real_models_nothing_is_required(clone):
    _, lines = run(clone)
    assert lines[1] == "models=unset required=unset"


def test_pytests_closing_line_comes_last(clone):
    _, lines = run(clone)
    assert lines[-1] == CLOSING_LINE


@pytest.mark.parametrize("status", [0, 2])
def test_ci_ends_with_the_status_of_the_tests(clone, status):
    assert run(clone, status)[0] == status


def test_the_browser_comes_after_the_tests(clone):
    _, lines = run(clone)
    assert [line for line in lines if line.startswith("make ")] == ["make test", "make e2e"]


def test_ci_fails_where_the_browser_does(clone):
    assert run(clone, STAND_IN_E2E_STATUS="3")[0] == 3


def test_the_status_of_the_tests_goes_before_that_of_the_browser(clone):
    assert run(clone, 2, STAND_IN_E2E_STATUS="3")[0] == 2


def test_a_person_without_chromium_is_told_that_the_browser_was_left_out(clone, without_chromium):
    status, lines = run(clone, **without_chromium)
    assert status == 0 and "make e2e" not in lines
    assert any(line.startswith("make e2e was left out") for line in lines)


def test_continuous_integration_without_chromium_fails(clone, without_chromium):
    status, lines = run(clone, CI="true", **without_chromium)
    assert status == 1 and lines[-1] == CLOSING_LINE
