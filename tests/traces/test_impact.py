"""What each wrong tensor does to the logits: of two mistakes, the harmless one is told from the fatal one."""

import json

import numpy as np
import pytest
from small_traces import golden, model
from traced_plain import Traced, planted

from llama_core.cli import main
from llama_core.errors import TraceError
from llama_core.names import activation_names
from llama_core.traces import compare, impact
from llama_core.traces.impact import Damage, _damage
from llama_core.traces.verdict import WRONG


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", rows=2, noise=("float32",))


#: Harmless: this ε moves norms by a few thousandths. Fatal: the gate's feed-forward is another function altogether.
HARMLESS, FATAL = ("norm-eps-1e-3", "attention_norm"), ("attention-no-scale", "scores")


def two_mistakes(right, folder, harmless, fatal):
    """An engine with the harmless mistake in one layer and the fatal one in another."""
    engine = Traced(planted(HARMLESS[0], harmless).mistakes | planted(FATAL[0], fatal).mistakes)
    engine.trace(model(), right.calls, folder)
    return folder


@pytest.mark.parametrize("harmless, fatal", [(0, 1), (2, 1), (1, 2)])
def test_of_two_mistakes_it_says_which_is_harmless_and_which_is_fatal(right, tmp_path, harmless, fatal):
    folder = two_mistakes(right, tmp_path / "c", harmless, fatal)
    result = compare(right, folder, model=model(), impact=True)
    of = {i.name: i.alone for i in result.impacts.each}
    small, large = of[f"layers.{harmless}.{HARMLESS[1]}"], of[f"layers.{fatal}.{FATAL[1]}"]
    assert large.explained > 0.9 and small.explained < 0.1, str(result)
    assert large.divergence > 100 * small.divergence
    assert small.same_top_1 == 1.0


def test_a_tensor_behind_a_fatal_mistake_carries_its_damage_though_its_own_error_is_harmless(right, tmp_path):
    folder = two_mistakes(right, tmp_path / "c", harmless=2, fatal=1)
    result = compare(right, folder, model=model(), impact=True)
    behind = next(i for i in result.impacts.each if i.name == f"layers.2.{HARMLESS[1]}")
    assert behind.whole.explained > 0.15 and behind.whole.divergence > 20 * behind.alone.divergence


@pytest.mark.parametrize("id, name", [("cache-keys-rotated-again", "cache_k"), ("ffn-relu", "ffn_activation")])
def test_one_mistake_alone_explains_all_of_the_damage_in_prefill_and_decode(right, tmp_path, id, name):
    planted(id, 1).trace(model(), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model(), impact=True)
    only = next(i for i in result.impacts.each if i.name == f"layers.1.{name}")
    assert only.alone.explained == pytest.approx(1, abs=1e-6)
    assert only.whole.explained == pytest.approx(1, abs=1e-6)
    assert only.alone.divergence == pytest.approx(result.impacts.total.divergence, rel=1e-4)


def test_the_figures_are_those_of_a_hand_calculation():
    # Right: p = (1/2, 1/2). Candidate: p = (3/4, 1/4), so KL = ½ log(½ / ¾) + ½ log(½ / ¼) = ½ log(4/3).
    right = {(0, 0): np.array([0.0, 0.0])}
    half = np.log(3) / 2
    candidate = {(0, 0): np.array([half, -half])}
    found = _damage(right, candidate, candidate)
    assert found.divergence == pytest.approx(0.5 * np.log(4 / 3)) and found.explained == 1.0
    # Half of the way: 1 - (1/2)² is explained.
    found = _damage(right, {(0, 0): np.array([half / 2, -half / 2])}, candidate)
    assert found.explained == pytest.approx(0.75) and found.largest == pytest.approx(half / 2)
    assert _damage(right, right, right) == Damage(0.0, 1.0, 0.0, None)


def test_wrong_tensors_beyond_the_most_are_counted_and_not_tried(right, tmp_path, monkeypatch):
    monkeypatch.setattr(impact, "MOST", 1)
    result = compare(right, two_mistakes(right, tmp_path / "c", 0, 2), model=model(), impact=True)
    wrong = sum(line.status == WRONG for line in result.lines)
    assert len(result.impacts.each) == 1 and result.impacts.left_out == wrong - 1 >= 1
    assert f"{wrong - 1} more wrong tensors were not tried" in " ".join(str(result).split())


def test_without_logits_of_the_candidate_the_damage_is_still_told(right, tmp_path):
    keep = set(activation_names(3)) - {"logits"}
    planted("ffn-relu", 1).trace(model(), right.calls, tmp_path / "c", names=keep.__contains__)
    result = compare(right, tmp_path / "c", model=model(), impact=True)
    assert result.impacts.total is None
    assert [i.name for i in result.impacts.each] == ["layers.1.ffn_activation"]
    assert result.impacts.each[0].alone.explained is None and result.impacts.each[0].alone.divergence > 0


@pytest.mark.slow
def test_the_command_needs_the_model_and_gives_json(right, tmp_path, capsys):
    with pytest.raises(TraceError, match="without the right model"):
        compare(right, right, impact=True)
    model().save_pretrained(tmp_path / "model")
    planted("ffn-relu", 1).trace(model(), right.calls, tmp_path / "c")
    arguments = ["compare", str(right.folder), str(tmp_path / "c"), "--model", str(tmp_path / "model"), "--impact"]
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["impacts"]
    assert found["each"][0]["name"] == "layers.1.ffn_activation" and found["left_out"] == 0
    assert main(["compare", str(right.folder), str(right.folder), "--model", str(tmp_path / "model"), "--impact"]) == 0
    assert "nothing to put into the right model" in capsys.readouterr().out
