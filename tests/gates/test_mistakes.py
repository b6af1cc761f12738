"""The catalogue: complete, said in words, equivalent where it claims to be, and always of the right shape."""

import numpy as np
import pytest
from sweep import CHECKPOINTS_SWEPT, results

from llama_core.checkpoints.compare import error, kept_entries
from llama_core.checkpoints.mistakes import (
    CATALOGUE,
    EQUIVALENCE_CLASSES,
    candidates_for,
    classes_at,
    combine,
    mistake,
    mistakes_for,
)
from llama_core.checkpoints.noise import generic
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import CHECKPOINTS
from llama_core.errors import CheckpointError

#: How many the specification asks for at least, per checkpoint, from its list "Mistakes that a gate must catch".
AT_LEAST = {"1": 12, "1B": 13, "2": 7, "3": 16, "4": 3, "5": 5, "6": 7, "7": 7, "8": 5, "9": 5, "10": 4}


@pytest.mark.parametrize("checkpoint_id", AT_LEAST)
def test_the_catalogue_holds_at_least_what_is_asked_for(checkpoint_id):
    assert len(mistakes_for(checkpoint_id)) >= AT_LEAST[checkpoint_id]


@pytest.mark.parametrize("m", CATALOGUE.values(), ids=CATALOGUE)
def test_every_mistake_is_told_in_sentences_and_points_to_its_notebook(m):
    for sentence in (m.looks_like, m.why, m.mend):
        assert len(sentence.split()) >= 4
        assert sentence.endswith(".")
    assert not m.title.endswith(".")
    assert m.notebook.split("#")[0] == CHECKPOINTS[m.checkpoint].notebook
    assert m.origin == "" or m.origin.startswith("https://github.com/")


def test_a_third_of_the_catalogue_names_a_thread_of_people_who_met_it():
    assert sum(bool(m.origin) for m in CATALOGUE.values()) >= len(CATALOGUE) * 0.3


def test_an_unknown_name_is_answered_with_names_that_are_alike():
    with pytest.raises(CheckpointError) as caught:
        mistake("rope-pairs")
    assert "rope-pairs-swapped" in caught.value.expected


def test_candidates_are_the_checkpoints_own_first_and_then_those_inside_it():
    ids = [m.checkpoint for m in candidates_for("7")]
    assert ids[0] == "7"
    assert set(ids) == {"1", "1B", "2", "3", "4", "5", "6", "7"}
    assert {m.checkpoint for m in candidates_for("5")} == {"5"}


def outputs(checkpoint, case, changes=None):
    inputs, weights = case.values()
    arguments = {} if changes is None else {"changes": changes}
    values = run_procedure(checkpoint.procedure, inputs, weights, case.config, **arguments)
    return inputs, {name: v for name, v in values.items() if generic(name) in checkpoint.outputs}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_mistake_never_changes_a_shape(checkpoint):
    whole = checkpoint.id in ("6", "7", "8", "10")  # the parts of a model are tried one by one
    for case in (*checkpoint.small_cases[1:4], *checkpoint.neighbours) if whole else checkpoint.every_small_case:
        _, right = outputs(checkpoint, case)
        shapes = {name: (v.shape, v.dtype.kind) for name, v in right.items()}
        tried = mistakes_for(checkpoint.id) if whole else candidates_for(checkpoint.id)
        for id, way in [(m.id, way) for m in tried for way in m.ways]:
            _, wrong = outputs(checkpoint, case, way)
            assert {name: (v.shape, v.dtype.kind) for name, v in wrong.items()} == shapes, (id, case.name)


EQUIVALENT = [
    ("rope-position-plus-one", "7", "left padding"),
    ("rope-positions-restart", "7", "untied"),
    ("rope-positions-of-first-row", "7", "untied"),
    ("rope-scaling-ignored", "1B", "half"),
    ("rope-positions-in-bfloat16", "1B", "half"),
    ("attention-heads-tiled", "3", "square"),
    ("attention-mask-top-left", "3", "prefill"),
    ("attention-mask-never-applied", "3", "decode"),
    ("attention-mask-shows-one-future-token", "3", "decode"),
    ("attention-heads-merged-untransposed", "3", "decode"),
    ("attention-mask-after-softmax", "3", "decode"),
    ("attention-padding-ignored", "3", "chunk"),
    ("attention-lowest-number-for-mask", "3", "chunk"),
    ("attention-nan-for-hidden-row", "3", "prefill"),
    ("attention-window-ignored", "3", "prefill"),
    ("attention-window-one-more", "3", "left padding"),
    ("attention-window-one-less", "3", "chunk"),
    ("attention-window-in-the-call", "3", "mistral prefill"),
    ("attention-window-of-the-last-query", "3", "mistral decode"),
    ("attention-window-counts-padding", "3", "mistral left padding"),
    ("qk-norm-missing", "2", "grouped"),
    ("qk-norm-over-all-heads", "2", "qwen2"),
    ("qk-norms-swapped", "2", "square"),
    ("qk-norm-after-rotation", "6", "grouped"),
    ("qkv-weight-transposed", "2", "grouped"),
    ("qkv-q-and-k-swapped", "2", "grouped"),
    ("qkv-bias-ignored", "2", "grouped"),
    ("output-projection-skipped", "4", "grouped"),
    ("output-heads-by-rank", "4", "square"),
    ("ffn-bias-ignored", "5", "ordinary"),
    ("model-head-tied", "7", "tied"),
    ("model-head-not-tied", "7", "untied"),
    ("generation-padding-shifts-positions", "7", "left padding"),
    ("generation-character-cut", "10", "batch"),
    ("sampling-temperature-ignored", "9", "plain"),
    ("sampling-top-k-one-more", "9", "hot"),
    ("sampling-top-p-before-temperature", "9", "top-p"),
]


@pytest.mark.parametrize(("id", "checkpoint_id", "case_name"), EQUIVALENT)
def test_a_mistake_is_invisible_where_it_is_said_to_be(id, checkpoint_id, case_name):
    checkpoint = CHECKPOINTS[checkpoint_id]
    case = checkpoint.case(case_name)
    inputs, right = outputs(checkpoint, case)
    _, wrong = outputs(checkpoint, case, CATALOGUE[id].changes)
    for name in right:
        assert error(wrong[name], right[name], kept_entries(checkpoint_id, name, inputs)) < 1e-12, name


def test_the_ways_to_make_one_mistake_differ_in_their_values():
    for m in CATALOGUE.values():
        for way in m.also:
            checkpoint = CHECKPOINTS[m.checkpoint]
            differ = [
                error(outputs(checkpoint, case, way)[1][name], usual) > 1e-3
                for case in checkpoint.small_cases
                for name, usual in outputs(checkpoint, case, m.changes)[1].items()
            ]
            assert any(differ), m.id


def test_two_mistakes_act_together_whichever_steps_they_change():
    """No scale and no mask: softmax(q·k)·v over everything, written out."""
    checkpoint = CHECKPOINTS["3"]
    inputs, _ = checkpoint.case("square").values()
    both = combine(CATALOGUE["attention-no-scale"].changes, CATALOGUE["attention-mask-never-applied"].changes)
    _, wrong = outputs(checkpoint, checkpoint.case("square"), both)
    scores = np.einsum("bshd,bhtd->bhst", inputs["q_rotated"], inputs["cache_k"])
    e = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhst,bhtd->bshd", e / e.sum(-1, keepdims=True), inputs["cache_v"])
    np.testing.assert_allclose(wrong["attention_context"], expected, rtol=1e-12)


def test_the_second_of_two_mistakes_in_one_step_starts_from_the_first():
    """1 + weight, then the mean subtracted: both act on the same norm."""
    checkpoint = CHECKPOINTS["1"]
    case = checkpoint.case("ordinary")
    inputs, weights = case.values()
    both = combine(CATALOGUE["norm-one-plus-weight"].changes, CATALOGUE["norm-mean-subtracted"].changes)
    _, wrong = outputs(checkpoint, case, both)
    x = inputs["layer_input"] - inputs["layer_input"].mean(-1, keepdims=True)
    expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * (1 + weights["input_layernorm.weight"])
    np.testing.assert_allclose(wrong["attention_norm"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("checkpoint_id", "dtype"), [(id, dtype) for dtype, ids in CHECKPOINTS_SWEPT.items() for id in ids]
)
def test_equivalence_classes_are_those_that_are_committed(checkpoint_id, dtype):
    found = results("classes", dtype)[checkpoint_id]
    assert sorted(found) == sorted(sorted(members) for members in classes_at(checkpoint_id, dtype))


def test_every_class_says_why():
    for c in EQUIVALENCE_CLASSES:
        assert len(c.mistakes) > 1
        assert c.mistakes <= set(CATALOGUE)
        assert c.because.endswith(".")
