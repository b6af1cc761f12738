"""What a report measures besides the gate: the known mistakes, repeated runs, the circumstances."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.environment import environment
from llama_core.checkpoints.gate import Source
from llama_core.checkpoints.prove import prove
from llama_core.checkpoints.repeated import differing_outputs
from llama_core.checkpoints.result import CheckResult
from llama_core.checkpoints.specification import checkpoint
from llama_core.gate_report.pages import Circumstances
from llama_core.gate_report.sections import Measured


def measure(result: CheckResult, cases: Sequence[Case], sources: Sequence[Source]) -> Measured:
    """Try every known mistake of the result's checkpoint in its type, and run the first case again.

    Args:
        sources: what can be run again; none for results in files.
    """
    spec = checkpoint(result.id)
    differing = differing_outputs(spec, sources, cases[0], result.dtype) if sources else None
    return Measured(result, cases, prove(result.dtype, [spec.id]), differing)


def circumstances(device: str) -> Circumstances:
    """Now, on this machine."""
    return Circumstances(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", environment(device))
