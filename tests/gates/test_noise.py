"""The floors are what right arithmetics measure, and the committed ones are what the command gives."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llama_core.checkpoints import noise
from llama_core.checkpoints.arithmetic import Arithmetic, right_arithmetics
from llama_core.checkpoints.noise import DTYPES, EXACT, FACTOR, generic, tolerance, tolerances
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import CHECKPOINTS, checkpoint


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("id", "case"), [("1", "tiny"), ("3", "mistral chunk"), ("6", "small"), ("6", "qwen3"), ("9", "all")]
)
def test_committed_floors_are_measured_again(id, case, dtype):
    spec = checkpoint(id)
    found = noise.measure_seeds(spec, spec.case(case), dtype, noise.shipped_seeds(spec.case(case)))
    committed = noise.shipped_floors()[dtype][id][case]
    assert found.keys() == committed.keys()
    # Other processors sum in another order, and a floor is a few roundings: half or twice as many is the same floor.
    assert all(committed[name] / 2 <= found[name] <= 2 * committed[name] for name in found)


def test_every_floating_point_output_of_every_case_has_a_floor():
    for dtype in DTYPES:
        for id, spec in CHECKPOINTS.items():
            committed = noise.shipped_floors()[dtype][id]
            assert committed.keys() == {case.name for case in spec.every_case}
            if id in ("0", "10"):
                continue
            for case in spec.every_case:
                named = {generic(name) for name in committed[case.name]}
                whole = {"position_ids", "greedy_ids", "kept"}
                assert set(spec.outputs) - whole <= named, (id, case.name)


def test_nothing_is_committed_that_no_case_has():
    assert json.loads(noise._FILE.read_text())["floors"].keys() == set(DTYPES)


def test_floors_are_a_few_roundings_of_the_type():
    # Half a unit in the last place, relative: 2^-24, 2^-9, 2^-12. A single product or norm rounds a few times.
    for dtype, unit in (("float32", 2**-24), ("bfloat16", 2**-9), ("float16", 2**-12)):
        for id, case, output in (
            ("1", "ordinary", "attention_norm"),
            ("2", "square", "q"),
            ("3", "prefill", "attention_context"),
        ):
            floor = noise.shipped_floors()[dtype][id][case][output]
            assert unit < floor < 30 * unit, (dtype, id)


def test_another_epsilon_is_hundreds_of_tolerances_away_in_float32():
    case = checkpoint("1").case("ordinary")
    wrong = case.config.replace(rms_norm_eps=1e-3)
    inputs, weights = case.values()
    a, b = (
        run_procedure(checkpoint("1").procedure, inputs, weights, c)["attention_norm"] for c in (case.config, wrong)
    )
    assert np.abs(a - b).max() > 100 * tolerance(checkpoint("1"), case, "attention_norm", "float32")


def test_what_is_handed_through_and_whole_numbers_are_exact():
    for dtype in DTYPES:
        assert tolerances(checkpoint("1B"), checkpoint("1B").case("half"), dtype)["v"] == EXACT
    assert tolerance(checkpoint("10"), checkpoint("10").case("single"), "token_ids", "float32") == 0


def test_probabilities_are_held_to_float32_in_every_type():
    case = checkpoint("9").case("hot")
    assert len({tolerance(checkpoint("9"), case, "probabilities", dtype) for dtype in DTYPES}) == 1


def test_values_that_do_not_ship_are_measured_on_the_spot():
    shipped = checkpoint("2").case("grouped")
    given = replace(shipped, given=shipped.reseeded(31).values())
    found = tolerances(checkpoint("2"), given, "bfloat16")["q"]
    assert found.source == "measured now"
    assert found.value == FACTOR * noise.measure(checkpoint("2"), given, "bfloat16")["q"] > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_arithmetics_are_not_one_and_the_same(dtype):
    spec, case = checkpoint("6"), checkpoint("6").case("grouped")
    inputs, weights = case.values(dtype)
    ways = right_arithmetics(dtype)
    outputs = {run_procedure(spec.procedure, inputs, weights, case.config, a)["output"].tobytes() for a in ways}
    assert len(outputs) >= 3


def test_every_named_value_is_rounded_to_its_type():
    spec = checkpoint("6")
    inputs, weights = spec.case("grouped").values("bfloat16")
    values = run_procedure(spec.procedure, inputs, weights, spec.case("grouped").config, Arithmetic("bfloat16"))
    for name, x in values.items():
        if x.dtype.kind == "f":
            finite = x[np.isfinite(x)].astype(np.float32)
            assert not (finite.view(np.uint32) & 0xFFFF).any(), name
