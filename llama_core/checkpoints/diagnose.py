"""The cause of a checkpoint's wrong values by name: ``explain`` on the checkpoint's cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, Arithmetic
from llama_core.checkpoints.compare import kept_entries
from llama_core.checkpoints.explain import Diagnosis, Explanation, explain
from llama_core.checkpoints.families import LLAMA
from llama_core.checkpoints.mistakes import candidates_for, classes_at
from llama_core.checkpoints.noise import EXACT, computed_in, generic, tolerances
from llama_core.checkpoints.observation import Arrays, Observation, worth_of
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import Checkpoint
from llama_core.checkpoints.steps import NO_CHANGES, Changes

_LARGE = 3_000_000
#: How many pairs are tried at a checkpoint where one evaluation is dear.
_PAIRS = {"6": 400, "7": 60, "8": 20, "10": 20}


def diagnose(checkpoint: Checkpoint, observations: Sequence[tuple], dtype: str = "float32") -> Diagnosis:
    """Why an implementation's outputs on a checkpoint's cases are wrong.

    Args:
        observations: ``(case, inputs, weights, outputs)`` each; cases whose outputs are right say much, too.
            Outputs that are missing or of the wrong shape are passed over.
        dtype: what the implementation computed in.
    """
    watched = [_observe(checkpoint, dtype, *observation) for observation in observations]
    small = [o for o in watched if o.cost < _LARGE]
    if any(worth_of(o, o.reference)[0] > 1 for o in small):
        watched = small
    families = {LLAMA, *(case.family for case, *_ in observations)}
    return explain(
        watched,
        [mistake for mistake in candidates_for(checkpoint.id) if mistake.family in families],
        computed_in(checkpoint, dtype),
        classes=classes_at(checkpoint.id, computed_in(checkpoint, dtype)),
        max_pairs=_PAIRS.get(checkpoint.id, 400),
    )


def _observe(checkpoint: Checkpoint, dtype: str, case, inputs: Arrays, weights: Arrays, outputs: Arrays) -> Observation:
    def evaluate(changes: Changes, arithmetic: Arithmetic) -> Arrays:
        return run_procedure(checkpoint.procedure, inputs, weights, case.config, arithmetic, changes)

    reference = evaluate(NO_CHANGES, REFERENCE)
    allowed = tolerances(checkpoint, case, dtype, reference)
    named = checkpoint.outputs | checkpoint.welcome
    candidate = {
        name: np.asarray(outputs[name])
        for name, right in reference.items()
        if generic(name) in named and name in outputs and np.shape(outputs[name]) == right.shape
    }
    calls = len(inputs["calls"]) if "calls" in inputs else int(inputs.get("max_new_tokens", [1])[0])
    whole = Observation(
        name=case.name,
        candidate=candidate,
        reference=reference,
        tolerances={name: allowed.get(name, EXACT).value for name in candidate},
        evaluate=evaluate,
        judged=tuple(name for name in candidate if generic(name) in checkpoint.outputs),
        kept={name: kept_entries(checkpoint.id, name, inputs) for name in candidate},
        positions=inputs.get("position_ids"),
        cost=calls * sum(x.size for x in (*inputs.values(), *weights.values())),
    )
    return dataclasses.replace(whole, glimpse=_first_call(checkpoint, case, inputs, weights, whole))


def _first_call(
    checkpoint: Checkpoint, case, inputs: Arrays, weights: Arrays, whole: Observation
) -> Observation | None:
    """What the first of several calls gives, where no later one overwrites it; None where there is but one."""
    names = [name for name in whole.judged if name in ("position_ids", "logits", "token_ids", "streamed_bytes")]
    if not names:
        return None
    if "calls" in inputs and len(inputs["calls"]) > 1:
        begin, end = inputs["calls"][0].tolist()
        end = min(end, int(inputs["calls"][1:, 0].min()))
        fewer = inputs | {"calls": inputs["calls"][:1]}
        part = slice(begin, end)
    elif "max_new_tokens" in inputs and inputs["max_new_tokens"][0] > 1:
        fewer = inputs | {"max_new_tokens": np.array([1])}
        part = slice(0, 1)
    else:
        return None

    def cut(values: Arrays) -> Arrays:
        return {name: values[name][:, part] for name in names}

    def evaluate(changes: Changes, arithmetic: Arithmetic) -> Arrays:
        return cut(run_procedure(checkpoint.procedure, fewer, weights, case.config, arithmetic, changes))

    kept = {}
    for name in names:
        entries = whole.kept[name]
        kept[name] = None if entries is None else np.broadcast_to(entries, whole.reference[name].shape)[:, part]
    return dataclasses.replace(
        whole,
        candidate=cut(whole.candidate),
        reference=cut(whole.reference),
        evaluate=evaluate,
        judged=tuple(names),
        kept=kept,
    )


__all__ = ["Diagnosis", "Explanation", "Observation", "diagnose", "explain"]
