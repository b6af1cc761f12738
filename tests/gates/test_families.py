"""Neighbours of Llama: their cases show their own step, and are asked only of those who ask for them."""

import json

import numpy as np
import pytest

from llama_core.checkpoints import CHECKPOINTS, check, checkpoint
from llama_core.checkpoints.compare import error, kept_entries
from llama_core.checkpoints.diagnose import Diagnosis, diagnose
from llama_core.checkpoints.families import NEIGHBOURS, family_of
from llama_core.checkpoints.interface import interface, interface_facts
from llama_core.checkpoints.mistakes import CATALOGUE
from llama_core.checkpoints.noise import tolerance
from llama_core.checkpoints.own import implementations
from llama_core.checkpoints.procedures import run_procedure
from llama_core.cli import main
from llama_core.errors import CheckpointError
from llama_core.layers import Attention

NEIGHBOUR_CASES = [(id, case) for id, spec in CHECKPOINTS.items() for case in spec.neighbours]
OFF = {"sliding_window": None, "qkv_bias": False, "qk_norm": False}


def plain_attention(inputs, weights, config):
    """A Llama's attention, which has never heard of a window."""
    run = implementations(checkpoint("3"))[0].run
    return run(inputs, weights, config.replace(sliding_window=None))["attention_context"]


def names(cases):
    return [case.name for case in cases]


@pytest.mark.parametrize("id", CHECKPOINTS)
def test_a_checkpoints_own_cases_are_a_plain_llamas_and_the_others_are_not(id):
    spec = checkpoint(id)
    assert {case.family for case in spec.cases} == {"llama"}
    assert "llama" not in {case.family for case in spec.neighbours}
    assert len({case.name for case in spec.every_case}) == len(spec.every_case)


def test_every_neighbour_has_cases_where_its_step_is_and_in_whole_models():
    families = {id: {case.family for case in spec.neighbours} for id, spec in CHECKPOINTS.items()}
    for id in ("6", "7", "8", "10"):
        assert families[id] == set(NEIGHBOURS)
    assert families["2"] == {"qwen2", "qwen3"} and families["3"] == {"mistral"} and families["4"] == {"qwen2"}


@pytest.mark.parametrize(
    ("id", "case"),
    [(id, case) for id, case in NEIGHBOUR_CASES if id not in ("4", "10")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_neighbours_case_shows_when_its_step_is_left_out(id, case):
    spec = checkpoint(id)
    inputs, weights = case.values()
    kept = {n: w for n, w in weights.items() if not n.endswith(("q_norm.weight", "k_norm.weight", "bias"))}
    right = run_procedure(spec.procedure, inputs, weights, case.config)
    plain = run_procedure(spec.procedure, inputs, kept, case.config.replace(**OFF))
    strains = [
        error(plain[name], right[name], kept_entries(id, name, inputs)) / tolerance(spec, case, name, "float32")
        for name in spec.outputs
        if name in right and right[name].dtype.kind == "f"
    ]
    assert max(strains) > 1000


def test_a_plain_llama_is_not_asked_for_its_neighbours():
    result = check("3", plain_attention)
    assert result.passed
    assert {c.case for c in result.checks} == set(names(checkpoint("3").cases))


def test_asked_for_by_name_a_neighbours_step_that_is_missing_is_named():
    result = check("3", plain_attention, family="mistral")
    assert not result.passed
    assert {c.case for c in result.checks} == set(names(checkpoint("3").neighbours))
    assert result.cause.mistake.id == "attention-window-ignored"


def test_llama_core_itself_is_asked_for_every_family():
    assert {c.case for c in check("2").checks} == set(names(checkpoint("2").every_case))
    assert {c.case for c in check("2", family="llama").checks} == set(names(checkpoint("2").cases))


def test_a_subclass_of_a_layer_is_given_the_window_as_a_mask():
    assert check("3", type("Mine", (Attention,), {"__module__": __name__}), family="all").passed


def test_a_neighbour_without_cases_of_its_own_is_a_llama_there():
    assert checkpoint("5").of_family("qwen3") == checkpoint("5").cases
    assert check("9", implementations(checkpoint("9"))[0].run, family="mistral").passed


def test_an_unknown_family_is_refused():
    for ask in (lambda: check("3", family="gemma"), lambda: checkpoint("3").of_family("")):
        with pytest.raises(CheckpointError) as caught:
            ask()
        assert caught.value.expected == "llama | mistral | qwen2 | qwen3 | all"


def test_a_configuration_says_its_family():
    configs = {case.family: case.config for _, case in NEIGHBOUR_CASES}
    for family, neighbour in NEIGHBOURS.items():
        assert getattr(configs[family], neighbour.field) and family_of(configs[family]) == family
        assert family_of(configs[family].replace(**OFF)) == "llama"


# Mistakes


def test_a_plain_llamas_wrong_values_are_never_laid_to_a_neighbours_step(monkeypatch):
    seen = []

    def explain(watched, mistakes, *arguments, **options):
        seen.append(list(mistakes))
        return Diagnosis((), (), "nothing was tried", "")

    monkeypatch.setattr("llama_core.checkpoints.diagnose.explain", explain)
    for family in ("llama", "mistral"):
        cases = [c for c in checkpoint("6").of_family(family) if not c.large]
        diagnose(checkpoint("6"), [(case, *case.values(), {}) for case in cases])
    assert {m.family for m in seen[0]} == {"llama"}
    assert {m.family for m in seen[1]} == {"llama", "mistral"}


@pytest.mark.parametrize("m", [m for m in CATALOGUE.values() if m.family != "llama"], ids=lambda m: m.id)
def test_a_neighbours_mistake_cannot_be_made_in_a_plain_llama(m):
    spec = checkpoint(m.checkpoint)
    for case in spec.small_cases:
        inputs, weights = case.values()
        right = run_procedure(spec.procedure, inputs, weights, case.config)
        wrong = run_procedure(spec.procedure, inputs, weights, case.config, changes=m.changes)
        assert all(np.array_equal(right[name], wrong[name]) for name in spec.outputs), case.name


# Interface and exchange


def test_the_interface_of_a_plain_llama_names_its_neighbours_and_asks_for_none_of_their_weights():
    told = interface(checkpoint("2"))
    assert "q_norm" not in told and "Asked: 4 cases of a plain Llama." in told
    assert "qwen3    1 case: each head of q and k is normalised" in told
    assert interface_facts(checkpoint("2"))["neighbours"] == {"qwen2": 1, "qwen3": 1}


def test_the_interface_of_a_neighbour_has_its_weights_and_fields():
    told = interface(checkpoint("2"), family="qwen3")
    assert "self_attn.q_norm.weight  [D]       where config.qk_norm" in told
    assert 'weights.get("self_attn.k_norm.weight")' in told
    assert "config: head_dim, rms_norm_eps" in told
    assert "config: sliding_window" in interface(checkpoint("3"), family="mistral")


def test_the_command_shows_the_interface_of_the_family_that_is_asked_for(capsys):
    asked = ["check", "2", "--interface"]
    assert main([*asked, "--family", "qwen3"]) == 0
    assert "self_attn.q_norm.weight" in capsys.readouterr().out
    assert main([*asked, "--family", "qwen3", "--json"]) == 0
    assert "self_attn.q_norm.weight" in json.loads(capsys.readouterr().out)[0]["weights"]
    assert main(asked) == 0
    assert "self_attn.q_norm.weight  [D]" not in capsys.readouterr().out


@pytest.mark.slow
def test_on_the_command_line_a_family_is_asked_for_by_name(tmp_path, capsys):
    def exported(*flags):
        assert (
            main(["check", "3", "--fast", "--json", "--export", str(tmp_path / "".join(flags) / "cases"), *flags]) == 0
        )
        return [
            json.loads((tmp_path / "".join(flags) / "cases" / "3" / p.split("/")[-1] / "case.json").read_text())
            for p in json.loads(capsys.readouterr().out)
        ]

    assert {document["family"] for document in exported()} == {"llama"}
    assert {document["config"]["sliding_window"] for document in exported("--family", "mistral")} == {3}
    assert {document["family"] for document in exported("--family", "all")} == {"llama", "mistral"}
    (tmp_path / "mine.py").write_text(
        "from llama_core.checkpoints import checkpoint\n"
        "from llama_core.checkpoints.own import implementations\n"
        "def run(i, w, c):\n"
        "    return implementations(checkpoint('3'))[0].run(i, w, c.replace(sliding_window=None))\n"
    )
    mine = f"{tmp_path / 'mine.py'}:run"
    assert main(["check", "3", "--fast", "--implementation", mine]) == 0
    assert main(["check", "3", "--fast", "--implementation", mine, "--family", "mistral"]) == 1
    assert "explain attention-window-ignored" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--family", "gemma"], ["--family", "qwen2", "--prove"], ["--family", "qwen2", "--model", "stories"]]
)
def test_a_family_that_cannot_be_meant_is_status_2(flags, capsys):
    assert main(["check", "3", *flags]) == 2
    assert "family" in capsys.readouterr().err
