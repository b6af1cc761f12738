"""The figures that the gates prove of themselves are counted as they are said to be."""

import importlib.util
from pathlib import Path

import pytest

from llama_core.checkpoints.implementation import Implementation


@pytest.fixture(scope="module")
def proofs():
    file = Path(__file__).parents[2] / "benchmarks" / "proofs.py"
    spec = importlib.util.spec_from_file_location("proofs", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(*named):
    return {"named": list(named), "alternatives": [], "evidence": ""}


def test_a_way_counts_as_named_alone_or_within_its_class(proofs):
    found = {
        "ffn-relu": [told("ffn-relu")],
        "ffn-gelu": [told("ffn-gelu-tanh"), told("ffn-gelu")],
        "attention-no-scale": [told("attention-no-scale", "ffn-relu")],
        "norm-left-out": [told()],
    }
    half = proofs.named(found, "bfloat16")
    assert half == {"ways": 5, "named": 3, "not_named": ["attention-no-scale", "norm-left-out"]}
    assert proofs.named(found, "float32")["not_named"] == ["attention-no-scale", "ffn-gelu", "norm-left-out"]


def test_what_is_missed_has_its_signal_beside_tolerance_and_noise(proofs):
    found = proofs.caught("bfloat16")
    assert found["caught"] + len(found["missed"]) == found["total"]
    for missed in found["missed"].values():
        assert 0 < missed["signal"] <= missed["tolerance"] == 4 * missed["noise"]


def test_right_implementations_give_no_false_alarm_and_a_wrong_one_does(proofs, monkeypatch):
    found = proofs.right("1", "float32", range(1))
    assert {"llama_core", "loops", "transformers"} <= set(found["implementations"])
    assert found["false_alarms"] == 0 < found["checks"]
    assert 0 < found["nearest"]["error_in_tolerances"] < 1

    import right.kinds

    wrong = Implementation("wrong", lambda inputs, weights, config: 2 * inputs["layer_input"])
    monkeypatch.setattr(right.kinds, "right_implementations", lambda id: [wrong])
    found = proofs.right("1", "float32", range(1))
    assert found["false_alarms"] == found["checks"] > 0
