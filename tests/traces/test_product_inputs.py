"""Engines with quantized weights round the inputs of their products: that is noise where it is stated, and no more."""

import gguf
import numpy as np
import pytest
import torch
from small_traces import edit_manifest, ids, model

from llama_core.checkpoints.arithmetic import Arithmetic, round_blocks
from llama_core.errors import TraceError
from llama_core.traces import compare, record
from llama_core.traces.quality import divergence, logits_quality
from llama_core.traces.read import Trace


def test_blocks_are_rounded_as_the_gguf_package_rounds_them():
    x = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    x[0, 32:64] = 0
    kind = gguf.GGMLQuantizationType.Q8_0
    assert np.array_equal(
        round_blocks(x, "q8_0").astype(np.float32), gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind)
    )


def test_a_last_block_that_is_not_full_has_a_scale_of_its_own():
    x = np.concatenate([np.full(32, 1000.0), [0.1, 0.2, 0.3]])
    assert np.allclose(round_blocks(x, "q8_0")[32:], [0.1, 0.2, 0.3], rtol=0.01)


def test_the_inputs_of_products_with_weights_are_rounded_and_nothing_else():
    x = np.array([[1.0, 0.004]])
    assert Arithmetic(product_inputs="q8_0").round_input(x).tolist() == [
        [127 * float(np.float16(1 / 127)), float(np.float16(1 / 127))]
    ]
    assert Arithmetic(product_inputs="bfloat16").round_input(np.array([1 + 2.0**-9])).tolist() == [1.0]
    assert Arithmetic().round_input(x) is x


def rounding_engine(folder, plan_ids, kind="q8_0", spoil=None):
    """A trace of this package's model with the input of every product quantized by the gguf package's own functions."""
    made = model()
    if spoil:
        with torch.no_grad():
            spoil(made)
    q8 = gguf.GGMLQuantizationType.Q8_0

    def round_input(_, arguments):
        x = arguments[0].detach().numpy()
        padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 32)])
        rounded = gguf.quants.dequantize(gguf.quants.quantize(padded, q8), q8)[..., : x.shape[-1]]
        return torch.from_numpy(np.ascontiguousarray(rounded))

    for module in made.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(round_input)
    made.attention = "eager"
    record(made, plan_ids, folder, steps=0)
    edit_manifest(folder, lambda m: m.update({"product_inputs": kind} if kind else {}))
    return folder


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    place = tmp_path_factory.mktemp("traces") / "golden"
    return record(model(), ids(), place, noise=["float32", "float32:q8_0"])


def test_a_right_engine_that_states_it_is_within_noise(right, tmp_path):
    result = compare(right, rounding_engine(tmp_path / "mine", ids()), model=model())
    assert result.passed and result.line("layers.2.q").error > 1e-3, str(result)


def test_without_the_model_stored_noise_is_used(right, tmp_path):
    assert compare(right, rounding_engine(tmp_path / "mine", ids())).passed


def test_an_engine_that_does_not_state_it_is_wrong_at_its_first_product(right, tmp_path):
    result = compare(right, rounding_engine(tmp_path / "mine", ids(), kind=None), model=model())
    assert result.first == "layers.0.q" and not result.passed


def test_a_mistake_larger_than_rounding_is_still_found(right, tmp_path):
    def spoil(made):
        made.layers[1].mlp.down_proj.weight.mul_(1.2)

    result = compare(right, rounding_engine(tmp_path / "mine", ids(), spoil=spoil), model=model())
    assert result.first == "layers.1.ffn_output", str(result)


def test_rounding_that_does_not_exist_is_refused(right, tmp_path):
    folder = rounding_engine(tmp_path / "mine", ids(), kind="q3")
    with pytest.raises(TraceError, match="product_inputs"):
        Trace.open(folder)
    with pytest.raises(TraceError, match="there is no arithmetic"):
        record(model(), ids(), tmp_path / "other", noise=["float32:q3"])


def test_divergence_and_agreement_are_those_of_a_hand_calculation(tmp_path):
    """p = (1/2, 1/2) against q = (3/4, 1/4): ln(2/√3) = 0.1438; the second row agrees."""
    from llama_core.traces.align import Golden
    from llama_core.traces.read import Trace

    whole = record(model(), ids(1, 2), tmp_path / "golden", names="logits")

    class Two(Trace):
        """The recorded run with the logarithms of other probabilities as logits."""

        calls = whole.calls
        records = {("logits", 0): whole.records["logits", 0]}

        def __init__(self, rows):
            self._rows = np.log(np.array([rows], np.float64))

        def values(self, name, call):
            return self._rows

    golden = Golden(Two([[0.5, 0.5], [0.9, 0.1]]))
    found = logits_quality(golden, Two([[0.25, 0.75], [0.9, 0.1]]))
    assert found.rows == 2 and found.same_top == 0.5
    assert found.mean_kl == pytest.approx(np.log(2 / np.sqrt(3)) / 2) and found.max_kl == pytest.approx(
        0.14384, abs=1e-5
    )


def test_the_divergence_of_many_rows_is_that_of_each(monkeypatch):
    monkeypatch.setattr("llama_core.traces.measure._ENTRIES", 100)
    right, other = np.random.default_rng(1).normal(size=(2, 17, 40)).astype(np.float32)
    p, q = (np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True) for x in (right, other))
    found, alike = divergence(right, other)
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(-1), rtol=1e-12)
    assert alike.tolist() == (right.argmax(-1) == other.argmax(-1)).tolist()
