"""Right implementations of every kind pass every gate, on values that do not ship, in every type.

``llama_core``, plain loops, fused kernels, sums from back to front, and transformers' own modules. All seeds in all
types are measured by ``python tests/gates/right/kinds.py``; here checkpoints 1 to 5 and 9 run in full, and the larger
ones take one type per seed in turn.
"""

import pytest
from right import peers
from right.kinds import IDS, judge_right, right_implementations

from llama_core.checkpoints import check, checkpoint
from llama_core.checkpoints.compare import error
from llama_core.checkpoints.implementation import as_implementation, call
from llama_core.checkpoints.noise import DTYPES, tolerance
from llama_core.checkpoints.procedures import run_procedure

SEEDS = 20
#: Whole models and what they generate: ten to twenty seconds each.
LONG = ("7", "8", "10")
WHOLE = ("1", "1B", "2", "3", "4", "5", "9")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("id", [pytest.param(id, marks=[pytest.mark.slow] * (id in LONG)) for id in IDS])
@pytest.mark.filterwarnings("ignore")
def test_no_right_implementation_is_called_wrong(id, dtype):
    number = DTYPES.index(dtype)
    seeds = range(SEEDS) if id in WHOLE else range(number, SEEDS, len(DTYPES))
    wrong = [
        (seed, c.path, c.case, c.output, c.error, c.tolerance.value, c.note)
        for seed in seeds
        for result in judge_right(id, dtype, seed)
        for c in result.checks
        if not c.passed
    ]
    assert wrong == []


def test_every_checkpoint_has_right_implementations_of_other_kinds():
    for id in IDS:
        assert {i.name for i in right_implementations(id)} & {"transformers", "loops", "back to front"}, id


@pytest.mark.parametrize("dtype", DTYPES)
def test_transformers_eager_attention_fails_exactly_where_a_row_sees_nothing(dtype):
    # It adds finfo.min, which is the same everywhere in a row where all is hidden: such a row averages all values.
    result = check("3", peers.attention("eager"), dtype=dtype, cases=checkpoint("3").small_cases)
    unseeing = {case.name for case in checkpoint("3").small_cases if (case.values()[0]["position_ids"] < 0).any()}
    assert unseeing == {"left padding", "right padding"}
    assert {c.case for c in result.failures} == unseeing


def test_transformers_eager_attention_is_right_in_every_row_that_sees_something():
    spec = checkpoint("3")
    for name in ("left padding", "right padding"):
        case = spec.case(name)
        inputs, _ = case.values()
        found = call(as_implementation(peers.attention("eager"), spec), spec, case, inputs, {}, "float32", "cpu")
        expected = run_procedure(spec.procedure, inputs, {}, case.config)["attention_context"]
        seeing = inputs["position_ids"] >= 0
        value = found["attention_context"].double().numpy()
        assert error(value[seeing], expected[seeing]) < tolerance(spec, case, "attention_context", "float32")
        assert error(value[~seeing], expected[~seeing]) > 0.1
