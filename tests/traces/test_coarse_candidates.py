"""Right candidates that show less than they computed: coarser files than their arithmetic, or statistics alone."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_traces import CONFIG, edit_manifest, golden, model
from traced_plain import planted

from llama_core.traces import Trace, TraceWriter, compare, record
from llama_core.traces.recorder import plan_like


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", noise=("float32", "bfloat16", "float16"))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A model with heads of few coordinates: what storage rounds of q and k weighs most in its scores."""
    made = model(hidden_size=64, num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    return made, golden(tmp_path_factory.mktemp("traces") / "narrow", made, noise=("float32", "bfloat16", "float16"))


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_what_is_computed_in_float32_and_stored_in_half_precision_is_right(narrow, tmp_path, stored):
    made, right = narrow
    trace = record(made, None, tmp_path / "c", plan=plan_like(right), storage_dtype=stored)
    assert trace.manifest.compute_dtype == "float32"
    result = compare(right, trace, model=made)
    assert result.passed, str(result)


def test_bare_half_precision_files_of_a_float32_engine_are_right(narrow, tmp_path):
    made, right = narrow
    tokens = torch.tensor([[token for call in right.calls for token in call.input_ids[0].tolist()]])
    trace = record(made, tokens, tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    for name, _ in trace.records:
        if name not in ("input_ids", "position_ids"):
            np.save(tmp_path / "bare" / f"{name}.npy", trace.values(name, 0).astype(np.float16))
    result = compare(right, tmp_path / "bare", model=made)
    assert result.passed, str(result)


@pytest.mark.parametrize("id", ["ffn-relu", "attention-no-scale", "attention-heads-tiled"])
def test_a_mistake_is_still_found_where_files_are_coarser_than_the_arithmetic(right, tmp_path, id):
    planted(id, 1).trace(model(), right.calls, tmp_path / "whole")
    whole = Trace.open(tmp_path / "whole")
    with TraceWriter(tmp_path / "c", replace(whole.manifest, tensors=[], storage_dtype="float16")) as writer:
        for (name, call), found in whole.records.items():
            writer.add(name, whole.values(name, call), found.rows, call=call)
    fine, coarse = (compare(right, tmp_path / name, model=model()) for name in ("whole", "c"))
    assert coarse.first == fine.first and coarse.first.startswith("layers.1.")
    assert coarse.cause.ids == fine.cause.ids == (id,)


# Statistics alone


def test_statistics_of_a_right_engine_are_right(right, tmp_path):
    record(model(), None, tmp_path / "c", plan=plan_like(right), statistics_only=True)
    result = compare(right, tmp_path / "c")
    assert result.passed, str(result)
    assert result.line("layers.1.q").rows == 9 and "by its statistics" in result.line("layers.1.q").note


def test_statistics_against_statistics_whose_noise_is_not_known_are_not_passed(right, tmp_path):
    few = record(model(), None, tmp_path / "few", plan=plan_like(right), statistics_only=True)
    planted("ffn-relu", 1).trace(model(), right.calls, tmp_path / "c", statistics_only=True)
    result = compare(few, tmp_path / "c", model=model())
    assert not result.passed and "no noise known" in str(result)


def test_statistics_of_other_calls_are_told_from_what_is_missing(right, tmp_path):
    record(model(), [[token for call in right.calls for token in call.input_ids[0].tolist()]], tmp_path / "one",
           statistics_only=True)  # fmt: skip
    result = compare(right, tmp_path / "one")
    assert not result.passed
    assert {f.kind for f in result.findings if f.name == "layers.0.q"} == {"statistics"}


def test_keys_far_behind_the_golden_text_take_no_room(right, tmp_path):
    """In one array up to the last key these scores would take a quarter of a gigabyte for each row."""
    planted("ffn-relu", 1).trace(model(), right.calls, tmp_path / "c")

    def far(document):
        document["calls"][2]["key_positions"][0][0] = 2**24 - 1

    edit_manifest(tmp_path / "c", far)
    tracemalloc.start()
    try:
        result = compare(right, tmp_path / "c")
        assert tracemalloc.get_traced_memory()[1] < 128e6
    finally:
        tracemalloc.stop()
    assert result.first == "layers.0.cache_k" or result.first_call == 2
    assert CONFIG.num_attention_heads * 2**24 * 4 > 128e6
