"""Proposed maps: other names, axis orders, flattened heads and rotary layouts are found; what is not sure is said."""

import dataclasses
import tomllib

import numpy as np
import pytest
import torch
from small_traces import edit_manifest, golden, model
from traced_plain import planted

from llama_core.cli import main
from llama_core.names import LAYER_ACTIVATIONS
from llama_core.traces import TraceWriter, compare
from llama_core.traces.suggest import suggest_map
from llama_core.traces.suggest_axes import arrangements

#: What another engine might call them.
THEIRS = {
    "attention_norm": "ln_1", "q": "wq.out", "k": "wk.out", "v": "wv.out", "q_rotated": "q_rope", "k_rotated": "k_rope",
    "cache_k": "kcache", "cache_v": "vcache", "scores": "qk", "masked_scores": "qk_masked",
    "attention_weights": "probs",
    "attention_context": "ctx", "attention_output": "wo.out", "attention_residual": "mid", "ffn_norm": "ln_2",
    "ffn_gate": "w1.out", "ffn_up": "w3.out", "ffn_activation": "silu", "ffn_hidden": "h", "ffn_output": "w2.out",
    "output": "resid",
}  # fmt: skip
OUTSIDE = {"embedding": "wte", "final_norm": "ln_f", "logits": "head"}
INTERLEAVED = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]  # D = 12: pair i of the half layout is i and i + 6


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", noise=("float32",))


def their_name(name, first=0):
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, short = name.split(".", 2)
    return f"blk.{int(layer) + first}.{THEIRS[short]}"


def written(right, folder, change=lambda name, values: values, first=0):
    """The golden trace as another engine's: all tensors but ids renamed, ``change`` applied to the values."""
    manifest = dataclasses.replace(right.manifest, tensors=[], calls=list(right.calls), producer={"name": "other"})
    with TraceWriter(folder, manifest) as writer:
        for (name, call), record in right.records.items():
            if name not in ("input_ids", "position_ids"):
                values = change(name, right.values(name, call))
                writer.add(their_name(name, first), values, record.rows, call=call)
    return folder


def heads_first(name, values):
    """[B, S, H, D] as [B, H, S, D], as most engines compute."""
    return values.transpose(0, 2, 1, 3) if name.split(".")[-1] in ("q", "k", "v", "q_rotated", "k_rotated") else values


def flat(name, values):
    """Heads side by side, no batch axis, features before tokens for the feed-forward part."""
    short = name.split(".")[-1]
    if short in ("q", "k", "v", "q_rotated", "k_rotated", "attention_context"):
        return values.reshape(values.shape[1], -1)
    return values[0].T if short.startswith("ffn_") else values[0]


def interleaved(name, values):
    rotary = name.split(".")[-1] in ("q", "k", "q_rotated", "k_rotated", "cache_k")
    return values[..., INTERLEAVED] if rotary else values


def proposed(right, folder, tmp_path):
    """The proposal as text and as a file."""
    text = suggest_map(right, folder).to_toml()
    (tmp_path / "map.toml").write_text(text)
    return text, tmp_path / "map.toml"


@pytest.mark.parametrize("change", [heads_first, flat, interleaved])
def test_a_proposal_makes_a_right_candidate_pass(right, tmp_path, change):
    folder = written(right, tmp_path / "theirs", change)
    text, place = proposed(right, folder, tmp_path)
    rules = {rule["theirs"]: rule for rule in tomllib.loads(text)["tensor"]}
    assert {theirs: rule["ours"] for theirs, rule in rules.items()} == {
        **{f"blk.{{n}}.{THEIRS[short]}": f"layers.{{n}}.{short}" for short in LAYER_ACTIVATIONS},
        **{theirs: ours for ours, theirs in OUTSIDE.items()},
    }
    assert ("layout" in rules["blk.{n}.q_rope"]) == (change is interleaved)
    result = compare(right, folder, map=place)
    assert result.passed and result.line("layers.2.ffn_up").status == "exact", str(result)


def test_a_layout_that_the_candidate_states_is_not_proposed_again(right, tmp_path):
    folder = written(right, tmp_path / "theirs", interleaved)
    edit_manifest(folder, lambda manifest: manifest.update(rope_layout="interleaved"))
    text, place = proposed(right, folder, tmp_path)
    assert "layout" not in text
    assert compare(right, folder, map=place).passed


@pytest.mark.slow
def test_layers_that_are_counted_from_one_have_a_rule_each(right, tmp_path):
    folder = written(right, tmp_path / "theirs", first=1)
    text, place = proposed(right, folder, tmp_path)
    assert 'theirs = "blk.3.resid"\nours = "layers.2.output"' in text
    assert compare(right, folder, map=place).passed


def test_bare_arrays_of_the_whole_text_are_mapped(right, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    for n in range(3):
        q = np.concatenate([right.values(f"layers.{n}.q", call) for call in range(3)], axis=1)
        np.save(folder / f"block{n}_query.npy", q[0][..., INTERLEAVED].transpose(1, 0, 2))
    np.save(folder / "result.npy", np.concatenate([right.values("logits", call) for call in range(3)], axis=1)[0].T)
    text, place = proposed(right, folder, tmp_path)
    assert 'axes = "H S D"\nlayout = "interleaved"' in text and 'axes = "V S"' in text
    result = compare(right, folder, map=place)
    assert result.passed and result.line("layers.2.q").rows == 9, str(result)


def test_bare_arrays_of_the_prompt_alone_are_mapped(right, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    np.save(folder / "result.npy", right.values("logits", 0)[0])
    _, place = proposed(right, folder, tmp_path)
    assert compare(right, folder, map=place).line("logits").rows == 7


@pytest.mark.slow
def test_a_mistake_is_still_found_through_a_proposed_map(right, tmp_path):
    engine = planted("attention-heads-tiled", 1).trace
    engine(model(), right.calls, tmp_path / "plain")
    from llama_core.traces import Trace

    folder = written(Trace.open(tmp_path / "plain"), tmp_path / "theirs", heads_first)
    _, place = proposed(right, folder, tmp_path)
    result = compare(right, folder, model=model(), map=place)
    assert result.first == "layers.1.scores" and result.cause.ids == ("attention-heads-tiled",), str(result)


def test_a_factor_may_be_a_mistake_and_is_not_proposed(right, tmp_path):
    def unscaled(name, values):
        return values * 12**0.5 if name.endswith(".scores") else values

    folder = written(right, tmp_path / "theirs", unscaled)
    text, place = proposed(right, folder, tmp_path)
    assert "qk" not in {rule["theirs"].split(".")[-1] for rule in tomllib.loads(text)["tensor"]}
    assert "not sure: layers.{n}.scores times 3.46" in text and "# times = 0.288675" in text
    assert "qk_masked" in text


@pytest.mark.parametrize("share", [0.0, 1e-4])
def test_what_fits_two_of_ours_almost_alike_is_not_proposed(tmp_path, share):
    """A feed-forward part that adds (almost) nothing leaves the residual before it as it was."""
    made = model()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("down_proj.weight"):
                parameter *= share
    right = golden(tmp_path / "golden", made, noise=())
    (tmp_path / "theirs").mkdir()
    for n in range(3):
        values = np.concatenate([right.values(f"layers.{n}.output", call) for call in range(3)], axis=1)
        np.save(tmp_path / "theirs" / f"resid.{n}.npy", values)
    found = suggest_map(right, tmp_path / "theirs")
    assert not found.rules
    assert "layers.{n}.attention_residual" in found.notes["resid.{n}"] and "not sure" in found.notes["resid.{n}"]


def test_of_two_that_fit_one_of_ours_the_better_has_it_and_a_little_noise_is_no_factor(right, tmp_path):
    logits = right.values("logits", 0)[0]
    rng = np.random.default_rng(0)
    (tmp_path / "theirs").mkdir()
    for name, noise in (("a", 1e-3), ("b", 1e-5)):
        values = logits * (1 + noise) + noise * rng.standard_normal(logits.shape).astype(np.float32)
        np.save(tmp_path / "theirs" / f"{name}.npy", values)
    found = suggest_map(right, tmp_path / "theirs")
    assert [(rule.theirs, rule.ours, rule.times) for rule in found.rules] == [("b", "logits", 1.0)]
    assert "another of the candidate's tensors" in found.notes["a"]


def test_what_fits_nothing_is_told_and_not_guessed(right, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    up = np.concatenate([right.values("layers.0.ffn_up", call) for call in range(3)], axis=1)[0]
    np.save(folder / "other.npy", rng.standard_normal((9, 5)).astype(np.float32))
    np.save(folder / "l0.up.npy", up + 0.3 * up.std() * rng.standard_normal(up.shape).astype(np.float32))
    found = suggest_map(right, folder)
    assert found.rules == [] and "fits none" in found.notes["other"]
    assert "not sure: most like layers.{n}.ffn_up" in found.notes["l{n}.up"]


@pytest.mark.slow
def test_the_command_prints_the_map(right, tmp_path, capsys):
    folder = written(right, tmp_path / "theirs", heads_first)
    assert main(["compare", str(right.folder), str(folder), "--suggest-map"]) == 0
    (tmp_path / "printed.toml").write_text(capsys.readouterr().out)
    assert main(["compare", str(right.folder), str(folder), "--map", str(tmp_path / "printed.toml")]) == 0
    capsys.readouterr()
    assert main(["compare", str(right.folder), str(folder), "--suggest-map", "--json"]) == 2


def test_every_arrangement_has_the_shape_and_the_plainest_comes_first():
    sizes = {"B": 1, "S": 7, "H": 4, "D": 12}
    assert arrangements("B S H D", (7, 48), sizes) == ["S (H D)", "S (D H)"]
    assert arrangements("B S H D", (1, 4, 7, 12), sizes) == ["B H S D"]
    assert arrangements("B S H D", (7, 4, 12), sizes) == ["S H D"]
    assert arrangements("B S H D", (7, 5, 12), sizes) == []
    assert arrangements("B S H D", (2, 7, 48), sizes | {"B": 2})[0] == "B S (H D)"
    assert arrangements("B H S T", (7, 4, 9), sizes | {"T": 9}) == ["S H T"]
