"""``llama-core check`` and ``llama-core explain``: what they print and the status they end with."""

import json
import subprocess
import sys

import pytest

from llama_core.checkpoints import CHECKPOINTS
from llama_core.checkpoints.mistakes import CATALOGUE
from llama_core.checkpoints.noise import DTYPES
from llama_core.checkpoints.result import WIDTH
from llama_core.cli import main

NORM = """
import numpy as np

def right(inputs, weights, config):
    x = inputs["layer_input"].astype(np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weights["input_layernorm.weight"]

def without_weight(inputs, weights, config):
    return right(inputs, weights, config) / weights["input_layernorm.weight"]

def other_eps(inputs, weights, config):
    x = inputs["layer_input"].astype(np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights["input_layernorm.weight"]
"""


@pytest.fixture
def norm(tmp_path):
    (tmp_path / "norm.py").write_text(NORM)
    return str(tmp_path / "norm.py")


@pytest.fixture
def llama_core(capsys):
    """Runs a command line; returns its status, standard output and standard error."""

    def run(*argv):
        status = main(argv)
        return status, *capsys.readouterr()

    return run


def lines_fit(text):
    """Whether no line is wider; a path, which is never broken, may stand out of its line."""
    fits = [len(line) <= WIDTH or line.startswith("/") for line in text.splitlines()]
    return all(fits) and "\x1b" not in text


def test_all_gates_are_one_line_each_then_pass(llama_core):
    status, out, _ = llama_core("check", "--fast")
    lines = out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines[1 : 1 + len(CHECKPOINTS)]] == list(CHECKPOINTS)
    assert all("PASS" in line for line in lines[1 : 1 + len(CHECKPOINTS)])
    assert lines[-1] == "PASS  12 of 12 checkpoints"
    assert lines_fit(out)


def test_verbose_tells_error_tolerance_and_where_it_comes_from(llama_core):
    status, out, _ = llama_core("check", "1b", "--verbose", "--fast", "--dtype", "bfloat16")
    assert status == 0
    assert "q_rotated" in out and "× floor" in out and "noise.json" in out
    assert lines_fit(out)


def test_a_wrong_implementation_is_status_1_and_named(llama_core, norm):
    status, out, _ = llama_core("check", "1", "--implementation", f"{norm}:other_eps", "--fast")
    assert status == 1
    assert "FAIL at checkpoint 1, RMSNorm" in out and "llama-core explain norm-eps-1e-6" in out
    assert lines_fit(out)


def test_a_right_implementation_is_status_0(llama_core, norm):
    assert llama_core("check", "1", "--implementation", f"{norm}:right")[0] == 0


@pytest.mark.parametrize(
    "argv",
    [
        ["check", "12"],
        ["check", "--dtype", "int8"],
        ["check", "--device", "abacus"],
        ["check", "1", "--implementation", "nowhere.py:run"],
        ["check", "1", "--implementation", "no_colon"],
        ["check", "1", "--results", "/nowhere/at/all"],
        ["check", "1", "--model", "/nowhere/at/all"],
        ["check", "--device", "meta"],
        ["check", "1", "--export", ""],
        ["check", "1", "--results", ""],
        ["check", "1", "--implementation", ""],
        ["check", "1", "--model", ""],
        ["check", "1", "--report", ""],
        ["check", "1", "--prove", "--model", "stories"],
        ["explain", "nothing-of-this-name-zzz"],
    ],
)
def test_unusable_input_is_status_2_and_one_message(llama_core, argv):
    status, out, err = llama_core(*argv)
    assert status == 2
    assert err.startswith("llama-core: ")
    assert "PASS" not in out and "FAIL" not in out


def test_json_is_for_machines(llama_core, norm):
    status, out, _ = llama_core("check", "1", "--implementation", f"{norm}:other_eps", "--fast", "--json")
    document = json.loads(out)
    assert status == 1 and document["passed"] is False
    assert document["checkpoints"][0]["cause"]["mistake"] == "norm-eps-1e-6"
    assert document["environment"]["torch"]


@pytest.mark.parametrize("id", CHECKPOINTS)
def test_the_interface_names_every_input_and_output(llama_core, id):
    status, out, _ = llama_core("check", id, "--interface")
    assert status == 0
    spec = CHECKPOINTS[id]
    for name, axes in (spec.inputs | spec.outputs | spec.welcome).items():
        assert name in out and f"[{', '.join(axes.split())}]" in out
    assert spec.must_hold in " ".join(out.split())
    assert lines_fit(out)


def test_the_interface_as_json_holds_the_same_names(llama_core):
    status, out, _ = llama_core("check", "5", "--interface", "--json")
    (told,) = json.loads(out)
    assert status == 0
    assert told["outputs"] == CHECKPOINTS["5"].outputs and told["welcome"] == CHECKPOINTS["5"].welcome
    assert told["weights"]["mlp.up_proj.bias"] == {"axes": "F", "when": "where config.mlp_bias"}


@pytest.mark.parametrize("columns", ["60", "80", "100", "300"])
def test_text_is_as_wide_as_the_terminal_and_never_wider_than_a_reader_likes(llama_core, norm, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    for argv in (["check", "1", "--implementation", f"{norm}:other_eps", "--fast"], ["explain", "norm-eps-1e-6"]):
        _, out, _ = llama_core(*argv)
        longest = max(len(line) for line in out.splitlines() if "norm.py" not in line and "http" not in line)
        assert longest <= min(int(columns), WIDTH), out
    _, out, _ = llama_core("explain", "norm-eps-1e-6")
    assert max(map(len, out.splitlines())) > min(int(columns), WIDTH) - 25  # and it makes use of it


def test_export_then_results_in_another_run(llama_core, tmp_path):
    status, out, _ = llama_core("check", "9", "--export", str(tmp_path / "cases"))
    assert status == 0 and str(tmp_path / "cases" / "9" / "top-k") in out
    (tmp_path / "answers").mkdir()
    status, out, _ = llama_core("check", "9", "--results", str(tmp_path / "answers"))
    assert status == 1 and "no result: 9/plain/results.safetensors" in " ".join(out.split())


def test_prove_counts_what_is_caught(llama_core):
    status, out, _ = llama_core("check", "5", "--prove")
    caught = sum(m.checkpoint == "5" for m in CATALOGUE.values())
    assert status == 0 and f"checkpoint 5: {caught} of {caught} caught" in out


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_embedded_model_passes_on_its_own_weights(dtype):
    # In a process of its own, without the checks of types that the tests add: they cost minutes here.
    command = [sys.executable, "-m", "llama_core", "check", "--model", "stories", "--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("PASS  12 of 12 checkpoints\n")


def test_a_wrong_implementation_fails_on_the_embedded_models_weights(llama_core, norm):
    assert llama_core("check", "1", "--model", "stories", "--implementation", f"{norm}:right")[0] == 0
    assert llama_core("check", "1", "--model", "stories", "--implementation", f"{norm}:without_weight")[0] == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_real_model_passes_on_its_own_weights(llama_core, real_models, dtype):
    status, out, _ = llama_core("check", "--model", str(real_models / "stories260K"), "--dtype", dtype)
    assert status == 0, out


def test_a_wrong_model_implementation_fails_on_a_real_models_weights(llama_core, real_models, norm):
    folder = str(real_models / "stories260K")
    status, out, _ = llama_core("check", "1", "--model", folder, "--implementation", f"{norm}:right")
    assert status == 0
    status, out, _ = llama_core("check", "1", "--model", folder, "--implementation", f"{norm}:other_eps")
    assert status == 1


# explain


@pytest.mark.parametrize("id", CATALOGUE)
def test_every_mistake_is_explained_within_the_width(llama_core, id):
    status, out, _ = llama_core("explain", id)
    assert status == 0
    for heading in ("looks like", "why", "mend", "caught by", "taught in"):
        assert f"  {heading} " in out
    assert lines_fit("\n".join(line for line in out.splitlines() if "http" not in line))


def test_an_unknown_id_suggests_the_nearest(llama_core):
    _, _, err = llama_core("explain", "rope-pair-swapd")
    assert "did you mean rope-pairs-swapped" in err


def test_without_an_id_all_are_listed(llama_core):
    status, out, _ = llama_core("explain")
    assert status == 0 and all(id in out for id in CATALOGUE)
    assert lines_fit(out)
    _, out, _ = llama_core("explain", "--json")
    assert [m["id"] for m in json.loads(out)] == list(CATALOGUE)


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
def test_a_timeout_that_is_no_time_is_refused_before_anything_runs(seconds):
    done = subprocess.run(
        [sys.executable, "-m", "llama_core", "check", "3", "--timeout", seconds], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "seconds above 0" in done.stderr and done.stdout == "" and "Traceback" not in done.stderr
