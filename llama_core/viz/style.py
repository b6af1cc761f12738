"""The house style: colours, figures of a stated size, titles, alternative text."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import SupportsFloat

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

#: The stylesheet. Figures are made under it alone, whatever the caller's settings.
STYLE = Path(__file__).with_name("llama_core.mplstyle")

#: Inches; a notebook at 100 % shows no more without scrolling.
MAX_WIDTH = 10.0

SEQUENTIAL = "cividis"
DIVERGING = "RdBu_r"

INK = "#24292f"
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
MASKED_FACE, MASKED_LINE = "#dfe3e8", "#7d8690"
BROKEN_FACE, BROKEN_LINE = "#ffd8f0", "#a40e6b"


@functools.cache
def _parameters() -> matplotlib.RcParams:
    return matplotlib.rc_params_from_file(STYLE, use_default_template=False)


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults and the stylesheet, for as long as a figure is made or drawn. Also a decorator."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_parameters())
        yield


def new_figure(width: float | int, height: float | int, layout: str | None = "constrained") -> Figure:
    """An empty figure of some inches; it belongs to no global list of figures, and nobody needs to close it."""
    return Figure(figsize=(min(width, MAX_WIDTH), height), layout=layout)


def finish(fig: Figure, finding: str, title: str | None, alt: str) -> Figure:
    """Give a figure its title, the caller's or the finding, and the alternative text that `show` uses."""
    lines = title_lines(finding, title, fig.get_figwidth())
    if lines:
        # A layout engine makes room for the title; without one it hangs from the upper edge.
        place = {} if fig.get_layout_engine() else {"y": 1 - 0.09 / fig.get_figheight(), "va": "top"}
        fig.suptitle("\n".join(lines), x=0.08 / fig.get_figwidth(), ha="left", **place)
    fig.set_label(f"{alt} {_sentence(finding)}.")
    # Laid out once, here: laying out anew at each drawing would move things a little every time.
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    return fig


def title_lines(finding: str, title: str | None, width: float) -> list[str]:
    """The title in lines that fit into a figure of some inches."""
    columns = max(24, int(width * 9.8))
    text = _sentence(finding) if title is None else title
    return [line for part in text.splitlines() for line in _balanced(part, columns)]


def _sentence(finding: str) -> str:
    return finding[:1].upper() + finding[1:]


def _balanced(text: str, columns: int) -> list[str]:
    """The text in as few lines as fit, about equally long: no last line of one word."""
    lines = textwrap.wrap(text, columns)
    for narrower in range(columns - 1, 0, -1):
        shorter = textwrap.wrap(text, narrower)
        if len(shorter) > len(lines):
            break
        columns = narrower
    return textwrap.wrap(text, columns)


def number(value: SupportsFloat) -> str:
    """Three significant digits, a real minus sign, thousands separated: ``−0.125``, ``16,384``, ``1.7e−5``."""
    value = float(value)
    if 1e3 <= abs(value) < 1e7:
        text = f"{value:,.0f}"
    else:
        text = re.sub(r"e([+-])0*", lambda match: "e" + match[1].strip("+"), f"{value:.3g}")
    return text.replace("-", "−")


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, labelled with plain numbers."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_formatter(lambda value, _: number(value))
    axis.set_minor_formatter(NullFormatter())


def count(number_of: int, thing: str) -> str:
    """``1 token``, ``2 tokens``."""
    return f"{number_of:,} {thing}{'' if number_of == 1 else 's'}"
