"""Rotary embedding: pairs turning with position, the speed of each pair, and the two layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import broken_note, heatmap
from llama_core.viz.style import INK, MAX_WIDTH, SEQUENTIAL, count, finish, house_style, logarithmic, new_figure, number

LAYOUTS = ("half", "interleaved")
#: A line with dark edges, so that the pale end of the map can be seen on white.
EDGED = (Stroke(linewidth=2.8, foreground=INK), Normal())


def _pair(layout: str, pair: int, head_dim: int) -> tuple[int, int]:
    if layout not in LAYOUTS:
        raise InputError(
            f"there is no rotary layout {layout!r}", key="layout", expected=" | ".join(LAYOUTS), actual=layout
        )
    return (pair, pair + head_dim // 2) if layout == "half" else (2 * pair, 2 * pair + 1)


def _even(head_dim: int, name: str) -> None:
    if head_dim < 2 or head_dim % 2:
        raise InputError("coordinates do not come in pairs", key=name, expected="an even D", actual=head_dim)


@house_style()
def rotary_pairs(
    rotated: Values,
    positions: Values | None = None,
    *,
    layout: str = "half",
    pairs: Sequence[int] | None = None,
    title: str | None = None,
) -> Figure:
    """Pairs of coordinates of one vector, turned to several positions: each pair goes round its own circle.

    Args:
        rotated: the same vector at S positions, [S, D]. positions: [S], 0, 1, 2 ... by default.
        layout: which coordinates are a pair: ``half`` (i, i + D/2) or ``interleaved`` (2i, 2i + 1).
        pairs: which pairs to draw; at most four, spread from the fastest to the slowest, by default.
        title: in place of the finding.

    Raises:
        InputError: wrong shapes, an odd D, a pair that is not there, or no such layout.
    """
    sizes: dict = {}
    vectors = as_array(rotated, "rotated", "S D", sizes)
    head_dim = vectors.shape[1]
    at = np.arange(len(vectors), dtype=float) if positions is None else as_array(positions, "positions", "S", sizes)
    _even(head_dim, "rotated")
    if pairs is None:
        pairs = sorted(set(np.linspace(0, head_dim // 2 - 1, min(4, head_dim // 2)).round().astype(int).tolist()))
    if not pairs or any(not 0 <= pair < head_dim // 2 for pair in pairs):
        raise InputError("there is no such pair", key="pairs", expected=f"0 to {head_dim // 2 - 1}", actual=pairs)
    columns = min(len(pairs), 4)
    rows = -(-len(pairs) // columns)
    fig = new_figure(max(4.8, columns * 2.3 + 0.6), rows * 2.75 + 0.6)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    norm = Normalize(at.min(), max(at.max(), at.min() + 1))
    colours = colormaps[SEQUENTIAL](norm(at))
    turns = []
    for ax, pair in zip(axes, pairs, strict=False):
        first, second = _pair(layout, pair, head_dim)
        xy = vectors[:, [first, second]]
        finite = np.isfinite(xy).all(1)
        radii = np.hypot(*xy[finite].T) if finite.any() else np.ones(1)
        reach = float(radii.max()) or 1.0
        for radius in {float(radii.min()), float(radii.max())}:
            ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor="#b6bdc5", linewidth=0.8))
        for (x, y), colour in zip(xy[finite], colours[finite], strict=True):
            ax.plot([0, x], [0, y], color=colour, linewidth=1)
        ax.scatter(*xy[finite].T, c=colours[finite], s=26, zorder=3, edgecolor=INK, linewidth=0.4, gid="positions")
        ax.set(xlim=(-1.2 * reach, 1.2 * reach), ylim=(-1.2 * reach, 1.2 * reach), aspect="equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"coordinate {first}")
        ax.set_ylabel(f"coordinate {second}")
        turn = _turn(xy, at)
        turns.append(turn)
        speed = "" if turn is None else f"\n{number(np.degrees(turn))}° a position"
        ax.set_title(f"pair {pair}{speed}")
    for ax in axes[len(pairs) :]:
        ax.remove()
    scale = ScalarMappable(norm, SEQUENTIAL)
    ticks = MaxNLocator(6, integer=True)
    bar = fig.colorbar(scale, ax=axes[: len(pairs)].tolist(), label="position", ticks=ticks, shrink=0.7, aspect=25)
    bar.outline.set_visible(False)
    known = [(pair, turn) for pair, turn in zip(pairs, turns, strict=True) if turn is not None]
    if len(known) > 1:
        (fast, quick), (slow, least) = known[0], known[-1]
        finding = (
            f"from one position to the next, pair {fast} turns {number(np.degrees(quick))}° "
            f"and pair {slow} {number(np.degrees(least))}°"
        )
    elif known:
        finding = f"pair {known[0][0]} turns {number(np.degrees(known[0][1]))}° from one position to the next"
    else:
        finding = f"{count(len(vectors), 'position')}: no turn to measure"
    alt = f"Circles, one for each rotary pair ({layout} layout), with the pair's direction at each position."
    return finish(fig, finding + broken_note(vectors), title, alt)


def _turn(xy: np.ndarray, positions: np.ndarray) -> float | None:
    """Radians from the first position to the second, divided by their distance, in (-π, π]; None if unknown."""
    if len(xy) < 2 or positions[1] == positions[0] or not np.isfinite(xy[:2]).all() or not np.hypot(*xy[:2].T).all():
        return None
    before, after = xy[0] @ [1, 1j], xy[1] @ [1, 1j]
    return float(np.angle(after / before) / (positions[1] - positions[0]))


@house_style()
def frequency_map(
    frequencies: Values | Mapping[str, Values],
    positions: Values,
    *,
    title: str | None = None,
) -> Figure:
    """Cosine of every pair's angle at every position; above it, how many positions each pair takes for one turn.

    Args:
        frequencies: radians per position of each pair, [P] with P = D/2; or name -> [P], e.g. with and without a
            scaling, to be drawn side by side. positions: [S].
        title: in place of the finding.

    Raises InputError for wrong shapes, or frequencies that are zero or less.
    """
    named = frequencies if isinstance(frequencies, Mapping) else {"": frequencies}
    at = as_array(positions, "positions", "S")
    sizes: dict = {}
    tables = {
        name: as_array(table, f"frequencies {name!r}" if name else "frequencies", "P", sizes)
        for name, table in named.items()
    }
    if not tables or any((table <= 0).any() for table in tables.values()):
        raise InputError("frequencies must be positive", key="frequencies", expected="radians per position > 0")
    pairs = sizes["P"][0]
    fig = new_figure(min(MAX_WIDTH, 1.2 + max(3.8, 3.2 * len(tables))), 4.9)
    axes = fig.subplots(2, len(tables), squeeze=False, height_ratios=[1, 2.2], sharey="row", sharex="col")
    span = float(at.max() - at.min()) + 1
    for column, (name, table) in enumerate(tables.items()):
        top, bottom = axes[:, column]
        turn = 2 * np.pi / table
        top.plot(np.arange(pairs), turn, marker="o", markersize=3, color="#0072b2", gid="wavelength")
        top.axhline(span, color="#d55e00", linewidth=1, linestyle="--")
        top.text(0, span * 1.25, f"{count(int(span), 'position')} shown", color="#a84800", size=7, va="bottom")
        logarithmic(top.yaxis)
        top.grid(axis="y")
        top.set_title(name)
        angles = at[:, None] * table[None, :]
        image = heatmap(bottom, np.cos(angles), limit=1.0)
        bottom.set_xlabel("pair")
        bottom.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        bottom.set_yticks(*_round_positions(at))
    axes[0, 0].set_ylabel("positions per turn")
    axes[1, 0].set_ylabel("position")
    bar = fig.colorbar(image, ax=axes[1].tolist(), label="cosine", ticks=[-1, 0, 1], aspect=20)
    bar.outline.set_visible(False)
    slow = [
        f"{name + ': ' if name else ''}{int((2 * np.pi / t > span).sum())} of {pairs}" for name, t in tables.items()
    ]
    finding = f"pairs that never complete a turn within {count(int(span), 'position')}: {'; '.join(slow)}"
    alt = "A map of cosines, positions down and rotary pairs across, under a curve of each pair's wavelength."
    return finish(fig, finding, title, alt)


def _round_positions(at: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Rows to label and their labels: round numbers where positions ascend, the rows' own where they do not."""
    if len(at) > 1 and (np.diff(at) > 0).all():
        values = MaxNLocator(6, integer=True).tick_values(at[0], at[-1])
        values = values[(values >= at[0]) & (values <= at[-1])]
        return np.interp(values, at, np.arange(len(at))), [number(value) for value in values]
    rows = np.unique(np.linspace(0, len(at) - 1, min(len(at), 7)).round().astype(int))
    return rows, [number(at[row]) for row in rows]


@house_style()
def rotary_layouts(head_dim: int, *, title: str | None = None) -> Figure:
    """Which coordinates of a head turn together, in both layouts: one colour and one arc for each pair.

    Args:
        head_dim: D, even; at most 64 can be told apart.

    Raises InputError for an odd or too large D.
    """
    _even(head_dim, "head_dim")
    if head_dim > 64:
        raise InputError("too many coordinates to tell apart", key="head_dim", expected="at most 64", actual=head_dim)
    pairs = head_dim // 2
    colours = colormaps[SEQUENTIAL](np.linspace(0, 1, pairs))
    fig = new_figure(MAX_WIDTH * 0.85, 4.0)
    axes = fig.subplots(2, 1, height_ratios=[3.2, 1.9])
    names = {
        "half": "half: (i, i + D/2), Hugging Face files",
        "interleaved": "interleaved: (2i, 2i + 1), Meta and GGUF",
    }
    for ax, layout in zip(axes, LAYOUTS, strict=True):
        for pair in range(pairs):
            first, second = _pair(layout, pair, head_dim)
            for coordinate in (first, second):
                cell = Rectangle(
                    (coordinate - 0.5, 0), 1, 1, facecolor=colours[pair], edgecolor="white", gid=f"pair {pair}"
                )
                ax.add_patch(cell)
                dark = colours[pair][:3] @ [0.299, 0.587, 0.114] < 0.5
                if head_dim <= 32:
                    ax.text(
                        coordinate, 0.5, str(pair), ha="center", va="center", size=7.5, color="white" if dark else INK
                    )
            arc = FancyArrowPatch((first, 1.05), (second, 1.05), arrowstyle="-", connectionstyle="arc3,rad=-0.35")
            arc.set(color=colours[pair], linewidth=1.8, path_effects=EDGED)
            ax.add_patch(arc)
        ax.set(xlim=(-0.6, head_dim - 0.4), ylim=(0, 3.2 if layout == "half" else 1.9), title=names[layout])
        ax.set_yticks([])
        ax.spines[["left", "bottom"]].set_visible(False)
        step = 1 if head_dim <= 32 else 4
        ax.set_xticks(range(0, head_dim, step))
        ax.tick_params(length=0)
    axes[1].set_xlabel("coordinate of the head (number in the cell: its pair)" if head_dim <= 32 else "coordinate")
    finding = f"pair 0 is coordinates 0 and {pairs} in one layout, 0 and 1 in the other"
    if pairs == 1:
        finding = "with one pair both layouts are the same"
    alt = f"Two rows of {head_dim} cells, coloured and joined by arcs by rotary pair, one row for each layout."
    return finish(fig, finding, title, alt)
