"""Mistakes in one layer of a whole model are located at the right tensor and named, with much or little to go by.

A sample of ``tools/cause_table.py``, which plants the whole catalogue and records the shares.
"""

import pytest
from cause_sweep import KINDS, PAIRS, results, swept
from whole_models import replaced

#: id -> the tensor that is the first to be wrong, by hand.
FULL = {
    "norm-eps-1e-3": "attention_norm",
    "qkv-coordinates-before-heads": "q",
    "qkv-spurious-bias": "q",
    "rope-values-rotated": "v",
    "rope-positions-restart": "q_rotated",
    "rope-keys-not-rotated": "k_rotated",
    "cache-last-slot-overwritten": "cache_k",
    "qk-norm-after-rotation": "q",
    "attention-window-counts-padding": "masked_scores",
    "attention-heads-tiled": "scores",
    "attention-mask-shows-one-future-token": "masked_scores",
    "attention-nan-for-hidden-row": "attention_weights",
    "attention-mask-top-left": "attention_context",
    "output-heads-by-rank": "attention_output",
    "block-first-residual-missing": "attention_residual",
    "block-parallel-residual": "ffn_norm",
    "ffn-gelu-tanh": "ffn_activation",
    "ffn-no-gate": "ffn_hidden",
    "block-second-residual-from-input": "output",
}
BOUNDARIES = {
    "norm-weight-ignored": "cache_k",
    "rope-pairs-swapped": "cache_k",
    "qkv-v-from-k": "cache_v",
    "attention-scale-d": "output",
    "output-heads-reversed": "output",
    "ffn-gate-and-up-swapped": "output",
}
TRANSFORMERS = {
    "norm-one-plus-weight": "attention_norm",
    "qkv-k-and-v-swapped": "k",
    "rope-sign-flipped": "q_rotated",
    "cache-keys-rotated-again": "cache_k",
    "cache-last-slot-overwritten": "cache_k",
    "attention-no-scale": "scores",
    "attention-mask-after-softmax": "attention_weights",
    "attention-nan-for-hidden-row": "attention_weights",
    "attention-mask-top-left": "masked_scores",
    "ffn-relu": "ffn_activation",
    "block-norms-swapped": "attention_norm",
}
STATISTICS = ("norm-without-root", "rope-queries-not-rotated", "attention-mask-inverted", "qkv-v-from-k")
#: Errors with a number or an order in them, which is read off the candidate.
FITTED = {"2 rows of k rolled": "k-coordinates-in-another-order", "2 q doubled": "q-times-2"}
OUTSIDE = ("1 weight squared", "3 ALiBi", "5 mish", "6 attention halved", *FITTED)


def row(kind, ids, id):
    return next(row for row in results(kind, *ids) if row["id"] == id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "id", "tensor"),
    [
        (kind, id, tensor)
        for kind, first in (
            ("plain-full", FULL),
            ("plain-boundaries", BOUNDARIES),
            ("transformers-full", TRANSFORMERS),
        )
        for id, tensor in first.items()
    ],
)
def test_a_planted_mistake_is_located_and_named(kind, id, tensor):
    first = {"plain-full": FULL, "plain-boundaries": BOUNDARIES, "transformers-full": TRANSFORMERS}[kind]
    if kind.startswith("transformers"):
        pytest.importorskip("transformers")
    found = row(kind, first, id)
    assert found["first"].startswith(("layers.1.", "layers.2.")) and found["first"].endswith(f".{tensor}"), found
    assert found["located"], found
    assert found["was named"], found


def test_every_mistake_of_the_catalogue_can_be_planted_in_a_whole_model():
    assert all(replaced(id) for kind in KINDS if kind.startswith("plain") for id in swept(kind))


@pytest.mark.parametrize("id", STATISTICS)
def test_from_statistics_alone_the_layer_is_found(id):
    found = row("plain-statistics", STATISTICS, id)
    assert not found["passed"] and found["located"], found


@pytest.mark.parametrize("pair", PAIRS[:3])
def test_of_two_mistakes_the_first_is_found_and_after_mending_it_the_second(pair):
    id = " + ".join(pair)
    found = row("pairs", [" + ".join(pair) for pair in PAIRS[:3]], id)
    assert found["located"] and found["was named"], found


@pytest.mark.slow
@pytest.mark.parametrize("id", OUTSIDE)
def test_an_error_of_no_known_kind_is_not_taken_for_a_known_mistake(id):
    found = row("outside", OUTSIDE, id)
    assert not found["passed"] and found["located"] and not found["was named"], found


@pytest.mark.parametrize("id", FITTED)
def test_a_factor_and_an_order_are_read_off_the_candidate(id):
    assert row("outside", OUTSIDE, id)["named"] == [FITTED[id]]


@pytest.mark.slow
def test_both_engines_are_right_without_a_mistake():
    pytest.importorskip("transformers")
    ids = [
        "plain padded",
        "transformers padded",
        "transformers long",
        "transformers chunked",
        "plain llama3",
        "transformers yarn",
    ]
    assert [found["id"] for found in results("right", *ids) if not found["passed"]] == []
