"""Whether an implementation gives the same bits each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.gate import Source
from llama_core.checkpoints.outputs import Unfit, describe_array
from llama_core.checkpoints.specification import Checkpoint

RUNS = 3


def differing_outputs(spec: Checkpoint, sources: Sequence[Source], case: Case, dtype: str) -> list[str] | None:
    """Which outputs of one case are not the same bits in ``RUNS`` runs on the same inputs.

    Returns:
        Their names, the source's path in front where it has one; None where a run gave nothing.
    """
    inputs, weights = case.values(dtype)
    differing = []
    for source in sources:
        try:
            runs = [source.produce(spec, case, inputs, weights, dtype) for _ in range(RUNS)]
        except Unfit:
            return None
        first, *others = [{name: _bits(value) for name, value in run.items()} for run in runs]
        wrong = [name for name in first if any(other.get(name) != first[name] for other in others)]
        differing += [f"{source.path} {name}".strip() for name in wrong]
    return differing


def _bits(value: object) -> tuple[str, bytes]:
    kind, array = describe_array(value)
    return kind, b"" if array is None else np.ascontiguousarray(array).tobytes()
