"""Which part of the first wrong tensor is wrong: positions, heads, coordinates, and what the error looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llama_core.checkpoints.locate import locate
from llama_core.names import activation_axes
from llama_core.traces.judge import Introduced, introduced
from llama_core.traces.measure import hide, tolerances
from llama_core.traces.regions import Place, full_name

if TYPE_CHECKING:
    from llama_core.traces.comparison import _Run


def rows_of(run: _Run, call: int):
    rows = run.candidate.rows(call)
    return slice(None) if rows is None else list(rows)


def where_wrong(run: _Run, place: Place, name: str, call: int) -> str:
    """The part of a tensor that is wrong, against what the candidate's own inputs give."""
    full = full_name(place, name)
    mine = run.candidate.provided(full, call)
    if name == "position_ids" and mine is not None:
        return f"{name} in call {call} is {mine.tolist()}, not {run.theirs.calls[call].positions.tolist()}"
    one = introduced(run.candidate, place, call, name, run.dtype)
    if one is None:
        return where_by_golden(run, full, call)
    right = run.candidate.region(place, call).computed(name)
    return _located(run, full, call, mine, right, one)


def _located(run: _Run, full: str, call: int, mine: np.ndarray, right: np.ndarray, one: Introduced) -> str:
    facts = run.theirs.calls[call]
    positions = facts.positions[:, rows_of(run, call)]
    letters = activation_axes(full).split()
    finite = right[np.isfinite(right)]
    rms = float(np.sqrt(np.mean(finite * finite))) if finite.size else 1.0
    bad = one.worth > 1
    limit = (tolerances(one.floors) * one.unit)[bad]
    tolerance = float(limit.min()) / (rms or 1.0) if limit.size else 0.0
    kept = np.ones([1] * len(letters), bool)
    if "S" in letters:
        shape = [1] * len(letters)
        shape[0], shape[letters.index("S")] = positions.shape
        kept = kept & (positions >= 0).reshape(shape)
    if "T" in letters and full.endswith((".scores", ".cache_k", ".cache_v")):
        keys = facts.key_positions
        shape = [1] * len(letters)
        shape[0], shape[letters.index("T")] = keys.shape
        kept = kept & (keys >= 0).reshape(shape)
        if full.endswith(".scores"):
            kept = kept & (keys[:, None, None, :] <= positions[:, None, :, None])
    hidden, _ = hide(mine, right)
    if not (np.isnan(hidden) | (hidden != right))[np.broadcast_to(kept, right.shape)].any():
        return f"{full} in call {call}, at padding"
    with np.errstate(all="ignore"):
        region = locate(full, " ".join(letters), hidden, right, tolerance, kept, positions, run.dtype)
    return f"{region} (call {call})"


def where_by_golden(run: _Run, full: str, call: int) -> str:
    """The part of a tensor that is wrong, against the golden trace: rows and heads."""
    judged = run.judged[full]
    if judged.heads is None or judged.positions is None:
        return f"{full} in call {call}"
    bad = judged.heads > 1
    rows, heads = np.flatnonzero(bad.any(1)), np.flatnonzero(bad.any(0))
    text = f"{full} in call {call}"
    if bad.shape[1] > 1 and len(heads) < bad.shape[1]:
        text += f", confined to heads {', '.join(map(str, heads[:8]))}"
    if len(rows) < len(bad):
        positions = sorted(set(judged.positions[rows].tolist()))
        text += f", at positions {', '.join(map(str, positions[:8]))}{' and others' if len(positions) > 8 else ''}"
    return text
