"""Which mistakes a checkpoint's outputs cannot tell apart: ``python -m llama_core.checkpoints.equivalence``.

What it prints is committed, with the reasons, in ``mistakes/classes.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from llama_core.checkpoints.compare import kept_entries, scale
from llama_core.checkpoints.mistakes import candidates_for
from llama_core.checkpoints.noise import EXACT, generic, tolerances
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import CHECKPOINTS, Checkpoint
from llama_core.checkpoints.steps import NO_CHANGES, Changes

Arrays = dict[str, np.ndarray]
#: A mistake's id, and one way to make it.
Way = tuple[str, Changes]
#: In the place of an id: nothing is wrong.
_RIGHT = ""


def find_classes(checkpoint_id: str, dtype: str = "float32") -> list[frozenset[str]]:
    """Sets of two or more mistakes that show at a checkpoint and agree within tolerance on all of its small cases."""
    checkpoint = CHECKPOINTS[checkpoint_id]
    groups = [_candidates(checkpoint_id)]
    for case in sorted(checkpoint.every_small_case, key=lambda case: _cost(case.values(dtype)[0])):
        groups = [part for group in groups for part in _split(checkpoint, case, group, dtype)]
        groups = [group for group in groups if len({id for id, _ in group}) > 1]
    found = [frozenset(id for id, _ in group) for group in groups]
    return list(dict.fromkeys(members for members in found if _RIGHT not in members))


def find_invisible(checkpoint_id: str, dtype: str = "float32") -> frozenset[str]:
    """The candidate mistakes that make no difference at a checkpoint."""
    checkpoint = CHECKPOINTS[checkpoint_id]
    group = _candidates(checkpoint_id)
    for case in checkpoint.every_small_case:
        group = next(part for part in _split(checkpoint, case, group, dtype) if part[0][0] == _RIGHT)
    return frozenset(id for id, _ in group) - {_RIGHT}


def _candidates(checkpoint_id: str) -> list[Way]:
    """The right values, and every way to make every mistake that may show."""
    return [(_RIGHT, NO_CHANGES), *((m.id, way) for m in candidates_for(checkpoint_id) for way in m.ways)]


def _split(checkpoint: Checkpoint, case, group: Sequence[Way], dtype: str) -> list[list[Way]]:
    """The parts of a group that agree on one case; each is compared with the first of every part."""
    inputs, weights = case.values(dtype)
    allowed = {name: t.value for name, t in tolerances(checkpoint, case, dtype).items()}
    parts: list[tuple[Arrays, list[Way]]] = []
    for way in group:
        changes = way[1]
        values = run_procedure(checkpoint.procedure, inputs, weights, case.config, changes=changes)
        values = {name: values[name] for name in values if generic(name) in checkpoint.outputs}
        for first, members in parts:
            if _agree(checkpoint, inputs, values, first, allowed):
                members.append(way)
                break
        else:
            parts.append((values, [way]))
    return [members for _, members in parts]


def _agree(checkpoint: Checkpoint, inputs: Arrays, a: Arrays, b: Arrays, allowed: dict[str, float]) -> bool:
    for name in a:
        kept = kept_entries(checkpoint.id, name, inputs)
        x, y = (
            np.broadcast_to(v, v.shape)[np.broadcast_to(True if kept is None else kept, v.shape)]
            for v in (a[name], b[name])
        )
        if x.dtype.kind != "f":
            if (x != y).any():
                return False
            continue
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return False
        finite = np.isfinite(x)
        unit = max(scale(x), scale(y))
        if finite.any() and np.abs(x[finite] - y[finite]).max() / unit > allowed.get(name, EXACT.value):
            return False
    return True


def _cost(inputs: Arrays) -> int:
    return len(inputs.get("calls", ())) + int(inputs.get("max_new_tokens", [0])[0])


def main() -> None:
    """Print the classes of every checkpoint, and what does not show there."""
    parser = argparse.ArgumentParser(prog="python -m llama_core.checkpoints.equivalence", description=main.__doc__)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    dtype = parser.parse_args().dtype
    for id in CHECKPOINTS:
        for members in find_classes(id, dtype):
            print(f"{id}: {', '.join(sorted(members))}")
        if invisible := find_invisible(id, dtype):
            print(f"{id}: not seen: {', '.join(sorted(invisible))}")


if __name__ == "__main__":
    main()
