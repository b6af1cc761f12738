"""Cases as files for other languages, and the judgement of what comes back; one of those languages is C."""

import hashlib
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_core.checkpoints import check, checkpoint
from llama_core.checkpoints.exchange import README, export_cases, slug
from llama_core.checkpoints.noise import DTYPES, tolerance
from llama_core.checkpoints.procedures import run_procedure
from llama_core.errors import CheckpointError

SOURCE = Path(__file__).parent / "c" / "attention.c"


def small(id):
    return checkpoint(id).small_cases


def answer_rightly(cases, answers, id):
    """The expected values as answers, in float32."""
    for place in (cases / id).iterdir():
        expected = load_file(place / "expected.safetensors")
        target = answers / id / place.name
        target.mkdir(parents=True)
        tensors = {n: x.float() if x.is_floating_point() else x for n, x in expected.items()}
        save_file(tensors, target / "results.safetensors")


@pytest.mark.parametrize("id", ["0", "1", "3", "8", "10"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_expected_values_themselves_pass(tmp_path, id, dtype):
    export_cases(checkpoint(id), tmp_path / "cases", dtype, small(id))
    answer_rightly(tmp_path / "cases", tmp_path / "answers", id)
    assert check(id, results=tmp_path / "answers", dtype=dtype, cases=small(id)).passed


def test_files_hold_the_values_of_the_case_in_its_type(tmp_path):
    export_cases(checkpoint("2"), tmp_path, "bfloat16", small("2"))
    case = checkpoint("2").case("grouped")
    inputs, weights = case.values("bfloat16")
    reference = run_procedure(checkpoint("2").procedure, inputs, weights, case.config)
    stored = {
        name: load_file(tmp_path / "2" / "grouped" / f"{name}.safetensors")
        for name in ("inputs", "weights", "expected")
    }
    assert stored["inputs"]["attention_norm"].dtype == torch.bfloat16
    assert np.array_equal(stored["inputs"]["attention_norm"].double().numpy(), inputs["attention_norm"])
    assert np.array_equal(
        stored["weights"]["self_attn.v_proj.weight"].double().numpy(), weights["self_attn.v_proj.weight"]
    )
    assert stored["expected"]["q"].dtype == torch.float64
    assert np.array_equal(stored["expected"]["q"].numpy(), reference["q"])


def described(tmp_path, id, name, dtype="float32"):
    case = checkpoint(id).case(name)
    export_cases(checkpoint(id), tmp_path, dtype, [case])
    return case, json.loads((tmp_path / id / slug(name) / "case.json").read_text())


def test_the_description_has_axes_tolerances_and_the_configuration(tmp_path):
    case, document = described(tmp_path, "8", "left padding")
    assert document["config"]["num_key_value_heads"] == 2
    assert document["inputs"]["calls"]["shape"] == [4, 2]
    key = document["outputs"]["layers.1.cache_k"]
    assert key["axes"] == "B K T D" and key["required"] and key["padding_axes"] == ["T"]
    assert key["tolerance"] == tolerance(checkpoint("8"), case, "layers.1.cache_k", "float32")


def test_the_recipe_gives_the_stored_bits(tmp_path):
    """Every tensor drawn anew in plain Python integers from what case.json says."""
    _, document = described(tmp_path, "3", "decode")
    stored = load_file(tmp_path / "3" / "decode" / "inputs.safetensors")
    word = 2**64 - 1
    for draw, name in zip(document["draws"], ("q_rotated", "cache_k", "cache_v"), strict=True):
        values = []
        for n in range(math.prod(draw["shape"])):
            z = draw["seed"] + (n + 1) * 0x9E3779B97F4A7C15 & word
            z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & word
            z = (z ^ z >> 27) * 0x94D049BB133111EB & word
            values.append(((z ^ z >> 31) >> 40) - 2**23)
        drawn = np.array(values, np.float32) * np.float32(float.fromhex(draw["constant_hex"]))
        assert np.array_equal(stored[name].numpy().ravel(), drawn)
        assert hashlib.sha256(drawn.astype("<f4")).hexdigest() == draw["sha256"]


def test_every_weight_is_listed_with_its_draw(tmp_path):
    _, document = described(tmp_path, "7", "tied")
    assert {d["weight"] for d in document["draws"] if "weight" in d} == set(document["weights"]) - {"lm_head.weight"}


def test_a_large_case_stores_no_weights_but_how_to_draw_them(tmp_path):
    case = checkpoint("1").case("llama-2-7b")
    export_cases(checkpoint("1"), tmp_path, cases=[case])
    place = tmp_path / "1" / "llama-2-7b"
    document = json.loads((place / "case.json").read_text())
    assert not (place / "weights.safetensors").exists() and document["weights_stored"] is False
    draw = next(d for d in document["draws"] if d.get("weight") == "input_layernorm.weight")
    drawn = case.values()[1]["input_layernorm.weight"] - np.float32(1)
    assert draw["shape"] == [4096] and np.allclose(drawn.std(), 0.3, rtol=0.05)


def test_the_folder_explains_itself(tmp_path):
    export_cases(checkpoint("3"), tmp_path, cases=small("3")[:1])
    text = (tmp_path / "README.txt").read_text()
    assert text == README
    for fact in ("0x599ed017fb08fc85, 0x2c73f08458540fa5, 0x883ebce5a3f27c77", "results.safetensors", "NAME.npy"):
        assert fact in text


# What comes back


@pytest.fixture
def answers(tmp_path):
    """A right answer to one case of checkpoint 3, to be spoiled."""
    case = checkpoint("3").case("decode")
    export_cases(checkpoint("3"), tmp_path / "cases", cases=[case])
    answer_rightly(tmp_path / "cases", tmp_path / "answers", "3")
    return tmp_path / "answers"


def judged(answers):
    return check("3", results=answers, cases=[checkpoint("3").case("decode")])


def test_an_answer_may_be_numpy_files(answers):
    place = answers / "3" / "decode"
    tensors = load_file(place / "results.safetensors")
    (place / "results.safetensors").unlink()
    np.save(place / "attention_context.npy", tensors["attention_context"].numpy())
    assert judged(answers).passed


def test_a_missing_result_is_a_failure(answers):
    (answers / "3" / "decode" / "results.safetensors").unlink()
    result = judged(answers)
    assert not result.passed
    assert "no result: 3/decode/results.safetensors or 3/decode/attention_context.npy is not there" in result.problem


def test_the_folder_of_the_cases_is_not_taken_for_one_of_answers(answers):
    assert "these are the cases, not a program's answers" in judged(answers.parent / "cases").problem


def test_results_under_other_names_are_a_failure(answers):
    place = answers / "3" / "decode" / "results.safetensors"
    save_file({"out": load_file(place)["attention_context"]}, place)
    assert judged(answers).problem == "decode: attention_context is missing; there is out"


@pytest.mark.parametrize("content", [b"", b"\x10", b"<html>", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}rest"])
def test_a_damaged_safetensors_file_is_one_line(answers, content):
    (answers / "3" / "decode" / "results.safetensors").write_bytes(content)
    result = judged(answers)
    assert not result.passed
    assert "3/decode/results.safetensors is no safetensors file" in result.problem or "is missing" in result.problem
    assert "\n" not in result.problem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"\x93NUMPY\x01\x00\x38\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_a_damaged_numpy_file_is_one_line(answers, content):
    place = answers / "3" / "decode"
    (place / "results.safetensors").unlink()
    (place / "attention_context.npy").write_bytes(content)
    assert "3/decode/attention_context.npy is no array file" in judged(answers).problem


def test_a_result_of_another_shape_or_type_is_one_line(answers):
    place = answers / "3" / "decode" / "results.safetensors"
    right = load_file(place)["attention_context"]
    save_file({"attention_context": right.flatten(2)}, place)
    assert "has shape [2, 1, 32], expected [2, 1, 4, 8] = [B, S, H, D]" in judged(answers).problem
    save_file({"attention_context": right.half()}, place)
    assert "is float16, expected float32" in judged(answers).problem


def test_results_in_fortran_order_and_big_endian_are_read_as_they_are_meant(answers):
    place = answers / "3" / "decode"
    value = load_file(place / "results.safetensors")["attention_context"].numpy()
    (place / "results.safetensors").unlink()
    np.save(place / "attention_context.npy", np.asfortranarray(value.astype(">f4")))
    assert judged(answers).passed


def test_a_folder_that_is_not_there_is_an_error():
    with pytest.raises(CheckpointError, match="no such folder"):
        check("3", results="/nowhere/at/all")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint("3").export(tmp_path / "file")


# A program in C


@pytest.fixture(scope="module")
def attention_in_c(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path_factory.mktemp("c") / "attention"
    subprocess.run([compiler, "-std=c99", "-O2", "-Wall", "-Werror", "-o", program, SOURCE, "-lm"], check=True)
    return program


def run_in_c(program, tmp_path, *flags):
    export_cases(checkpoint("3"), tmp_path / "cases")
    (tmp_path / "answers").mkdir()
    subprocess.run([program, tmp_path / "cases" / "3", tmp_path / "answers" / "3", *flags], check=True)
    return check("3", results=tmp_path / "answers")


def test_a_c_program_that_reads_the_exported_cases_passes(attention_in_c, tmp_path):
    result = run_in_c(attention_in_c, tmp_path)
    assert result.passed, str(result)
    assert len(result.checks) == len(checkpoint("3").cases)


def test_a_c_program_of_a_plain_llama_fails_where_it_is_asked_for_a_window(attention_in_c, tmp_path):
    checkpoint("3").export(tmp_path / "cases", family="mistral")
    (tmp_path / "answers").mkdir()
    subprocess.run([attention_in_c, tmp_path / "cases" / "3", tmp_path / "answers" / "3"], check=True)
    result = check("3", results=tmp_path / "answers", family="mistral")
    assert result.cause.mistake.id == "attention-window-ignored"


def test_a_c_program_without_the_mask_is_told_so_by_name(attention_in_c, tmp_path):
    result = run_in_c(attention_in_c, tmp_path, "--without-mask")
    assert result.cause.mistake.id == "attention-no-mask-at-all"
    assert "no mask at all" in result.explanation()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tolerances_of_the_description_are_those_of_the_gate(tmp_path, dtype):
    case, document = described(tmp_path, "5", "ordinary", dtype)
    assert document["outputs"]["ffn_output"]["tolerance"] == tolerance(checkpoint("5"), case, "ffn_output", dtype)
