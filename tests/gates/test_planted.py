"""Mistakes planted by hand in a plain torch Llama: the gate fails and names them; the plain Llama passes."""

import pytest
from plain_llama import Plain
from planted import OTHERWISE, PLANTED
from sweep import CHECKPOINTS_SWEPT, results

from llama_core.checkpoints import check
from llama_core.checkpoints.mistakes import CATALOGUE, classes_at
from llama_core.checkpoints.specification import CHECKPOINTS

#: In bfloat16 these stay within the noise of right implementations (``--prove`` states it): the gate lets them pass.
WITHIN_NOISE = {"norm-in-half-precision", "attention-softmax-in-half-precision"}


def test_more_than_half_of_the_catalogue_is_planted():
    assert set(PLANTED) <= set(CATALOGUE)
    assert len(PLANTED) > 0.85 * len(CATALOGUE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("checkpoint_id", [id for id in CHECKPOINTS if id != "0"])
def test_the_plain_program_passes(checkpoint_id, dtype):
    result = check(checkpoint_id, Plain(checkpoint_id), dtype=dtype, cases=CHECKPOINTS[checkpoint_id].every_small_case)
    assert result.passed, str(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("id", "dtype"),
    [
        (id, dtype)
        for id, (checkpoint, _) in PLANTED.items()
        for dtype, at in CHECKPOINTS_SWEPT.items()
        if checkpoint in at
    ],
)
def test_a_planted_mistake_is_caught_and_named(id, dtype):
    checkpoint_id, _ = PLANTED[id]
    found = results("planted", dtype)[id]
    if dtype == "bfloat16" and id in WITHIN_NOISE:
        assert found["passed"]
        return
    assert not found["passed"]
    assert len(found["named"]) == 1, found
    assert any({id, *found["named"]} <= alike for alike in [{id}, *classes_at(checkpoint_id, dtype)]), found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", CHECKPOINTS_SWEPT)
@pytest.mark.parametrize("id", OTHERWISE)
def test_a_mistake_made_in_another_way_is_named_as_the_same(id, dtype):
    found = results("planted", dtype)[f"{id}, otherwise"]
    assert not found["passed"] and found["named"] == [id], found
