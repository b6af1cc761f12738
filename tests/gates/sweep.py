"""Diagnosis over the whole catalogue, in a process without the import hook that checks types: ``sweep.py KIND DTYPE``.

With the hook every one of some millions of small calls is checked, and minutes become an hour. Prints JSON.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def results(kind: str, dtype: str) -> dict:
    """What a sweep found; run once per test session."""
    command = [sys.executable, str(Path(__file__)), kind, dtype]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def told(found) -> dict:
    return {
        "named": [m.id for m in found.mistakes],
        "alternatives": [e.id for e in found.alternatives],
        "evidence": found.evidence,
    }


def sweep_named(dtype, checkpoints):
    """Every mistake of the catalogue, made in each of its ways, computed on values that do not ship."""
    from observed import observe

    from llama_core.checkpoints.diagnose import diagnose
    from llama_core.checkpoints.mistakes import CATALOGUE
    from llama_core.checkpoints.specification import CHECKPOINTS

    return {
        m.id: [told(diagnose(CHECKPOINTS[m.checkpoint], observe(m.checkpoint, way, dtype), dtype)) for way in m.ways]
        for m in CATALOGUE.values()
        if m.checkpoint in checkpoints
    }


def sweep_outside(dtype, checkpoints):
    """Every error outside the catalogue, on the same values."""
    from observed import observe
    from outside import OUTSIDE

    from llama_core.checkpoints.diagnose import diagnose
    from llama_core.checkpoints.specification import CHECKPOINTS

    return {
        f"{id} {name}": told(diagnose(CHECKPOINTS[id], observe(id, changes, dtype), dtype))
        for id, name, changes in OUTSIDE
        if id in checkpoints
    }


def sweep_planted(dtype, checkpoints):
    """Every mistake planted in the plain torch Llama, through the gate."""
    import torch
    from planted import OTHERWISE, PLANTED, planted

    from llama_core.checkpoints import check
    from llama_core.checkpoints.specification import CHECKPOINTS

    torch.set_num_threads(1)
    judged = {}
    tables = (("", PLANTED), (", otherwise", OTHERWISE))
    for made, table, id in [(m, t, id) for m, t in tables for id in t]:
        checkpoint_id = table[id][0]
        if checkpoint_id in checkpoints:
            cases = CHECKPOINTS[checkpoint_id].every_small_case
            result = check(checkpoint_id, planted(id, table), dtype=dtype, cases=cases)
            judged[id + made] = {"passed": result.passed} | (told(result.cause) if result.cause else {"named": []})
    return judged


def sweep_classes(dtype, checkpoints):
    """The classes of mistakes that a checkpoint cannot tell apart."""
    from llama_core.checkpoints.equivalence import find_classes

    return {id: sorted(sorted(members) for members in find_classes(id, dtype)) for id in checkpoints}


#: In half precision only where a sweep takes seconds.
CHECKPOINTS_SWEPT = {
    "float32": ("0", "1", "1B", "2", "3", "4", "5", "6", "7", "8", "9", "10"),
    "bfloat16": ("1", "1B", "2", "3", "4", "5", "6", "9"),
}

if __name__ == "__main__":
    kind, dtype = sys.argv[1:]
    sweeps = {"named": sweep_named, "outside": sweep_outside, "planted": sweep_planted, "classes": sweep_classes}
    print(json.dumps(sweeps[kind](dtype, CHECKPOINTS_SWEPT[dtype])))
