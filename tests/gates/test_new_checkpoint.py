"""A new checkpoint is one entry in one table: gates, interface, exchange and proof follow from it."""

import json

import numpy as np
import pytest

from llama_core.checkpoints import check, checkpoint
from llama_core.checkpoints.case_configs import GROUPED
from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.definition import Checkpoint
from llama_core.checkpoints.exchange import export_cases
from llama_core.checkpoints.interface import interface, interface_facts
from llama_core.checkpoints.prove import prove
from llama_core.checkpoints.specification import CHECKPOINTS


def capped(inputs, weights, config, arithmetic, changes):
    return {**inputs, "capped": arithmetic.round(30 * np.tanh(inputs["logits"] / 30))}


@pytest.fixture
def soft_cap(monkeypatch):
    spec = Checkpoint(
        id="11",
        title="Soft cap",
        formula="30 · tanh(x / 30)",
        inputs={"logits": "B V"},
        outputs={"capped": "B V"},
        must_hold="values for small and large logits",
        procedure=capped,
        cases=(Case("wide", "logits of order 30", GROUPED, 1101, lambda s: {"logits": s.uniform(3, 61, std=30.0)}),),
        notebook="09_sampling",
        welcome={},
    )
    monkeypatch.setitem(CHECKPOINTS, "11", spec)
    return spec


def right(inputs, weights, config):
    return 30 * np.tanh(inputs["logits"] / 30)


def clipped(inputs, weights, config):
    return np.clip(inputs["logits"], -30, 30)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_gate_tells_right_from_wrong(soft_cap, dtype):
    assert check("11", right, dtype=dtype).passed
    wrong = check("11", clipped, dtype=dtype)
    assert not wrong.passed
    assert wrong.cause.evidence == "no known mistake gives these values"
    assert "capped is wrong" in wrong.cause.where


def test_its_interface_export_and_proof_follow(soft_cap, tmp_path):
    assert 'inputs["logits"]' in interface(soft_cap) and interface_facts(soft_cap)["outputs"] == {"capped": "B V"}
    (place,) = export_cases(soft_cap, tmp_path / "cases")
    described = json.loads((place / "case.json").read_text())
    assert described["outputs"]["capped"]["tolerance"] > 0
    answers = tmp_path / "answers" / "11" / "wide"
    answers.mkdir(parents=True)
    inputs, weights = checkpoint("11").case("wide").values()
    np.save(answers / "capped.npy", right(inputs, weights, None))
    assert check("11", results=tmp_path / "answers").passed
    assert prove("float32", ["11"]).catches == ()
