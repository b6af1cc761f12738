"""Candidates for a diagnosis: a checkpoint's cases computed with a change to the table, as some program would."""

from llama_core.checkpoints.arithmetic import Arithmetic
from llama_core.checkpoints.noise import computed_in
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import CHECKPOINTS

#: Greedy ids are blunt: with this offset no two mistakes of checkpoint 10 give the same.
OTHER_SEED = 50_610


def observe(checkpoint_id, changes, dtype="float32", seed=OTHER_SEED):
    """(case, inputs, weights, outputs) of every small case of every family, on values that do not ship.

    Sums run in another order than in the diagnosis, and in half precision attention is fused and the norm casts last.
    """
    checkpoint = CHECKPOINTS[checkpoint_id]
    type = computed_in(checkpoint, dtype)
    half = type != "float32"
    arithmetic = Arithmetic(
        type, wide="float32", order="blocked", fused_attention=half, norm_casts_last=half, float32_tables=True
    )
    observations = []
    for case in checkpoint.every_small_case:
        if checkpoint_id != "0":  # whose cases are configurations
            case = case.reseeded(seed + case.seed)
        inputs, weights = case.values(dtype)
        outputs = run_procedure(checkpoint.procedure, inputs, weights, case.config, arithmetic, changes)
        observations.append((case, inputs, weights, outputs))
    return observations
