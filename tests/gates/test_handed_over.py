"""What may be handed to a gate, and what it says to anything else."""

import pytest
import torch
from small_gates import numpy_norm, small

from llama_core.checkpoints import check, checkpoint
from llama_core.checkpoints.implementation import Implementation
from llama_core.checkpoints.noise import DTYPES
from llama_core.checkpoints.own import implementations
from llama_core.errors import CheckpointError
from llama_core.layers import Attention, FeedForward, QKVProjection, RMSNorm, RoPE


class Holder:
    @staticmethod
    def run(inputs, weights, config):
        return numpy_norm(inputs, weights, config)


@pytest.mark.parametrize("thing", [numpy_norm, Holder, Holder(), Implementation("mine", numpy_norm, "numpy")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_classes_and_objects_in_numpy_are_called_with_arrays(thing, dtype):
    assert check("1", thing, dtype=dtype, cases=small("1")).passed


class SeedAttention(torch.nn.Module):
    """The surface that the first attention of this project had, without a mask argument."""

    def __init__(self, head_dim):
        super().__init__()
        self.inner = Attention(head_dim)

    def compute_scores(self, q, k):
        return self.inner.compute_scores(q, k)

    def apply_causal_mask(self, scores):
        return self.inner.apply_causal_mask(scores)

    def forward(self, q, k, v, use_causal_mask=True):
        scores = self.compute_scores(q, k)
        scores = self.apply_causal_mask(scores) if use_causal_mask else scores
        return self.inner.weigh_values(scores.softmax(-1), v).flatten(-2)


def test_a_class_with_the_seeds_surface_is_judged_where_there_is_no_padding():
    without = [case for case in small("3") if "pad" not in case.name]
    assert check("3", SeedAttention, cases=without).passed
    result = check("3", SeedAttention, cases=small("3"))
    assert {c.case for c in result.failures} == {"left padding", "right padding", "padded decode"}
    assert "mask" in result.problem


@pytest.mark.parametrize(
    ("id", "cls"), [("1", RMSNorm), ("1B", RoPE), ("2", QKVProjection), ("3", Attention), ("5", FeedForward)]
)
def test_a_subclass_of_a_layer_takes_its_place(id, cls):
    mine = type("Mine", (cls,), {"__module__": __name__})
    assert check(id, mine, cases=small(id)).passed


def test_a_wrong_subclass_is_judged_not_the_layer():
    class WithoutEps(RMSNorm):
        def __init__(self, hidden_size, eps):
            super().__init__(hidden_size, 0.0)

    result = check("1", WithoutEps, cases=small("1"))
    assert result.cause.mistake.id == "norm-without-eps"


class NeedsArguments:
    def __init__(self, size):
        self.size = size

    def run(self, inputs, weights, config):
        return None


@pytest.mark.parametrize("thing", [lambda q, k, v, mask, scale: q, 5, int, RMSNorm, NeedsArguments])
def test_what_is_no_implementation_fails_in_one_line_and_does_not_raise(thing):
    result = check("9", thing, cases=small("9"))
    assert not result.passed
    assert result.problem


def test_a_tuple_is_read_in_the_order_of_the_outputs():
    def run(inputs, weights, config):
        out = implementations(checkpoint("2"))[0].run(inputs, weights, config)
        return out["q"], out["k"], out["v"]

    assert check("2", run, cases=small("2")).passed


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: [x]])
def test_one_output_may_come_bare_or_as_a_tuple_of_one(wrap):
    def run(inputs, weights, config):
        return wrap(implementations(checkpoint("1"))[0].run(inputs, weights, config)["attention_norm"])

    assert check("1", run, cases=small("1")).passed


def test_an_array_of_another_library_is_read_if_numpy_can():
    class Theirs:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return self.values

    def run(inputs, weights, config):
        return {"attention_norm": Theirs(numpy_norm(inputs, weights, config))}

    assert check("1", Implementation("theirs", run, "numpy"), cases=small("1")).passed


def test_an_unknown_checkpoint_dtype_or_device_is_an_error():
    for arguments in ({"id": "11"}, {"id": "3", "dtype": "int8"}, {"id": "3", "device": "abacus"}):
        with pytest.raises(CheckpointError):
            check(**arguments)
