"""The proof that gates catch the catalogue, and that it counts only what it should."""

import json

import pytest

from llama_core.checkpoints.mistakes import CATALOGUE, Mistake, mistakes_for
from llama_core.checkpoints.prove import prove, prove_mistake
from llama_core.checkpoints.specification import CHECKPOINTS
from llama_core.checkpoints.steps import NO_CHANGES


@pytest.fixture(scope="module")
def proof():
    return prove("float32")


def test_every_mistake_is_caught_in_float32(proof):
    assert [c.mistake.id for c in proof.catches] == list(CATALOGUE)
    assert [c.mistake.id for c in proof.missed] == []


def test_signals_in_float32_stand_well_clear_of_the_tolerance(proof):
    assert min(c.ratio for c in proof.catches) > 100


def test_only_required_outputs_of_small_cases_count(proof):
    for c in proof.catches:
        checkpoint = CHECKPOINTS[c.checkpoint]
        assert not checkpoint.case(c.case).large
        generic = c.output if not c.output.startswith("layers.") else "layers.N." + c.output.split(".", 2)[2]
        assert generic in checkpoint.outputs


def test_the_exceptions_in_bfloat16_are_those_known_and_carry_their_signal():
    missed = prove("bfloat16").missed
    assert {c.mistake.id for c in missed} == {
        "norm-in-half-precision",
        "attention-softmax-in-half-precision",
        "model-spurious-head-bias",
    }
    assert all(0 < c.error <= c.tolerance for c in missed)


def test_the_exceptions_in_float16_are_those_known():
    assert {c.mistake.id for c in prove("float16").missed} == {"attention-softmax-in-half-precision"}


def test_a_change_that_changes_nothing_is_not_caught():
    words = dict.fromkeys(("title", "looks_like", "why", "mend"), "Nothing.")
    nothing = Mistake(id="nothing", checkpoint="3", notebook="03_attention#mask", changes=NO_CHANGES, **words)
    caught = prove_mistake(nothing)
    assert not caught.caught
    assert caught.error == 0


def test_a_mistake_is_caught_only_if_it_is_in_each_of_its_ways():
    words = dict.fromkeys(("title", "looks_like", "why", "mend"), "Half.")
    seen = CATALOGUE["attention-no-scale"].changes
    for ways in ((seen, NO_CHANGES), (NO_CHANGES, seen)):
        half = Mistake(id="half", checkpoint="3", notebook="03_attention#mask", changes=ways[0], also=ways[1:], **words)
        assert not prove_mistake(half).caught


def test_counts_and_json_say_the_same(proof):
    told = json.loads(json.dumps(proof.to_json(), allow_nan=False))
    assert told["total"] == len(CATALOGUE) == sum(total for _, total in proof.counts().values())
    assert proof.counts()["3"] == (len(mistakes_for("3")),) * 2
    assert len(told["mistakes"]) == told["caught"]
    assert f"{told['total']} of {told['total']} caught in float32" in str(proof)
