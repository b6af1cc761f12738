"""One heat map: an image whose masked cells are hatched, whose broken cells are marked, whose axes carry tokens."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from llama_core.viz.style import (
    BROKEN_FACE,
    BROKEN_LINE,
    DIVERGING,
    INK,
    MASKED_FACE,
    MASKED_LINE,
    SEQUENTIAL,
    number,
)

#: Labels (``get_gid``) of the hatched patches.
MASKED, BROKEN = "masked", "not finite"


def largest(*arrays: np.ndarray) -> float:
    """The largest finite magnitude, or 1 where there is none but zeros: the limit of a map centred on 0."""
    finite = np.concatenate([np.abs(a[np.isfinite(a)]).ravel() for a in arrays])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def heatmap(
    ax: Axes,
    values: np.ndarray,
    hidden: np.ndarray | None = None,
    *,
    limit: float | None = None,
    norm: Normalize | None = None,
    numbers: bool = False,
    aspect: str = "auto",
) -> AxesImage:
    """Draw values [rows, columns], row 0 on top.

    Args:
        hidden: cells to hatch instead of colour: what a mask hides. Cells that are NaN or infinite without being
            hidden are hatched crosswise in another colour.
        limit: draw on the diverging map from -limit to limit. norm: draw on the sequential map with it; 0 to 1 if
            neither is given.
        numbers: write each cell's value into it.
    """
    hidden = np.zeros(values.shape, bool) if hidden is None else hidden
    broken = ~np.isfinite(values) & ~hidden
    if limit is not None:
        cmap, norm = colormaps[DIVERGING], Normalize(-limit, limit)
    else:
        cmap, norm = colormaps[SEQUENTIAL], norm or Normalize(0, 1)
    image = ax.imshow(np.ma.masked_array(values, hidden | broken), cmap=cmap, norm=norm, aspect=aspect)
    hatch(ax, hidden, MASKED)
    hatch(ax, broken, BROKEN)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if numbers:
        for row, column in np.argwhere(~hidden).tolist():
            value = values[row, column]
            text = number(value) if abs(value) >= 0.005 or value == 0 else "≈0"
            write(ax, column, row, _short(text), image)
    return image


def _short(text: str) -> str:
    return text.replace("0.", ".", 1) if text.startswith(("0.", "−0.")) else text


def write(ax: Axes, x: int, y: int, text: str, image: AxesImage, size: float = 6.5, **settings) -> None:
    """Write into a cell of an image, dark on light colours and light on dark ones."""
    value = image.get_array()[y, x]
    red, green, blue, _ = image.cmap(image.norm(value)) if value is not np.ma.masked else (1, 1, 1, 1)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    ax.text(x, y, text, ha="center", va="center", size=size, color="white" if dark else INK, **settings)


def hatch(ax: Axes, cells: np.ndarray, kind: str) -> None:
    """Hatch the cells that are True: one patch, whose path is a rectangle for each run of cells in a row."""
    rectangles = []
    for row, line in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(int), [0]))))
        for start, stop in edges.reshape(-1, 2):
            left, right, top, bottom = start - 0.5, stop - 0.5, row - 0.5, row + 0.5
            corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            rectangles.append(Path(corners, closed=True))
    if not rectangles:
        return
    face, line_colour, pattern = (
        (MASKED_FACE, MASKED_LINE, "/////") if kind == MASKED else (BROKEN_FACE, BROKEN_LINE, "xxxxx")
    )
    path = Path.make_compound_path(*rectangles)
    ax.add_patch(
        PathPatch(path, facecolor=face, edgecolor=line_colour, hatch=pattern, linewidth=0, gid=kind, zorder=1.5)
    )


def cell_grid(ax: Axes, rows: int, columns: int) -> None:
    """Thin white lines between cells, where these are large enough to be told apart."""
    ax.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="minor", length=0)


def broken_note(*arrays: np.ndarray, hidden: np.ndarray | None = None) -> str:
    """What to add to a finding when values are NaN or infinite."""
    count = sum(int((~np.isfinite(a) & (True if hidden is None else ~hidden)).sum()) for a in arrays)
    if not count:
        return ""
    return f"; {count} {'value is' if count == 1 else 'values are'} not finite (crossed out)"
