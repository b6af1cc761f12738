"""Mistakes of the catalogue, planted by hand in layer 1 of a whole model: found at the right tensor, and named."""

import pytest
from small_traces import golden, model
from traced_plain import planted

from llama_core.traces import compare

#: id -> the tensor that is the first to be wrong.
FIRST = {
    "norm-weight-ignored": "attention_norm",
    "norm-eps-1e-3": "attention_norm",
    "norm-in-half-precision": "attention_norm",
    "qkv-coordinates-before-heads": "q",
    "qkv-k-and-v-swapped": "k",
    "rope-values-rotated": "v",
    "rope-pairs-swapped": "q_rotated",
    "rope-position-plus-one": "q_rotated",
    "rope-frequencies-in-bfloat16": "q_rotated",
    "rope-keys-not-rotated": "k_rotated",
    "cache-keys-rotated-again": "cache_k",
    "cache-last-slot-overwritten": "cache_k",
    "attention-scale-d": "scores",
    "attention-heads-tiled": "scores",
    "attention-mask-shows-one-future-token": "masked_scores",
    "attention-softmax-over-queries": "attention_weights",
    "attention-mask-top-left": "attention_context",
    "attention-heads-merged-untransposed": "attention_context",
    "output-heads-by-rank": "attention_output",
    "block-first-residual-missing": "attention_residual",
    "block-parallel-residual": "ffn_norm",
    "ffn-gate-and-up-swapped": "ffn_gate",
    "ffn-gelu-tanh": "ffn_activation",
    "ffn-no-gate": "ffn_hidden",
    "block-second-residual-from-input": "output",
}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", rows=2, noise=("float32",))


@pytest.mark.parametrize("id", FIRST)
def test_a_planted_mistake_is_located_and_named(right, tmp_path, id):
    planted(id, 1).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model())
    assert result.first == f"layers.1.{FIRST[id]}", str(result)
    assert id in result.cause.ids, str(result.cause)
