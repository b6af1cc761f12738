"""The KV cache: how it fills step by step, and what it costs with many, few and one key head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from llama_core.errors import InputError
from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import cell_grid, heatmap, write
from llama_core.viz.style import (
    INK,
    MASKED_FACE,
    MASKED_LINE,
    MAX_WIDTH,
    ORANGE,
    count,
    finish,
    house_style,
    new_figure,
    number,
)
from llama_core.viz.tokens import set_token_ticks, token_labels

#: Around the slots that a pass writes.
FRAME = {"fill": False, "edgecolor": ORANGE, "linewidth": 1.8}


@house_style()
def cache_filling(
    positions: Values,
    tokens: Sequence[str] | None = None,
    steps: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Slots of the cache across, forward passes down; each cell holds the position of the key that lies there.

    Args:
        positions: [N, T]: after each of N passes, the position in every slot, -1 where nothing lies
            (one row of ``KVCache.positions`` at a time).
        tokens: what lies in each slot at the end, T labels; ``""`` for empty ones. steps: N names of the passes.

    Slots written by a pass have an orange frame, empty ones are hatched. Raises InputError for wrong shapes.
    """
    slots = as_array(positions, "positions", "N T")
    if not np.isfinite(slots).all():
        raise InputError("positions must be whole numbers", key="positions", expected="-1, 0, 1, 2 ...")
    passes, capacity = slots.shape
    columns = token_labels(tokens, capacity)
    rows = token_labels(steps, passes, "steps") if steps is not None else [f"pass {n + 1}" for n in range(passes)]
    filled = slots >= 0
    before = np.vstack([np.full((1, capacity), -1.0), slots[:-1]])
    new = filled & (slots != before)

    cell = float(np.clip((MAX_WIDTH - 1.5) / capacity, 0.1, 0.45))
    width = max(5.0, 1.5 + capacity * cell)
    row_height = float(np.clip(cell, 0.22, 0.32))
    fig = new_figure(width, 1.25 + passes * row_height + 0.06 * max(map(len, columns)))
    ax = fig.subplots()
    image = heatmap(ax, slots, ~filled, norm=Normalize(0, max(slots.max(), 1)))
    if cell >= 0.18:
        for row, column in np.argwhere(filled).tolist():
            write(ax, column, row, f"{slots[row, column]:.0f}", image)
    cell_grid(ax, passes, capacity)
    for row, line in enumerate(new):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(int), [0]))))
        for start, stop in edges.reshape(-1, 2):
            frame = Rectangle((start - 0.5, row - 0.5), stop - start, 1, **FRAME, gid="written")
            frame.set(zorder=2.5, clip_on=False)  # above the hatching beside it, whole at the picture's edge
            ax.add_patch(frame)
    set_token_ticks(ax.xaxis, columns, 72 * cell)
    set_token_ticks(ax.yaxis, rows, 72 * row_height)
    ax.set_xlabel("slot" if tokens is None else "slot, by its token")
    handles = [
        Patch(**FRAME, label="written in this pass"),
        Patch(facecolor=MASKED_FACE, edgecolor=MASKED_LINE, hatch="/////", linewidth=0, label="empty or padding"),
    ]
    fig.legend(handles=handles, loc="outside lower left", ncols=2)
    finding = (
        f"pass {passes} writes {count(int(new[-1].sum()), 'slot')} and reads {int(filled[-1].sum())} of {capacity}"
    )
    alt = "A grid of cache slots across and forward passes down, numbers are positions, empty slots hatched."
    return finish(fig, finding, title, alt)


def cache_size(
    num_layers: int, key_heads: int, head_dim: int, length: float | int, bytes_per_value: float | int, batch: int
) -> float | int:
    """Bytes of keys and values: ``2 · L · B · K · T · D`` values."""
    return 2 * num_layers * batch * key_heads * length * head_dim * bytes_per_value


@house_style()
def cache_bytes(
    key_heads: Mapping[str, int],
    *,
    num_layers: int,
    head_dim: int,
    lengths: Values,
    bytes_per_value: float | int = 2,
    batch_size: int = 1,
    title: str | None = None,
) -> Figure:
    """Bytes of the cache over the length of the text, one line for each number of key heads.

    Args:
        key_heads: name -> K, e.g. ``{"MHA": 32, "GQA": 8, "MQA": 1}``. num_layers: L. head_dim: D.
        lengths: positions T, [N]. bytes_per_value: 2 for float16 and bfloat16.

    Raises InputError for sizes that are not positive.
    """
    at = np.sort(as_array(lengths, "lengths", "N"))
    if not isinstance(key_heads, Mapping) or not key_heads:
        raise InputError(
            "there is no cache to draw", key="key_heads", expected="name -> K", actual=type(key_heads).__name__
        )
    facts = {"lengths": at.min(), "num_layers": num_layers, "head_dim": head_dim, "bytes_per_value": bytes_per_value}
    facts |= {"batch_size": batch_size} | {f"key_heads {name!r}": heads for name, heads in key_heads.items()}
    for key, value in facts.items():
        if not value > 0 or not np.isfinite(value):
            raise InputError(f"{key} must be positive", key=key, expected="> 0", actual=value)
    fig = new_figure(10, 3.6)
    lines, bars = fig.subplots(1, 2, width_ratios=[1.5, 1])
    ends = {}
    for n, (name, heads) in enumerate(key_heads.items()):
        size = np.array([cache_size(num_layers, heads, head_dim, t, bytes_per_value, batch_size) for t in at])
        ends[name] = size[-1]
        style = ("-", "--", "-.", ":")[n % 4]
        lines.plot(
            at, size, linestyle=style, marker="osD^v"[n % 5], label=f"{name}: {count(heads, 'key head')}", gid=name
        )
    lines.set(xlabel="positions in the cache", title="bytes over the length of the text")
    if at[0] < at[-1]:
        lines.set_xscale("log", base=2)
    else:
        lines.set_xticks(at[:1])
    lines.set_yscale("log", base=2)
    lines.xaxis.set_major_formatter(lambda value, _: number(value))
    lines.yaxis.set_major_formatter(lambda value, _: byte_text(value))
    lines.grid()
    lines.minorticks_off()
    lines.legend()
    y = np.arange(len(ends))
    bars.barh(y, list(ends.values()), color=[line.get_color() for line in lines.lines], height=0.6)
    for row, size in enumerate(ends.values()):
        bars.text(size, row, f" {byte_text(size)}", va="center", size=8, color=INK)
    bars.set_yticks(y, labels=list(ends))
    bars.set_ylim(max(len(ends), 3) - 0.5, -0.5)
    bars.set_xticks([])
    bars.set_xlim(0, max(ends.values()) * 1.35)
    bars.spines["bottom"].set_visible(False)
    bars.set_title(f"at {count(int(at[-1]), 'position')}")
    finding = f"at {count(int(at[-1]), 'position')}: " + ", ".join(
        f"{byte_text(size)} with “{name}”" for name, size in ends.items()
    )
    alt = "Lines of cache size over text length, and bars at the longest."
    return finish(fig, finding, title, alt)


def byte_text(size: float | int) -> str:
    """``536870912`` as ``512 MiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB" if size < 1000 else f"{size:,.0f} TiB"
