"""What a gate says about right and wrong implementations."""

import numpy as np
import pytest
import torch
from small_gates import numpy_norm, scaled_wrongly, small

from llama_core.checkpoints import CHECKPOINTS, check, checkpoint
from llama_core.checkpoints.gate import called, judge
from llama_core.checkpoints.implementation import Implementation, as_implementation, call
from llama_core.checkpoints.margins import Margins
from llama_core.checkpoints.noise import DTYPES
from llama_core.checkpoints.own import implementations
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.result import verdict


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("id", CHECKPOINTS)
def test_llama_core_passes_every_small_case(id, dtype, device):
    cases = checkpoint(id).every_small_case
    result = check(id, dtype=dtype, device=str(device), cases=cases)
    assert result.passed, str(result)
    assert {c.case for c in result.checks if c.required} == {case.name for case in cases}


@pytest.mark.slow
@pytest.mark.parametrize("id", [id for id, spec in CHECKPOINTS.items() if spec.small_cases != spec.cases])
def test_llama_core_passes_at_the_sizes_of_llama_2_7b(id):
    large = [case for case in checkpoint(id).cases if case.large]
    result = check(id, cases=large)
    assert result.passed, str(result)


def test_both_attention_paths_are_judged():
    assert {c.path for c in check("3", cases=small("3")).checks} == {"fused", "eager"}


# Wrong implementations


def test_a_mistake_is_named_with_what_to_do():
    result = check("3", scaled_wrongly, cases=small("3"))
    assert not result.passed
    assert result.cause.mistake.id == "attention-scale-d"
    assert result.cause.mistake.mend.split()[0] in result.explanation()
    assert f"llama-core explain {result.cause.mistake.id}" in result.explanation()


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        (
            lambda q: {"attention_context": q[:, :1]},
            "attention_context has shape [2, 1, 4, 8], expected [2, 6, 4, 8] = [B, S, H, D]",
        ),
        (lambda q: {"attention_context": q.half()}, "attention_context is float16, expected float32"),
        (lambda q: {"attention_context": q.long()}, "attention_context is int64, expected float32"),
        (lambda q: {"attention_context": None}, "attention_context is None, not an array of numbers"),
        (lambda q: {"attention_context": "zeros"}, "attention_context is a str, not an array of numbers"),
        (
            lambda q: {"attention_context": np.full(q.shape, None)},
            "attention_context is an array of object, not an array of numbers",
        ),
        (
            lambda q: {"attention_context": np.full(q.shape, "x")},
            "attention_context is an array of str32, not an array of numbers",
        ),
        (lambda q: {"attention_context": q + 0j}, "attention_context is complex64, expected float32"),
        (
            lambda q: {"attention_context": q.to_sparse()},
            "attention_context is a tensor of float32 whose values cannot be read (cpu, sparse_coo), not an array of "
            "numbers",
        ),
        (
            lambda q: {"attention_context": q.to("meta")},
            "attention_context is a tensor of float32 whose values cannot be read (meta, strided), not an array of "
            "numbers",
        ),
        (lambda q: {"context": q}, "attention_context is missing; there is context"),
        (lambda q: (q, q), "returned a tuple of 2, not {'attention_context': array}"),
        (lambda q: None, "returned None, not {'attention_context': array}"),
        (
            lambda q: {"attention_context": q[9, 9, 9, 9]},
            "raised IndexError: index 9 is out of bounds for dimension 0 with size 2",
        ),
        (lambda q: exit(3), "called sys.exit(3)"),
        (lambda q: pytest.fail("the learner's own test"), "raised Failed: the learner's own test"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(returned, line):
    result = check("3", lambda inputs, weights, config: returned(inputs["q_rotated"]), cases=small("3")[:1])
    assert not result.passed
    assert result.problem == f"prefill: {line}"
    assert "\n" not in result.line()


def test_an_exception_is_shown_with_the_line_of_the_implementation_not_of_a_library():
    def raises_in_torch(inputs, weights, config):
        return torch.nn.functional.linear(inputs["q_rotated"], inputs["cache_k"][0, 0])[9]

    result = check("3", raises_in_torch, cases=small("3")[:1])
    line = raises_in_torch.__code__.co_firstlineno + 1
    assert f"at    {__file__}:{line}" in result.explanation()
    assert f"{__file__}:{line}" in verdict([result])


def test_nan_fails_and_is_called_nan():
    result = check("3", lambda i, w, c: i["q_rotated"] * float("nan"), cases=small("3"))
    assert not result.passed
    named = ", ".join(case.name for case in small("3"))
    assert f"note {named}: attention_context has NaN" in " ".join(result.explanation().split())
    assert result.cause.mistake is None


def test_a_case_that_raises_does_not_keep_the_others_from_being_judged():
    def sometimes(inputs, weights, config):
        if inputs["position_ids"].min() < 0:
            raise RuntimeError("padding is not implemented")
        return implementations(checkpoint("3"))[0].run(inputs, weights, config)["attention_context"]

    result = check("3", sometimes, cases=small("3"))
    assert {c.case for c in result.failures} == {"left padding", "right padding"}
    assert "raised RuntimeError: padding is not implemented" in result.problem


def test_one_wrong_entry_among_many_is_seen():
    def nearly(inputs, weights, config):
        out = implementations(checkpoint("3"))[0].run(inputs, weights, config)["attention_context"].clone()
        out[-1, -1, -1, -1] += 1e-4
        return out

    assert len(check("3", nearly, cases=small("3")).failures) == len(small("3"))


def test_a_welcome_output_that_differs_never_fails_a_gate_but_is_shown():
    def unscaled(inputs, weights, config):
        seen = implementations(checkpoint("3"))[1].run(inputs, weights, config)
        return seen | {"scores": seen["scores"] * config.head_dim**0.5}

    result = check("3", unscaled, cases=small("3"))
    assert result.passed
    assert {c.output for c in result.checks if not c.passed} == {"scores"}
    assert "differs (extra)" in result.table()


def test_a_welcome_output_of_another_shape_is_told_and_helps_nobody():
    def cut(inputs, weights, config):
        seen = implementations(checkpoint("3"))[1].run(inputs, weights, config)
        return seen | {"scores": seen["scores"][:, :1], "attention_weights": None}

    result = check("3", cut, cases=small("3"))
    assert result.passed
    assert result.line().endswith("; extra outputs differ")
    assert "scores has shape [2, 1, 6, 6], expected [2, 4, 6, 6] = [B, H, S, T]" in result.table()
    assert "attention_weights is None, not an array of numbers" in result.table()
    assert result.table().count("not used (extra)") == 2 * len(small("3"))

    wrong = check("3", lambda i, w, c: cut(i, w, c) | {"attention_context": i["q_rotated"]}, cases=small("3"))
    told = " ".join(wrong.explanation().split())
    assert "an extra output could not be used: prefill: scores has shape [2, 1, 6, 6]" in told
    assert "so in 13 more" in told


def test_a_checkpoint_without_any_check_has_not_passed():
    assert not check("3", cases=[]).passed


def test_an_implementation_that_changes_its_inputs_is_judged_on_the_original():
    def careless(inputs, weights, config):
        out = implementations(checkpoint("1"))[0].run(inputs, weights, config)["attention_norm"].clone()
        inputs["layer_input"].zero_()
        weights["input_layernorm.weight"].zero_()
        return out

    assert check("1", careless, cases=small("1")).passed
    assert check("1", cases=small("1")).passed


# Ids that rounding decides


def test_an_id_within_the_noise_is_undecided_and_another_is_wrong():
    spec = checkpoint("10")
    case = spec.case("single").reseeded(424242)
    inputs, weights = case.values("bfloat16")
    reference = run_procedure(spec.procedure, inputs, weights, case.config)
    ids = inputs["prompt_ids"]
    logits = run_procedure(
        checkpoint("7").procedure, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, weights, case.config
    )["logits"][0, -1]
    order = np.argsort(-logits)
    second, last = reference["token_ids"].copy(), reference["token_ids"].copy()
    second[0, 0], last[0, 0] = order[1], order[-1]
    # Make the runner-up's logit equal the best's, by a head whose two rows are the same.
    weights = dict(weights)
    weights["lm_head.weight"] = weights["lm_head.weight"].copy()
    weights["lm_head.weight"][order[1]] = weights["lm_head.weight"][order[0]]
    margins = Margins(case, inputs, weights, reference["token_ids"], "bfloat16")
    kept, note = margins.kept(second)
    assert not kept[0].any() and "row 0 undecided from token 0" in note
    kept, note = margins.kept(last)
    assert kept.all() and note == ""


def test_shipped_cases_have_no_undecided_ids():
    def second_best(inputs, weights, config):
        outputs = implementations(checkpoint("10"))[0].run(inputs, weights, config)
        outputs["token_ids"][0, -1] = (outputs["token_ids"][0, -1] + 1) % config.vocab_size
        return outputs

    assert not check("10", second_best, dtype="bfloat16", cases=small("10")[:1]).passed


def test_judge_keeps_sources_apart():
    spec = checkpoint("1")
    good = as_implementation(Implementation("good", numpy_norm, "numpy"), spec)
    bad = Implementation("bad", lambda i, w, c: i["layer_input"])
    result = judge(spec, [called(good, "cpu"), called(bad, "cpu")], "two", "float32", "cpu", small("1"))
    assert {c.path for c in result.failures} == {"bad"}


def test_call_gives_tensors_in_the_type_asked_for():
    seen = {}

    def look(inputs, weights, config):
        seen.update({name: x.dtype for name, x in (inputs | weights).items()})
        return inputs["layer_input"]

    case = small("1")[0]
    call(Implementation("look", look), checkpoint("1"), case, *case.values("bfloat16"), "bfloat16", "cpu")
    assert set(seen.values()) == {torch.bfloat16}
