"""What the gates hand from function to function is what the signatures say: once, in a process that checks them all."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from llama_core.checkpoints import CHECKPOINTS
from llama_core.layers import Attention

CHECKED = """
import sys
from jaxtyping import TypeCheckError, install_import_hook
install_import_hook("llama_core", "beartype.beartype")
from llama_core.checkpoints import check, checkpoint
from llama_core.checkpoints.arithmetic import round_to

try:
    round_to(1.5, "float32")
except TypeCheckError:
    print("signatures are checked")
for id in sys.argv[1:]:
    for dtype in ("float32", "bfloat16"):
        assert check(id, dtype=dtype, cases=checkpoint(id).small_cases[-2:]).passed, id
wrong = check("5", lambda inputs, weights, config: inputs["ffn_norm"], cases=checkpoint("5").small_cases)
assert wrong.cause is not None
print(f"{id} was the last", len(str(wrong)) > 0)
"""


@pytest.mark.slow
def test_every_gate_and_a_diagnosis_keep_to_the_signatures_of_checkpoints():
    done = subprocess.run([sys.executable, "-c", CHECKED, *CHECKPOINTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[:2] == ["signatures are checked", "10 was the last True"]


def test_shapes_are_checked_where_they_are_stated_in_this_process_too():
    with pytest.raises(TypeCheckError):
        Attention(8).compute_scores(torch.zeros(2, 3, 8), torch.zeros(2, 3, 4, 8))
