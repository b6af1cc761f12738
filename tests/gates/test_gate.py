"""What a gate says about right and wrong implementations."""

import json

import numpy as np
import pytest
import torch

from llama_core.checkpoints import CHECKPOINTS, check, check_all, checkpoint
from llama_core.checkpoints.gate import called, judge
from llama_core.checkpoints.implementation import Implementation, as_implementation, call
from llama_core.checkpoints.margins import Margins
from llama_core.checkpoints.noise import DTYPES
from llama_core.checkpoints.own import implementations
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.result import WIDTH, verdict
from llama_core.errors import CheckpointError
from llama_core.layers import Attention, FeedForward, QKVProjection, RMSNorm, RoPE


def small(id):
    return checkpoint(id).small_cases


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


def scaled_wrongly(inputs, weights, config):
    """D for √D."""
    right = implementations(checkpoint("3"))[1].run
    q = inputs["q_rotated"] * config.head_dim**-0.5
    return {"attention_context": right({**inputs, "q_rotated": q}, weights, config)["attention_context"]}


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


# What may be handed over


def numpy_norm(inputs, weights, config):
    x = inputs["layer_input"]
    assert isinstance(x, np.ndarray)
    return (
        x
        / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + config.rms_norm_eps)
        * weights["input_layernorm.weight"]
    )


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


# How it prints


def test_a_result_prints_as_a_table_within_the_width():
    results = [check(id, cases=small(id)) for id in ("1", "8")] + [check("3", scaled_wrongly, cases=small("3"))]
    text = "\n".join([*map(str, results), *(r.line() for r in results), verdict(results)])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text


def test_the_verdict_is_pass_or_the_first_fail_with_its_cause():
    right, wrong = check("1", cases=small("1")), check("3", scaled_wrongly, cases=small("3"))
    assert verdict([right]) == "PASS"
    assert verdict([right, wrong]).startswith("FAIL at checkpoint 3, Attention")
    assert "explain attention-scale-d" in verdict([right, wrong])


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_failure_is_told_in_full_within_the_width_and_no_path_is_broken(width):
    words = " ".join(f"word{n}" for n in range(18))
    path = "/a/very/long/path/that/a/person/will/want/to/copy/with/one/click/x.py"

    def raises(inputs, weights, config):
        raise RuntimeError(f"{words} {path}")

    result = check("3", raises, cases=small("3"))
    told = verdict([result], width)
    assert words in " ".join(told.split()) and path in told
    assert max(len(line) for line in told.splitlines() if "/" not in line) <= width
    assert len(result.line(width)) <= width and result.line(width).endswith("...")
    table = result.table(width)
    assert words in " ".join(table.split()) and path in table


def test_a_wrong_value_is_told_in_full():
    result = check("8", lambda i, w, c: implementations(checkpoint("8"))[0].run(i, w, c) | spoilt(i), cases=small("8"))
    told = " ".join(verdict([result], 80).split())
    assert "exact values expected" in told and "..." not in told


def spoilt(inputs):
    return {"position_ids": torch.zeros_like(inputs["input_ids"])}


@pytest.mark.parametrize("id", ["3", "8"])
def test_a_table_fits_a_terminal_of_80_columns(id):
    result = check(id, cases=small(id))
    narrow = result.table(80)
    assert max(map(len, narrow.splitlines())) <= 80
    worst = result.worst
    assert "(floors: noise.json)" in narrow and "= 4 × floor" in narrow
    assert f"{worst.tolerance.value:.2g}" in narrow and f"{worst.tolerance.floor:.2g}" in narrow
    assert len(narrow.splitlines()) == len(result.checks) + 2


def test_columns_are_aligned():
    lines = check("1", cases=small("1")).table().splitlines()
    start = lines[0].index("= factor × floor")
    assert all(line[start:].startswith("4 × ") and line[start - 1] == " " for line in lines[1:])


def test_html_shows_the_verdict_and_every_check_and_escapes():
    result = check("3", lambda i, w, c: {"<b>": 1}, cases=small("3"))
    page = result._repr_html_()
    assert "FAIL" in page and page.count("<tr") == 1 + len(result.checks)
    assert "<b>&lt;" not in page and "<lambda>" not in page


def test_json_holds_every_check_and_no_infinity():
    result = check("3", lambda i, w, c: i["q_rotated"] * float("nan"), cases=small("3"))
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["passed"] is False
    assert len(document["checks"]) == len(small("3"))
    assert document["checks"][0]["error"] is None and document["checks"][0]["tolerance"] > 0


def test_check_all_gives_one_result_per_checkpoint():
    assert [r.id for r in check_all(["0", "9"])] == ["0", "9"]


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
