"""Pictures of a comparison: the ladder of errors, and where the worst tensor is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure as Drawing

from llama_core import viz
from llama_core.checkpoints.noise import FACTOR
from llama_core.report import Figure
from llama_core.traces.judge import ErrorMap, Judged
from llama_core.traces.verdict import WRONG, Comparison
from llama_core.viz.display import alternative_text

#: More cells than these above the tolerance are not crossed one by one: the colours show them.
_CROSSED = 400
#: Errors beyond this are drawn as this, where small ones stand beside them.
_MOST = 1_000
GOLDEN, INPUTS = "against the golden trace", "on the candidate's own inputs"
#: From a sequence and a position to the text of the token there.
Label = Callable[[int, int], str]


def ladder(result: Comparison) -> Figure | None:
    """Every compared tensor's error, in units of its row and head, over the noise there."""
    names = [line.name for line in result.lines if line.name in result.judged and "_ids" not in line.name]
    judged = [result.judged[name] for name in names]
    panels = {GOLDEN: [j.from_golden for j in judged]}
    if result.with_model:
        panels[INPUTS] = [j.from_inputs for j in judged]
    errors = {panel: np.array([_error(m) for m in maps]) for panel, maps in panels.items()}
    noise = {panel: np.array([np.nan if m.noise is None else m.noise for m in maps]) for panel, maps in panels.items()}
    if all(np.isnan(values).all() for values in errors.values()):
        return None
    wrong = [line.name for line in result.lines if line.status == WRONG]
    return _picture(viz.noise_ladder(names, errors, noise, factor=FACTOR, wrong=wrong), "ladder")


def _error(errors: ErrorMap) -> float:
    return np.nan if errors.worth < 0 else errors.error


def worst_tensor(result: Comparison) -> str | None:
    """The first wrong tensor, or else the one that is furthest off."""
    if result.first is not None and _rows(result.judged[result.first]):
        return result.first
    known = {name: j.cumulative or 0.0 for name, j in result.judged.items() if _rows(j) and not name.endswith("_ids")}
    return max(known, key=known.__getitem__, default=None)


def error_maps(result: Comparison, name: str, label: Label) -> list[Figure]:
    """Where a tensor is off: heads and tokens, where it has heads; and all tensors of its layer at every token."""
    kind, errors = _map(result.judged[name])
    worst = max(errors.rows, key=lambda pair: float(errors.rows[pair].max()))
    sequence = worst[0]
    positions, table = errors.table(sequence)
    about = f"{name}, {kind}, in tolerances"
    found = []
    if len(table) > 1:
        found.append(_map_figure(table, positions, sequence, label, None, f"{about}: {_extent(table)}", "heads"))
    layer = [n for n in result.judged if _place(n) == _place(name) and _map(result.judged[n])[0] == kind]
    rows = {n: _map(result.judged[n])[1].rows for n in layer}
    rows = {n: r for n, r in rows.items() if r and not n.endswith("_ids")}
    positions = sorted({p for r in rows.values() for s, p in r if s == sequence})
    table = np.array(
        [[float(r[sequence, p].max()) if (sequence, p) in r else 0.0 for p in positions] for r in rows.values()]
    )
    table = np.minimum(table, _MOST)
    where = f"Layer {_place(name)}" if _place(name).isdigit() else "Outside the layers"
    title = f"{where}, every tensor, {kind}, in tolerances (up to {_MOST:,})"
    if table.size:
        found.append(_map_figure(table, positions, sequence, label, [_short(n) for n in rows], title, "layer"))
    return found


def _rows(judged: Judged) -> bool:
    return bool(judged.from_inputs.rows or judged.from_golden.rows)


def _map(judged: Judged) -> tuple[str, ErrorMap]:
    return (INPUTS if judged.from_inputs.rows else GOLDEN), judged.worst_map


def _place(name: str) -> str:
    return name.split(".")[1] if name.startswith("layers.") else ""


def _short(name: str) -> str:
    """Without its layer, and short enough for a row."""
    return name.split(".", 2)[-1].replace("attention", "attn") if name.startswith("layers.") else name


def _extent(table: np.ndarray) -> str:
    heads, positions = (table > 1).any(1).sum(), (table > 1).any(0).sum()
    if not heads:
        return "nothing is above the tolerance"
    return f"{heads} of {len(table)} heads and {positions} of {table.shape[1]} positions are above the tolerance"


def _map_figure(table, positions, sequence, label: Label, rows, title: str, kind: str) -> Figure:
    tolerance = 1 if 0 < (table > 1).sum() <= _CROSSED else None
    tokens = [label(sequence, position) for position in positions]
    drawing = viz.error_map(table, tokens, rows, tolerance=tolerance, quantity="error in tolerances", title=title)
    return _picture(drawing, kind)


def _picture(drawing: Drawing, kind: str) -> Figure:
    return Figure(f"comparison-{kind}", viz.png(drawing), alternative_text(drawing))
