"""Pictures of a gate's result: its checks, the error of a wrong case, the masks of checkpoint 3."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure as Drawing

from llama_core import viz
from llama_core.checkpoints.compare import axes_of
from llama_core.checkpoints.noise import generic
from llama_core.checkpoints.reference import visible
from llama_core.checkpoints.result import Check, CheckResult, strain
from llama_core.checkpoints.specification import Checkpoint, checkpoint
from llama_core.report import Figure
from llama_core.viz.display import alternative_text

#: More checks than this are drawn one for each case and path.
_MANY = 40
#: Axes that a picture has across and down, the first that there is.
_ACROSS, _DOWN = ("S", "N", "V", "T", "E"), ("H", "K", "T", "B")
_OF_ROWS = {"H": "head", "K": "kv-head", "B": "row", "T": "key"}


def checks_figure(result: CheckResult) -> Figure | None:
    """Error, noise and tolerance of each check; None where there is no tolerance to draw."""
    checks = [c for c in result.checks if c.output and c.required]
    if not any(c.tolerance.value for c in checks):
        return None
    title = None
    if len(checks) > _MANY:
        worst: dict[tuple[str, str], Check] = {}
        for check in checks:
            key = check.case, check.path
            if key not in worst or strain(check) > strain(worst[key]):
                worst[key] = check
        result = dataclasses.replace(result, checks=tuple(worst.values()))
        title = f"Of {len(checks)} checks the one nearest to its tolerance, or furthest beyond it, in each case"
    return _picture(viz.gate_checks(result, to_the_digit=True, title=title), checkpoint(result.id), "checks")


def error_figure(result: CheckResult, spec: Checkpoint) -> Figure | None:
    """Where the case that is off by most is wrong; None where nothing with an axis is."""
    wrong = result.wrong_case
    if wrong is None:
        return None
    checks = {c.output: c for c in result.checks if (c.case, c.path) == (wrong.case, wrong.path)}
    errors = {name: error for name, error in wrong.errors.items() if _laid_out(error, _axes(name, spec)) is not None}
    first = next((name for name in errors if not checks[name].passed), None)
    if first is None:
        return None
    tolerance = checks[first].tolerance.value or None
    by_step = {name: error for name, error in errors.items() if _axes(name, spec)[:2] == ["B", "S"]}
    whole = len(by_step) > 1 and not set(_axes(first, spec)) & {"H", "K"}
    if whole:  # a line for each step shows where the error begins
        rows = [_flat(error).max(0) for error in by_step.values()]
        table, names = np.stack(rows), [name.removeprefix("layers.") for name in by_step]
        tolerance, about = None, "the largest error of each step"
    else:
        laid = _laid_out(errors[first], _axes(first, spec))
        assert laid is not None
        table, names = laid
        about = first
    where = f"Case “{wrong.case}”, {wrong.path} path" if wrong.path else f"Case “{wrong.case}”"
    finite = table[np.isfinite(table)]
    worst = f"at most {finite.max():.2g}" if finite.size else "no error is finite"
    title = f"{where}, {about}: {worst} root mean squares" + (f", tolerance {tolerance:.2g}" if tolerance else "")
    drawing = viz.error_map(table, rows=names, tolerance=tolerance, title=title)
    return _picture(drawing, spec, "error")


def masks_figure(spec: Checkpoint) -> Figure:
    """Who sees whom in the small cases of checkpoint 3: the first row of each batch, by positions."""
    masks = {}
    for case in spec.small_cases:
        if case.name == "decode":  # its one query sees every key
            continue
        inputs, _ = case.values()
        masks[case.name] = visible(inputs["position_ids"], inputs["key_positions"])[0, 0]
    title = "Hidden: padding, and what is after the query; for S = T without padding strictly above the diagonal"
    return _picture(viz.causal_masks(masks, title=title), spec, "masks")


def _axes(name: str, spec: Checkpoint) -> list[str]:
    named = spec.outputs | spec.welcome
    return (named.get(generic(name)) or axes_of(name)).split()


def _flat(error: np.ndarray) -> np.ndarray:
    """[B, S, ...] as [B, S]: the largest error of each position."""
    return error.reshape(*error.shape[:2], -1).max(-1)


def _laid_out(error: np.ndarray, axes: list[str]) -> tuple[np.ndarray, list[str]] | None:
    """An error as rows and columns, the largest over all other axes; and what the rows are called."""
    across = next((a for a in _ACROSS if a in axes), None)
    down = next((a for a in _DOWN if a in axes and a != across), None)
    if across is None or down is None:
        return None
    n, m = axes.index(down), axes.index(across)
    others = tuple(i for i in range(len(axes)) if i not in (n, m))
    table = error.max(others) if others else error
    table = table if n < m else table.T
    return table, [f"{_OF_ROWS[down]}-{row}" for row in range(len(table))]


def _picture(drawing: Drawing, spec: Checkpoint, kind: str) -> Figure:
    return Figure(f"{spec.notebook}-{kind}", viz.png(drawing), alternative_text(drawing))
