"""Right beside wrong: the fingerprint that a mistake leaves, and the map of an implementation's errors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array, as_mask
from llama_core.viz.heatmap import broken_note, heatmap, largest, write
from llama_core.viz.style import MAX_WIDTH, ORANGE, finish, house_style, new_figure, number
from llama_core.viz.tokens import set_token_ticks, token_label, token_labels


@house_style()
def fingerprint(
    right: Values,
    wrong: Mapping[str, Values],
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    weights: bool = False,
    hidden: Values | None = None,
    title: str | None = None,
) -> Figure:
    """The right picture beside what mistakes make of it; below each mistake, wrong minus right.

    Args:
        right: [S, T]. wrong: what the mistake is called -> [S, T]; at most four.
        rows, columns: labels, usually tokens.
        weights: values lie between 0 and 1 and are drawn on the sequential map; else on the one centred on 0.
        hidden: [S, T], cells that the right mask hides; hatched wherever the value is 0 or -inf.
        title: in place of the finding.

    The maps of right and wrong share one scale, and so do the differences. An infinite value on one side only counts
    as a difference that is not finite. Raises InputError for shapes that differ.
    """
    if not isinstance(wrong, Mapping) or not 1 <= len(wrong) <= 4:
        raise InputError(
            "there must be one to four wrong pictures",
            key="wrong",
            expected="name -> [S, T]",
            actual=len(wrong) if isinstance(wrong, Mapping) else type(wrong).__name__,
        )
    sizes: dict = {}
    truth = as_array(right, "right", "S T", sizes)
    others = {name: as_array(values, f"wrong {name!r}", "S T", sizes) for name, values in wrong.items()}
    mask = np.zeros(truth.shape, bool) if hidden is None else as_mask(hidden, "hidden", "S T", sizes)
    with np.errstate(invalid="ignore"):
        # Equal infinities differ by nothing, though inf - inf is not a number.
        gaps = {name: np.where(values == truth, 0.0, values - truth) for name, values in others.items()}

    count = len(others)
    queries, keys = truth.shape
    in_line = count == 1  # right, wrong, difference; else the differences stand below
    across = 3 if in_line else count + 1
    width = min(3.0, (MAX_WIDTH - 1.3) / across)
    height = float(np.clip(width * queries / keys, 0.45, width))
    labels_below = 0.06 * max(map(len, columns), default=2) if columns is not None else 0.1
    fig = new_figure(max(5.0, 1.3 + across * width), 0.8 + (1 if in_line else 2) * (height + 0.6 + labels_below))
    grid = fig.subplots(1 if in_line else 2, across, squeeze=False)
    limit = None if weights else largest(truth, *others.values())
    step = largest(*gaps.values())
    worst = {name: largest(gap) if np.any(np.isfinite(gap) & (gap != 0)) else 0.0 for name, gap in gaps.items()}
    pictures = {"right": truth} | others

    def draw(ax: Axes, values: np.ndarray, name: str, scale: float | None, first: bool, last: bool):
        cells = mask & ((values == 0) | np.isneginf(values)) if name in pictures else None
        image = heatmap(ax, values, cells, limit=scale)
        ax.set_title("\n".join(textwrap.wrap(name, max(12, int(13 * width)))))
        _ticks(ax, rows if first else [], columns if last else [], values.shape, 72 * width, 72 * height)
        return image

    top = [
        draw(ax, v, n, limit, k == 0, True)
        for k, (ax, (n, v)) in enumerate(zip(grid[0], pictures.items(), strict=False))
    ]
    below = [grid[0][2]] if in_line else list(grid[1][1:])
    for k, (ax, (name, gap)) in enumerate(zip(below, gaps.items(), strict=True)):
        difference = draw(ax, gap, _over(worst[name], gap), step, not in_line and k == 0, True)
    _bar(
        fig,
        top[0],
        grid[0][:2].tolist() if in_line else grid[0].tolist(),
        [0, 0.5, 1] if weights else [-limit, 0, limit],
    )
    _bar(fig, difference, below, [-step, 0, step])
    if not in_line:
        grid[1][0].axis("off")
        grid[1][0].text(0, 1, _HOW_TO_READ, size=8, va="top", linespacing=1.5, transform=grid[1][0].transAxes)
    visible = [np.where(mask & np.isneginf(v), 0, v) for v in pictures.values()]
    alt = f"The right heat map beside {count} wrong one{'s' * (count > 1)}, and the differences"
    alt += ", at most " + ", ".join(f"{number(v)} with “{n}”" for n, v in worst.items()) + "." if count > 1 else "."
    return finish(fig, _finding_of_mistakes(worst) + broken_note(*visible), title, alt)


_HOW_TO_READ = "Below each mistake:\nwhat it changes,\non one scale for all."


def _over(worst: float, gap: np.ndarray) -> str:
    """The words over a difference."""
    if worst == 0 and np.isfinite(gap).all():
        return "no difference"
    return "wrong − right" + f", ≤ {number(worst)}" * (worst > 0)


def _finding_of_mistakes(worst: dict[str, float]) -> str:
    """The only mistake's largest difference; of several, the mistakes that differ least and most."""
    if not any(worst.values()):
        return "no difference can be seen here"
    if len(worst) == 1:
        ((name, value),) = worst.items()
        return f"largest difference: {number(value)} with “{name}”"
    order = sorted((name for name in worst if worst[name]), key=worst.__getitem__)
    most = f"“{order[-1]}” differs most, by up to {number(worst[order[-1]])}"
    return most if len(order) == 1 else f"{most}; “{order[0]}” least, by {number(worst[order[0]])}"


def _ticks(ax: Axes, rows, columns, shape: tuple[int, int], width: float, height: float) -> None:
    for axis, labels, count, room in ((ax.yaxis, rows, shape[0], height), (ax.xaxis, columns, shape[1], width)):
        if labels is not None and not len(labels):
            axis.set_ticks([])
        else:
            set_token_ticks(axis, token_labels(labels, count, axis.axis_name), room / count)


def _bar(fig: Figure, image, axes: list[Axes], ticks: list[float | int]) -> None:
    bar = fig.colorbar(image, ax=axes, aspect=22, pad=0.015, fraction=0.05)
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


@house_style()
def error_map(
    error: Values,
    tokens: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    *,
    tolerance: float | int | None = None,
    quantity: str = "absolute error",
    title: str | None = None,
) -> Figure:
    """How far off an implementation is: the magnitude of its error at every head (or layer) and token.

    Args:
        error: [H, S], absolute; signs are dropped. tokens: S labels. rows: H names, ``head 0`` ... by default.
        tolerance: cells above it are crossed. quantity: what the colours say, for a magnitude that is no error.
        title: in place of the finding.

    Exact cells are left white; NaN and infinite ones are crossed out. Raises InputError for wrong shapes.
    """
    sizes: dict = {}
    values = np.abs(as_array(error, "error", "H S", sizes))
    if tolerance is not None and not tolerance > 0:
        raise InputError("the tolerance must be positive", key="tolerance", expected="> 0", actual=tolerance)
    heads, positions = values.shape
    labels = token_labels(tokens, positions)
    names = [f"head {n}" for n in range(heads)] if rows is None else [token_label(n) for n in token_rows(rows, heads)]
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.1, 1.0)
    low = max(low, high * 1e-6)
    cell = float(np.clip((MAX_WIDTH - 2.2) / positions, 0.08, 0.45))
    row_height = float(np.clip(cell, 0.16, 0.3))
    width = max(5.2, 2.2 + positions * cell)
    fig = new_figure(width, max(2.2, 1.2 + heads * row_height + 0.06 * max(map(len, labels))))
    ax = fig.subplots()
    top = max(high, low * 10)
    image = heatmap(ax, np.where(values == 0, np.nan, values), values == 0, norm=LogNorm(low, top))
    for patch in [p for p in ax.patches if p.get_gid() == "masked"]:
        patch.set(facecolor="white", hatch=None, gid="exact")
    broken = ~np.isfinite(values)
    above = np.zeros(values.shape, bool) if tolerance is None else (values > tolerance) & ~broken
    for row, column in np.argwhere(above).tolist():
        write(ax, column, row, "×", image, float(np.clip(cell * 40, 5, 9)))
    set_token_ticks(ax.xaxis, labels, 72 * (width - 2.2) / positions)
    set_token_ticks(ax.yaxis, names, 72 * row_height)
    bar = fig.colorbar(image, ax=ax, label=quantity, aspect=15)
    ticks = np.geomspace(low, top, 3)
    bar.set_ticks(ticks, labels=[number(tick) for tick in ticks])
    bar.set_ticks([], minor=True)
    bar.outline.set_visible(False)
    if tolerance is not None and above.any():
        ax.set_xlabel(f"×: above the tolerance of {number(tolerance)}", color=ORANGE)
    alt = f"A map of the {quantity}, heads down and tokens across."
    return finish(fig, _finding(values, above, names, labels, tolerance) + broken_note(values), title, alt)


def token_rows(rows: Sequence[str], count: int) -> Sequence[str]:
    """The row names as given; InputError when there is not one for each row."""
    token_labels(rows, count, "rows")
    return rows


def _finding(
    values: np.ndarray, above: np.ndarray, names: list[str], labels: list[str], tolerance: float | int | None
) -> str:
    finite = np.where(np.isfinite(values), values, -1)
    row, column = np.unravel_index(int(finite.argmax()), finite.shape)
    worst = float(finite[row, column])
    if worst < 0:
        return "no error is finite"
    if worst == 0:
        return "no error: every value is exact"
    text = f"largest error {number(worst)} at {names[row]}, “{labels[column]}”"
    return text if tolerance is None else f"{text}; {int(above.sum())} of {values.size} above the tolerance"
