"""The embedded model, held to what it was accepted for and to its own measurements."""

import json
from importlib.resources import files

import pytest
import sentencepiece
import torch

from llama_core.model import Llama
from llama_core.stories.measure import measure

FOLDER = files("llama_core") / "stories"
RECORDED = json.loads((FOLDER / "measurements.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured() -> dict:
    model = Llama.from_pretrained("stories", dtype="float32")
    return measure(model, sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model")))


@pytest.mark.slow
def test_at_least_90_of_100_stories_pass_the_rules(measured: dict):
    assert measured["stories_told"] == 100
    assert measured["stories_that_pass"] >= 90


@pytest.mark.slow
def test_a_head_gives_the_previous_token_a_weight_of_at_least_0_6(measured: dict):
    assert measured["previous_token_head"]["mean_weight"] >= 0.6


@pytest.mark.slow
def test_a_head_does_induction_with_a_weight_of_at_least_0_5(measured: dict):
    assert measured["induction_head"]["mean_weight"] >= 0.5


@pytest.mark.slow
def test_the_recorded_measurements_are_those_of_the_committed_model(measured: dict):
    assert measured["parameters"] == RECORDED["parameters"]
    loss = "held_out_loss_nats_per_token"
    assert measured[loss] == pytest.approx(RECORDED[loss], abs=1e-3)
    # Another machine's rounding may turn a few of the sampled stories.
    assert measured["stories_that_pass"] == pytest.approx(RECORDED["stories_that_pass"], abs=3)
    for head in ("previous_token_head", "induction_head"):
        assert (measured[head]["layer"], measured[head]["head"]) == (RECORDED[head]["layer"], RECORDED[head]["head"])
        assert measured[head]["mean_weight"] == pytest.approx(RECORDED[head]["mean_weight"], abs=1e-3)


def test_the_weights_are_bfloat16_and_leave_the_package_under_6_megabytes():
    model = Llama.from_pretrained("stories")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    package = sum(
        path.stat().st_size
        for path in (FOLDER / "..").resolve().rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert package < 6_000_000
