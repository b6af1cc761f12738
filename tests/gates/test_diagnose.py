"""The cause of wrong values: named if it is known, not named if it is not, and located in any case."""

import dataclasses

import numpy as np
import pytest
from observed import observe
from outside import OUTSIDE
from sweep import CHECKPOINTS_SWEPT, results

from llama_core.checkpoints.diagnose import diagnose
from llama_core.checkpoints.locate import locate
from llama_core.checkpoints.mistakes import CATALOGUE, classes_at, combine, mistakes_for
from llama_core.checkpoints.specification import CHECKPOINTS
from llama_core.checkpoints.steps import NO_CHANGES, Changes


def is_named(id, named, dtype) -> bool:
    """Alone, or as one of its class."""
    checkpoint_id = CATALOGUE[id].checkpoint
    return len(named) == 1 and any({id, *named} <= alike for alike in [{id}, *classes_at(checkpoint_id, dtype)])


@pytest.mark.slow
@pytest.mark.parametrize("id", CATALOGUE)
def test_every_mistake_is_named_on_values_that_do_not_ship(id):
    for found in results("named", "float32")[id]:
        assert is_named(id, found["named"], "float32"), found


# These are too close to the noise of right implementations; the proof of the gates says so, too.
UNNAMED_IN_BFLOAT16 = {"norm-in-half-precision", "attention-softmax-in-half-precision"}


@pytest.mark.slow
@pytest.mark.parametrize("id", [m.id for m in CATALOGUE.values() if m.checkpoint in CHECKPOINTS_SWEPT["bfloat16"]])
def test_every_mistake_is_named_in_bfloat16_save_those_within_its_noise(id):
    for found in results("named", "bfloat16")[id]:
        assert is_named(id, found["named"], "bfloat16") != (id in UNNAMED_IN_BFLOAT16), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint_id", "name", "dtype"),
    [(*error[:2], dtype) for error in OUTSIDE for dtype, at in CHECKPOINTS_SWEPT.items() if error[0] in at],
)
def test_no_name_is_given_to_an_error_outside_the_catalogue(checkpoint_id, name, dtype):
    found = results("outside", dtype)[f"{checkpoint_id} {name}"]
    assert found["named"] == []
    assert found["alternatives"] == []


def test_there_are_fifty_errors_outside_the_catalogue():
    assert len({(id, name) for id, name, _ in OUTSIDE}) >= 50


PAIRS = [
    ("1", "norm-one-plus-weight", "norm-eps-1e-3"),
    ("1B", "rope-theta-500000", "rope-sign-flipped"),
    ("2", "qkv-bias-ignored", "qkv-v-from-k"),
    ("3", "attention-no-scale", "attention-heads-tiled"),
    ("3", "attention-mask-top-left", "attention-first-head-for-all"),
    ("5", "ffn-gelu", "ffn-bias-ignored"),
    ("6", "attention-no-scale", "ffn-gate-and-up-swapped"),
    ("7", "model-head-tied", "model-final-norm-missing"),
    ("9", "sampling-top-k-one-more", "sampling-not-renormalised"),
]


@pytest.mark.parametrize(("checkpoint_id", "first", "second"), PAIRS)
def test_a_pair_of_mistakes_is_named(checkpoint_id, first, second):
    both = combine(CATALOGUE[first].changes, CATALOGUE[second].changes)
    found = diagnose(CHECKPOINTS[checkpoint_id], observe(checkpoint_id, both))
    assert {m.id for m in found.mistakes} == {first, second}, found.evidence


def test_evidence_states_distance_and_runner_up():
    found = diagnose(CHECKPOINTS["3"], observe("3", CATALOGUE["attention-heads-tiled"].changes))
    assert found.evidence.startswith('matches "key/value heads are tiled instead of repeated" to ')
    assert "times worse" in found.evidence


def test_nothing_is_wrong_with_right_values():
    found = diagnose(CHECKPOINTS["3"], observe("3", NO_CHANGES))
    assert found.mistake is None
    assert found.evidence == "nothing is wrong"


def test_two_mistakes_that_fit_equally_are_both_listed_and_neither_named():
    # For a single token in a call, position 0 and a restart at 0 are one and the same.
    one_case = [
        o for o in observe("1B", CATALOGUE["rope-position-zero-when-decoding"].changes) if o[0].name == "decode"
    ]
    found = diagnose(CHECKPOINTS["1B"], one_case)
    assert found.mistake is None
    listed = {e.id for e in found.alternatives}
    assert {"rope-position-zero-when-decoding", "rope-positions-restart"} <= listed


def test_an_output_that_is_missing_does_not_hinder():
    observations = observe("1B", CATALOGUE["rope-keys-not-rotated"].changes)
    cut = [
        (case, inputs, weights, {"k_rotated": outputs["k_rotated"]}) for case, inputs, weights, outputs in observations
    ]
    assert diagnose(CHECKPOINTS["1B"], cut).mistake.id == "rope-keys-not-rotated"


def test_the_first_wrong_value_in_the_dataflow_is_where_it_starts():
    found = diagnose(CHECKPOINTS["6"], observe("6", CATALOGUE["attention-no-scale"].changes))
    assert "scores is wrong" in found.where
    assert "2.828 times the right value" in found.where


def spoilt(change):
    def fn(ctx, *arguments):
        x = np.array(ctx.right(ctx, *arguments))
        change(x)
        return x

    return fn


def test_an_unknown_error_is_located_by_head_and_position():
    def change(x):
        x[:, 3:, 2] += 0.5

    found = diagnose(CHECKPOINTS["1B"], observe("1B", Changes(steps={"q_rotated": spoilt(change)})))
    assert found.mistake is None
    assert found.evidence == "no known mistake gives these values"
    assert "q_rotated is wrong, confined to " in found.where
    assert "head 2" in found.where


REFERENCE = np.random.default_rng(3).standard_normal((2, 20, 4, 8))
POSITIONS = np.stack([np.arange(20), np.arange(5, 25)])


def located(candidate, **arguments) -> str:
    return str(locate("x", "B S H D", candidate, REFERENCE, 1e-6, **arguments))


def test_location_names_the_head_and_the_positions_from_which_on_it_is_wrong():
    candidate = REFERENCE.copy()
    candidate[0, 17:, 3] += 0.1
    candidate[1, 12:, 3] += 0.2
    candidate[1, 12:, 3, 1] += 0.3
    assert located(candidate, positions=POSITIONS).startswith("x is wrong, confined to positions >= 17, head 3")


def test_location_calls_padding_padding_and_no_position():
    positions = np.stack([np.arange(20) - 3, np.arange(20)])
    positions[0, :3] = -1
    candidate = REFERENCE.copy()
    candidate[0, :3] **= 3
    assert located(candidate, positions=positions) == "x is wrong, confined to row 0 of the batch, padding queries"
    candidate[0, 12:] **= 3
    assert "padding queries and positions >= 9" in located(candidate, positions=positions)
    candidate = REFERENCE.copy()
    candidate[0, 3:] **= 3
    assert located(candidate, positions=positions).endswith("row 0 of the batch, real tokens")


def test_location_names_a_row_of_the_batch_and_a_range_of_coordinates():
    candidate = REFERENCE.copy()
    candidate[1, :, :, 2:6] **= 3
    assert located(candidate) == "x is wrong, confined to row 1 of the batch, coordinates 2 to 5"


def test_location_does_not_count_padding():
    candidate = REFERENCE.copy()
    candidate[0, :4] = 99
    candidate[:, :, 1] **= 3
    kept = np.ones((2, 20, 1, 1), bool)
    kept[0, :4] = False
    assert located(candidate, kept=kept) == "x is wrong, confined to head 1"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda x: 0.125 * x, "it is 0.125 times the right value"),
        (lambda x: -x, "it is -1 times the right value"),
        (lambda x: 0 * x, "it is zero there"),
        (lambda x: x * np.nan, "it is NaN there"),
        (lambda x: x + np.arange(8), "the same constant is added at every position (up to 7)"),
        (lambda x: x[:, :, [1, 2, 3, 0]], "the right values in another order: head 0 holds those of 1"),
        (lambda x: x[..., [0, 2, 1, 3, 4, 5, 6, 7]], "coordinate 1 holds those of 2"),
        (lambda x: x.astype(np.float16).astype(np.float64), "every wrong value is a float16 number"),
    ],
)
def test_the_kind_of_an_error_is_described(change, kind):
    assert kind in located(change(REFERENCE))


def test_a_diagnosis_needs_no_case():
    """The core takes any evaluation: here two steps and one output, on numbers of its own."""
    from llama_core.checkpoints.case_configs import GROUPED
    from llama_core.checkpoints.context import Context
    from llama_core.checkpoints.diagnose import Observation, explain
    from llama_core.checkpoints.steps import LAYER_STEPS, evaluate

    steps = [s for s in LAYER_STEPS if s.name in ("ffn_activation", "ffn_hidden")]
    inputs = {"ffn_gate": REFERENCE[0, 0], "ffn_up": REFERENCE[0, 1]}

    def run(changes, arithmetic):
        return evaluate(Context(GROUPED, {}, dict(inputs), arithmetic), steps, changes)

    from llama_core.checkpoints.arithmetic import REFERENCE as EXACT

    gate, up = inputs["ffn_gate"], inputs["ffn_up"]
    candidate = {"ffn_hidden": np.maximum(gate, 0) * up}
    observation = Observation(
        "mine", candidate, run(NO_CHANGES, EXACT), {"ffn_hidden": 1e-6}, run, judged=("ffn_hidden",)
    )
    assert explain([observation], mistakes_for("5")).mistake.id == "ffn-relu"
    right = dataclasses.replace(observation, candidate={"ffn_hidden": gate / (1 + np.exp(-gate)) * up})
    assert explain([right], mistakes_for("5")).evidence == "nothing is wrong"
