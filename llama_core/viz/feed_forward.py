"""SwiGLU: gate and up, what the gate lets through, and how the hidden activations are spread."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from llama_core.viz.arrays import Values, as_array
from llama_core.viz.heatmap import broken_note, largest
from llama_core.viz.style import BLUE, DIVERGING, INK, ORANGE, finish, house_style, logarithmic, new_figure, number


@house_style()
def swiglu(gate: Values, up: Values, hidden: Values, *, title: str | None = None) -> Figure:
    """gate × up coloured by what comes out, the gate's histogram under its curve, the histogram of the hidden values.

    Args:
        gate: before silu, [S, F]. up: [S, F]. hidden: silu(gate) · up, [S, F].

    Raises InputError for shapes that differ.
    """
    sizes: dict = {}
    g, u, h = (as_array(v, n, "S F", sizes) for v, n in ((gate, "gate"), (up, "up"), (hidden, "hidden")))
    finite = np.isfinite(g) & np.isfinite(u) & np.isfinite(h)
    x, y, z = g[finite], u[finite], h[finite]
    fig = new_figure(10, 3.5)
    scatter, curve, spread = fig.subplots(1, 3, width_ratios=[1.25, 1, 1])

    # The colour saturates where 98 % of the values are below: a few large ones would leave all others white.
    limit = largest(np.quantile(np.abs(z), [0.98])) if z.size else 1.0
    order = np.argsort(np.abs(z))
    points = scatter.scatter(
        x[order],
        y[order],
        c=z[order],
        cmap=colormaps[DIVERGING],
        norm=Normalize(-limit, limit),
        s=float(np.clip(3000 / max(x.size, 1), 3, 40)),
        edgecolor="#8c959f",
        linewidth=0.2,
    )
    scatter.axhline(0, color=INK, linewidth=0.6)
    scatter.axvline(0, color=INK, linewidth=0.6)
    scatter.set(title="each value", xlabel="gate", ylabel="up")
    bar = fig.colorbar(points, ax=scatter, label="hidden = silu(gate) · up", extend="both", aspect=25)
    bar.outline.set_visible(False)

    bins = int(np.clip(np.sqrt(max(x.size, 1)), 5, 50))
    curve.hist(x, bins=bins, color="#b6bdc5", gid="gate")
    curve.set(title="what the gate lets through", xlabel="gate", ylabel="how many values (bars)")
    reach = max(float(np.abs(x).max()) if x.size else 1.0, 1.0)
    line = np.linspace(-reach, reach, 200)
    over = curve.twinx()
    over.plot(line, line / (1 + np.exp(-line)), color=ORANGE)
    over.set_ylabel("silu(gate) (curve)", color="#a84800")
    over.spines["right"].set_visible(True)
    over.grid(visible=False)

    spread.hist(z, bins=bins, color=BLUE, gid="hidden")
    logarithmic(spread.yaxis)
    spread.set(title="hidden values", xlabel="silu(gate) · up", ylabel="how many")
    finding = _finding(x, z) + broken_note(g, u, h)
    alt = "SwiGLU: a scatter of gate and up coloured by the hidden value, and histograms of gate and hidden values."
    return finish(fig, finding, title, alt)


def _finding(gate: np.ndarray, hidden: np.ndarray) -> str:
    if not hidden.size:
        return "no finite values"
    closed = 100 * float((gate < 0).mean())
    energy = np.sort(np.square(hidden))[::-1]
    total = energy.sum()
    if total == 0:
        return f"{closed:.0f} % of the gates are below 0, and all hidden values are 0"
    few = int(np.searchsorted(np.cumsum(energy), 0.9 * total) + 1)
    return (
        f"{closed:.0f} % of the gates are below 0 and let little through; "
        f"{number(100 * few / hidden.size)} % of the hidden values carry 90 % of the energy"
    )
