"""Comparing traces: right runs are right, wrong values are found, what was not compared is not passed."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from small_traces import CONFIG, edit_manifest, golden, model
from traced_plain import Traced, planted

from llama_core import Llama
from llama_core.cli import main
from llama_core.errors import TraceError
from llama_core.traces import Trace, TraceWriter, compare, record
from llama_core.traces.format import make_call
from llama_core.traces.noise import split_calls
from llama_core.traces.recorder import Plan, plan_like


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden")


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "batched", rows=2)


def rewritten(trace, folder, change=None, names=lambda name: True, calls=None, **facts):
    """The same trace written anew; ``change(name, call, values)`` may return other values, or None to leave it out."""
    manifest = dataclasses.replace(trace.manifest, tensors=[], calls=list(calls or trace.calls), **facts)
    with TraceWriter(folder, manifest) as writer:
        for (name, call), found in trace.records.items():
            values = trace.values(name, call)
            values = change(name, call, values.copy()) if change else values
            if values is not None and names(name):
                writer.add(name, values, found.rows, call=call)
    return folder


def in_dtype(dtype):
    tensors = {name: p.to(getattr(torch, dtype)) for name, p in model().state_dict().items()}
    made = Llama(CONFIG.replace(dtype=dtype))
    made.load_state_dict(tensors, assign=True)
    return made


# Right runs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["eager", "fused"])
@pytest.mark.parametrize("width", [None, *(pytest.param(width, marks=pytest.mark.slow) for width in (1, 4))])
def test_our_own_runs_are_right_however_they_are_made(right, tmp_path, dtype, attention, width):
    made = in_dtype(dtype)
    made.attention = attention
    plan = Plan(split_calls(right.calls, width)) if width else plan_like(right)
    names = "*" if attention == "eager" else ["layers.*.q", "layers.*.attention_context", "layers.*.output", "logits"]
    result = compare(right, record(made, None, tmp_path / "c", plan=plan, names=names), model=model())
    assert result.passed, str(result)


def test_sequences_that_were_run_alone_match_the_golden_batch(batched, tmp_path):
    calls = []
    for row in (1, 0):
        for call in batched.calls:
            calls.append(make_call(calls, call.input_ids[row : row + 1], call.positions[row : row + 1], [row]))
    result = compare(batched, record(model(), None, tmp_path / "c", plan=Plan(calls)), model=model())
    assert result.passed and result.line("layers.2.scores").rows == 18, str(result)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_left_out(right, tmp_path, side):
    first = right.calls[0]
    ids_, positions = (np.full((1, 10), fill) for fill in (0, -1))
    part = slice(3, None) if side == "left" else slice(0, 7)
    ids_[:, part], positions[:, part] = first.input_ids, first.positions
    calls = [make_call([], ids_, positions, [0])]
    for call in right.calls[1:]:
        slots = np.concatenate([calls[-1].key_positions, call.positions], axis=1)
        calls.append(dataclasses.replace(call, past=len(calls) - 1, key_positions=slots))
    result = compare(right, record(model(), None, tmp_path / "c", plan=Plan(calls)), model=model())
    assert result.passed and result.line("layers.1.cache_k").rows == 7 + 8 + 9 + 0, str(result)


def test_an_engine_written_by_hand_is_right_in_prefill_and_decode(batched, tmp_path):
    Traced().trace(model(), batched.calls, tmp_path / "c")
    result = compare(batched, tmp_path / "c", model=model())
    assert result.passed, str(result)
    assert all(line.status in ("exact", "within noise") for line in result.lines)


def test_without_the_model_right_runs_are_right_too(right, tmp_path):
    Traced().trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c")
    assert result.passed and not result.with_model and result.line("logits").introduced is None


# Wrong values


def test_one_wrong_head_in_one_row_is_wrong_though_the_cosine_is_almost_1(right, tmp_path):
    def nudge(name, call, values):
        if name == "layers.1.q_rotated" and call == 0:
            values[0, 5, 2] *= 1.01
        return values

    result = compare(right, rewritten(right, tmp_path / "c", nudge), model=model())
    line = result.line("layers.1.q_rotated")
    assert (result.first, line.status) == ("layers.1.q_rotated", "WRONG")
    assert line.cosine > 0.9999
    assert line.worst[:3] == (0, 5, 2)
    assert "position 5, head 2; it is 1.01 times the right value" in result.cause.where


def test_inherited_errors_are_told_from_introduced_ones(right, tmp_path):
    planted("attention-no-scale", 1).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model())
    wrong = [line.name for line in result.lines if line.status == "WRONG"]
    assert wrong == ["layers.1.scores"]
    assert result.line("logits").status == "drifting" and result.line("logits").introduced < 1


def test_of_two_mistakes_in_different_layers_both_are_found(right, tmp_path):
    first, second = planted("attention-no-scale", 1).mistakes, planted("ffn-relu", 2).mistakes
    Traced(first | second).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model())
    assert result.first == "layers.1.scores" and result.cause.ids == ("attention-no-scale",)
    assert result.line("layers.2.ffn_activation").status == "WRONG"
    Traced(second).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model())
    assert result.first == "layers.2.ffn_activation" and result.cause.ids == ("ffn-relu",)


def test_of_two_mistakes_in_one_tensor_that_of_the_first_wrong_call_is_named(right, tmp_path):
    def turn(self, x, cos, sin):
        return Traced.turn(self, x, cos, -sin if self.call == 0 else sin)

    def rope_positions(self, positions):
        return positions if self.call == 0 else positions + 1

    Traced({1: {"turn": turn, "rope_positions": rope_positions}}).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model())
    assert (result.first, result.first_call) == ("layers.1.q_rotated", 0)
    assert result.cause.ids == ("rope-sign-flipped",)
    assert "in call 0 alone" in str(result.cause)


def test_without_the_model_the_first_wrong_tensor_is_still_found(right, tmp_path):
    planted("rope-pairs-swapped", 2).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c")
    assert result.first == "layers.2.q_rotated" and not result.passed
    assert "without --model" in str(result.cause)


def test_an_error_of_no_known_kind_is_unknown_and_located(right, tmp_path):
    def noise(name, call, values):
        if name == "layers.2.ffn_up" and call == 1:
            values[..., 3] += 0.5 * np.sin(values[..., 4])
        return values

    result = compare(right, rewritten(right, tmp_path / "c", noise), model=model())
    assert (result.first, result.first_call, result.cause.ids) == ("layers.2.ffn_up", 1, ())
    assert "Unknown" in str(result.cause) and "confined to coordinate 3" in result.cause.where


def test_a_mask_by_a_large_number_is_right_with_a_note(right, tmp_path):
    def finite(name, call, values):
        return np.where(np.isneginf(values), -1e4, values) if name.endswith("masked_scores") else values

    result = compare(right, rewritten(right, tmp_path / "c", finite), model=model())
    assert result.passed and {finding.kind for finding in result.findings} == {"mask"}
    assert "large negative number" in result.line("layers.0.masked_scores").note


# Not compared is not passed


def test_a_missing_tensor_that_nothing_proves_fails(right, tmp_path):
    result = compare(right, rewritten(right, tmp_path / "c", names=lambda name: name != "logits"), model=model())
    assert not result.passed and result.line("logits").status == "not provided"


def test_a_missing_tensor_that_a_later_one_depends_on_does_not_fail(right, tmp_path):
    names = {"layers.0.output", "layers.1.output", "layers.2.output", "logits", "input_ids", "position_ids"}
    result = compare(right, rewritten(right, tmp_path / "c", names=names.__contains__), model=model())
    assert result.passed and result.line("layers.1.q").status == "not provided"


def test_a_trace_of_the_prompt_alone_does_not_prove_decode(right, tmp_path):
    record(model(), None, tmp_path / "c", plan=Plan(right.calls[:1]))
    result = compare(right, tmp_path / "c", model=model())
    assert not result.passed and "only 7 of the golden's 9 rows" in str(result)


def test_nothing_in_common_fails(right, tmp_path):
    np.save(tmp_path / "their_logits.npy", np.zeros(3, np.float32))
    result = compare(right, tmp_path, model=model())
    assert not result.passed and {"empty", "extra"} <= {finding.kind for finding in result.findings}


def test_a_tensor_of_another_shape_is_a_finding(right, tmp_path):
    def cut(name, call, values):
        return values[..., :-1] if name == "layers.1.ffn_up" else values

    result = compare(right, rewritten(right, tmp_path / "c", cut), model=model())
    assert not result.passed and "[1, 7, 39]" in str(result)


@pytest.mark.parametrize("both", [False, True])
def test_nan_is_a_finding_on_one_side_and_on_both(right, tmp_path, both):
    def nan(name, call, values):
        if name == "layers.1.output" and call == 0:
            values[0, 2, 1] = np.nan
        return values

    broken = Trace.open(rewritten(right, tmp_path / "c", nan))
    result = compare(broken if both else right, broken, model=model())
    assert not result.passed and "not finite" in {finding.kind for finding in result.findings}
    assert both or result.first == "layers.1.output"


def test_other_ids_are_an_error(right, tmp_path):
    rewritten(right, tmp_path / "c")
    edit_manifest(tmp_path / "c", lambda d: d["calls"][0]["input_ids"][0].__setitem__(3, 50))
    with pytest.raises(TraceError, match="ids of sequence 0 differ .* position 3"):
        compare(right, tmp_path / "c")


def test_positions_that_start_at_one_are_a_finding(right, tmp_path):
    calls = [
        dataclasses.replace(call, positions=call.positions + 1, key_positions=call.key_positions + 1)
        for call in right.calls
    ]
    result = compare(right, rewritten(right, tmp_path / "c", calls=calls), model=model())
    assert not result.passed and "1 where 0 is right" in str(result)


def test_another_models_weights_are_refused(right):
    with pytest.raises(TraceError, match="not of this model"):
        compare(right, right, model=model(seed=2))


def test_a_dtype_whose_noise_is_not_known_is_refused_without_the_model(right, tmp_path):
    record(in_dtype("float16"), None, tmp_path / "c", plan=plan_like(right))
    with pytest.raises(TraceError, match="how far right runs in float16"):
        compare(right, tmp_path / "c")
    assert compare(right, tmp_path / "c", model=model()).passed


def test_statistics_alone_find_the_layer(right, tmp_path):
    planted("ffn-relu", 1).trace(model(), right.calls, tmp_path / "c", statistics_only=True)
    result = compare(right, tmp_path / "c")
    assert not result.passed and result.first == "layers.1.ffn_activation"


def test_statistics_of_a_number_that_stands_for_minus_infinity_are_not_judged(right, tmp_path):
    class ByNumber(Traced):
        def forward(self, call, past, add):
            def hidden(name, x):
                return torch.where(x == -torch.inf, -1e4, x) if name.endswith("masked_scores") else x

            return super().forward(call, past, lambda name, x: add(name, hidden(name, x)))

    ByNumber().trace(model(), right.calls, tmp_path / "c", statistics_only=True)
    result = compare(right, tmp_path / "c")
    assert result.first is None, str(result)
    line = result.line("layers.1.masked_scores")  # nothing is hidden in decode
    assert line.rows == 2 and "stands for -inf" in line.note, str(result)


# Bare files and maps


def test_bare_arrays_in_one_pass_are_compared(right, tmp_path):
    for n in range(3):
        parts = [right.values(f"layers.{n}.output", call) for call in range(3)]
        np.save(tmp_path / f"layers.{n}.output.npy", np.concatenate(parts, axis=1))
    np.save(tmp_path / "logits.npy", np.concatenate([right.values("logits", call) for call in range(3)], axis=1)[0])
    result = compare(right, tmp_path, model=model())
    assert result.passed and result.line("layers.1.output").rows == 9, str(result)


def test_a_map_brings_their_names_axes_and_layout_to_ours(right, tmp_path):
    order = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]  # half -> interleaved, D = 12
    folder = tmp_path / "theirs"
    folder.mkdir()
    for n in range(3):
        q = np.concatenate([right.values(f"layers.{n}.q", call) for call in range(3)], axis=1)
        np.save(folder / f"blk.{n}.query.npy", 2 * q[0][..., order].transpose(1, 0, 2))
    np.save(folder / "result.npy", np.concatenate([right.values("logits", call) for call in range(3)], axis=1)[0].T)
    (tmp_path / "map.toml").write_text(
        'version = 1\n[[tensor]]\ntheirs = "blk.{n}.query"\nours = "layers.{n}.q"\naxes = "H S D"\n'
        'layout = "interleaved"\ntimes = 0.5\n[[tensor]]\ntheirs = "result"\nours = "logits"\naxes = "V S"\n'
    )
    result = compare(right, folder, model=model(), map=tmp_path / "map.toml")
    assert result.passed and result.line("layers.2.q").rows == 9, str(result)


@pytest.mark.parametrize(
    "text", ["", "version = 2", "version = 1\ntensor = 3", '[[tensor]]\ntheirs = "a"', "= ["]
    + [f"version = 1\n[[tensor]]\n{rule}" for rule in ('theirs = "a"', 'theirs = "a"\nours = "b"')]
    + [
        f'version = 1\n[[tensor]]\ntheirs = "q{{n}}"\nours = "layers.{{n}}.q"\n{rule}'
        for rule in ('axes = "B S E"', 'axes = "S S H D"', 'layout = "round"', "times = 0", 'axes = "S H"')
    ],
)  # fmt: skip
def test_a_map_that_is_wrong_is_refused(right, tmp_path, text):
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(TraceError) as caught:
        compare(right, right, map=tmp_path / "map.toml")
    assert caught.value.file


def test_the_command_says_right_wrong_or_unusable(right, tmp_path, capsys):
    model().save_pretrained(tmp_path / "model")
    planted("ffn-gelu", 1).trace(model(), right.calls, tmp_path / "c")
    arguments = ["compare", str(right.folder), str(tmp_path / "c"), "--model", str(tmp_path / "model")]
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == "layers.1.ffn_activation" and found["cause"]["mistakes"][0]["id"] == "ffn-gelu"
    assert main(["compare", str(right.folder), str(right.folder)]) == 0
    assert "RIGHT" in capsys.readouterr().out
    assert main(["compare", str(right.folder), str(tmp_path / "nothing")]) == 2
