"""Every named activation is what its name says, and watching costs and changes nothing."""

import math

import pytest
import torch
from jaxtyping import config as type_checks
from small import CONFIG, assert_close, model, token_ids
from torch.utils._python_dispatch import TorchDispatchMode

from llama_core import KVCache, capture
from llama_core.capture import NoTap
from llama_core.errors import CaptureError
from llama_core.names import activation_axes, activation_names

IDS = token_ids(2, 7)


def recomputed(llama, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The dataflow once more, in float64 and in plain torch operations, from the weights alone."""
    w = {name: value.double() for name, value in llama.state_dict().items()}
    batch, length = ids.shape
    values = {"input_ids": ids, "position_ids": torch.arange(length).expand(batch, length)}

    def norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    def rotate(x):
        angles = torch.arange(length)[:, None] * torch.tensor([10000.0 ** (-2 * i / 12) for i in range(6)]).double()
        turned = torch.complex(x[..., :6], x[..., 6:]) * torch.exp(1j * angles)[:, None]
        return torch.cat([turned.real, turned.imag], -1)

    x = values["embedding"] = w["embed_tokens.weight"][ids]
    for n in range(3):
        of = f"layers.{n}."

        def linear(name, x, of=of):
            return x @ w[f"{of}{name}.weight"].T + w.get(f"{of}{name}.bias", 0)

        a = norm(x, w[of + "input_layernorm.weight"])
        q, k, v = (linear(f"self_attn.{name}_proj", a).unflatten(-1, (-1, 12)) for name in "qkv")
        keys, others = rotate(k).transpose(1, 2), v.transpose(1, 2)
        scores = rotate(q).transpose(1, 2) @ keys.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(12)
        masked = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -math.inf)
        context = (masked.softmax(-1) @ others.repeat_interleave(2, 1)).transpose(1, 2)
        out = linear("self_attn.o_proj", context.flatten(-2))
        h = x + out
        f = norm(h, w[of + "post_attention_layernorm.weight"])
        gate, up = linear("mlp.gate_proj", f), linear("mlp.up_proj", f)
        activation = gate * torch.sigmoid(gate)
        down = linear("mlp.down_proj", activation * up)
        x = h + down
        values |= {
            of + "attention_norm": a,
            of + "q": q,
            of + "k": k,
            of + "v": v,
            of + "q_rotated": rotate(q),
            of + "k_rotated": rotate(k),
            of + "cache_k": keys,
            of + "cache_v": others,
            of + "scores": scores,
            of + "masked_scores": masked,
            of + "attention_weights": masked.softmax(-1),
            of + "attention_context": context,
            of + "attention_output": out,
            of + "attention_residual": h,
            of + "ffn_norm": f,
            of + "ffn_gate": gate,
            of + "ffn_up": up,
            of + "ffn_activation": activation,
            of + "ffn_hidden": activation * up,
            of + "ffn_output": down,
            of + "output": x,
        }
    values["final_norm"] = norm(x, w["norm.weight"])
    values["logits"] = values["final_norm"] @ w["lm_head.weight"].T
    return values


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("cached", [False, True])
def test_every_activation_has_the_value_that_its_name_says(attention, cached):
    llama = model()
    llama.attention = attention
    cache = KVCache(CONFIG, 2, 9) if cached else None
    with capture(llama, "*") as seen:
        llama(IDS, cache=cache)
    expected = recomputed(llama, IDS)
    assert list(seen) == activation_names(3) and expected.keys() == seen.keys()
    for name, value in seen.items():
        torch.testing.assert_close(
            value.double(), expected[name].double(), rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_axes_of_the_table_are_those_of_the_values():
    sizes = {"B": 2, "S": 3, "T": 7, "H": 4, "K": 2, "D": 12, "E": 40, "F": 56, "V": 61}
    llama, cache = model(), KVCache(CONFIG, 2, 9)
    llama(IDS[:, :4], cache=cache)
    with capture(llama, "*") as seen:
        llama(IDS[:, 4:], cache=cache)
    assert {name: tuple(value.shape) for name, value in seen.items()} == {
        name: tuple(sizes[axis] for axis in activation_axes(name).split()) for name in activation_names(3)
    }


def test_values_of_a_decode_step_are_those_of_a_single_pass_at_its_position():
    llama, cache = model(), KVCache(CONFIG, 2, 30)
    llama(IDS[:, :6], cache=cache)
    with capture(llama, "*") as step:
        llama(IDS[:, 6:], cache=cache)
    with capture(llama, "*") as whole:
        llama(IDS)
    for name, value in step.items():
        axes = activation_axes(name).split()
        full = whole[name].narrow(axes.index("S"), 6, 1) if "S" in axes else whole[name]
        torch.testing.assert_close(value, full, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_captured_keys_do_not_change_with_later_steps():
    llama, cache = model(), KVCache(CONFIG, 2, 9)
    with capture(llama, "layers.0.cache_*") as seen:
        llama(IDS, cache=cache)
    before = {name: value.clone() for name, value in seen.items()}
    cache.reset()
    llama(token_ids(2, 7, seed=9), cache=cache)
    assert all(torch.equal(seen[name], before[name]) for name in before)


def test_without_attention_names_watching_changes_no_bit():
    llama = model()
    plain = llama(IDS)
    names = [name for name in activation_names(3) if "scores" not in name and "weights" not in name]
    with capture(llama, names) as seen:
        watched = llama(IDS)
    assert torch.equal(watched, plain) and torch.equal(seen["logits"], plain)


def test_only_the_layers_whose_weights_are_asked_for_leave_the_fused_path(monkeypatch):
    llama, fused = model(), []
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: fused.append(1) or original(*a, **k)
    )
    with capture(llama, "layers.1.attention_weights"):
        llama(IDS)
    assert len(fused) == 2


class Operations(TorchDispatchMode):
    """Notes every tensor operation that torch dispatches."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_an_unwatched_model_runs_the_same_operations_as_one_without_taps(monkeypatch):
    llama = model()

    def operations():
        with Operations() as seen:
            llama(IDS, cache=KVCache(CONFIG, 2, 8))
        return seen.names

    with_taps = operations()
    with capture(llama, "*"):
        watched = operations()
    # A tap that does nothing but hand back its value, whatever it is called with.
    monkeypatch.setattr("llama_core.model.NO_TAP", type("Bare", (NoTap,), {"__call__": lambda self, _, value: value})())
    assert operations() == with_taps
    assert not any("clone" in name or "detach" in name for name in with_taps)
    assert len(watched) > len(with_taps)


def test_after_the_block_nothing_watches_any_more_even_after_an_error():
    llama = model()
    with pytest.raises(ZeroDivisionError), capture(llama, "logits") as seen:
        raise ZeroDivisionError
    llama(IDS)
    assert seen == {} and llama.captures == ()


def test_a_replaced_activation_is_what_the_model_goes_on_with():
    """Head 1 of layer 2 set to zero is the model whose o_proj has zeros in that head's columns."""
    llama = model()

    def without_head_1(context):
        context = context.clone()
        context[:, :, 1] = 0
        return context

    with capture(llama, "layers.2.attention_context", replace={"layers.2.attention_context": without_head_1}) as seen:
        ablated = llama(IDS)
    assert (seen["layers.2.attention_context"][:, :, 1] == 0).all()
    plain = llama(IDS)
    llama.layers[2].self_attn.o_proj.weight[:, 12:24] = 0
    assert_close(ablated, llama(IDS))
    assert (ablated - plain).abs().max() > 0.1


def test_replaced_weights_reach_the_context():
    llama, uniform = model(), torch.full((2, 4, 7, 7), 1 / 7)
    with capture(
        llama, ["layers.0.v", "layers.0.attention_context"], replace={"layers.0.attention_weights": lambda _: uniform}
    ) as seen:
        llama(IDS)
    mean = seen["layers.0.v"].mean(1, keepdim=True).repeat_interleave(2, 2)
    assert_close(seen["layers.0.attention_context"], mean.expand(2, 7, 4, 12), 1e-6)


def test_activation_patching_carries_one_run_into_another():
    """With layer 2's output taken from another prompt, the logits are that prompt's."""
    llama, other = model(), token_ids(2, 7, seed=4)
    with capture(llama, "layers.2.output") as seen:
        expected = llama(other)
    with capture(llama, replace={"layers.2.output": lambda _: seen["layers.2.output"]}):
        assert torch.equal(llama(IDS), expected)


def test_a_wildcard_replaces_in_every_layer():
    llama = model()
    with (
        capture(llama, replace={"layers.*.*_output": torch.zeros_like}) as _,
        capture(llama, ["embedding", "layers.2.output"]) as seen,
    ):
        llama(IDS)
    assert torch.equal(seen["layers.2.output"], seen["embedding"])


def test_nested_captures_each_see_their_own_and_the_inner_sees_what_the_outer_replaced():
    llama = model()
    with capture(llama, "logits", replace={"layers.1.ffn_up": torch.zeros_like}) as outer:
        with capture(llama, ["layers.1.ffn_up", "logits"]) as inner:
            llama(IDS)
        first = outer["logits"]
        llama(token_ids(2, 7, seed=8))
    assert outer.keys() == {"logits"} and inner.keys() == {"layers.1.ffn_up", "logits"}
    assert (inner["layers.1.ffn_up"] == 0).all()
    assert torch.equal(inner["logits"], first) and not torch.equal(outer["logits"], first)


@pytest.mark.parametrize(
    "pattern, hint",
    [("layers.*.attention_wieghts", "attention_weights"), ("layers.3.output", "layers 0 to 2"), ("", "logits")],
)
def test_a_pattern_that_names_nothing_is_refused_and_says_what_there_is(pattern, hint):
    llama = model()
    with pytest.raises(CaptureError, match="names no activation") as error, capture(llama, ["logits", pattern]):
        pytest.fail("entered")
    assert error.value.key == pattern and hint in error.value.expected
    assert llama.captures == ()


@pytest.mark.parametrize(
    "replacement",
    [lambda x: x[:1], lambda x: x.double(), lambda x: x.to("meta"), lambda x: None],
    ids=["shape", "type", "device", "nothing"],
)
def test_a_replacement_that_does_not_fit_is_refused(replacement):
    llama = model()
    with (
        pytest.raises(CaptureError, match="layers.1.q does not fit") as error,
        capture(llama, replace={"layers.1.q": replacement}),
    ):
        llama(IDS)
    assert error.value.key == "layers.1.q" and "(2, 7, 4, 12)" in error.value.expected


@pytest.mark.parametrize(
    "arguments, key",
    [((3,), "patterns"), ((["logits", None],), "patterns"), (((), {"logits": 0}), "replace"), (((), [1]), "replace")],
    ids=str,
)
def test_patterns_that_are_no_texts_and_replacements_that_are_no_functions_are_refused(arguments, key):
    llama = model()
    type_checks.update("jaxtyping_disable", True)  # as users run it: those of the tests would speak first
    try:
        with pytest.raises(CaptureError) as error, capture(llama, *arguments):
            pytest.fail("entered")
    finally:
        type_checks.update("jaxtyping_disable", False)
    assert error.value.key == key and llama.captures == ()
