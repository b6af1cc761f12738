"""From figures to pixels: PNG bytes, and display with alternative text."""

from __future__ import annotations

import base64
import io
import sys

from matplotlib.figure import Figure

from llama_core.errors import InputError
from llama_core.viz.style import house_style


def png(fig: Figure) -> bytes:
    """The figure as a PNG file, the same bytes each time; for ``ipywidgets.Image(value=png(fig), format="png")``."""
    buffer = io.BytesIO()
    with house_style():
        fig.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def alternative_text(fig: Figure, alt: str | None = None) -> str:
    """What the picture says to those who do not see it: ``alt``, or the text its function gave it.

    Raises InputError where there is neither.
    """
    text = alt or str(fig.get_label())
    if not text.strip():
        raise InputError("the figure has no alternative text", key="alt", hint='say what it shows: show(fig, alt="…")')
    return text


def show(fig: Figure, alt: str | None = None) -> None:
    """Display a figure with alternative text, in a notebook as a picture and elsewhere as that text, and close it.

    Args:
        fig: any matplotlib figure. alt: in place of the text that functions of `llama_core.viz` give their figures.

    Raises:
        InputError: no alternative text.
    """
    text = alternative_text(fig, alt)
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from IPython.display import display

        picture = base64.b64encode(png(fig)).decode()
        display({"image/png": picture, "text/plain": text}, raw=True, metadata={"image/png": {"alt": text}})
    else:
        print(text)
    if "matplotlib.pyplot" in sys.modules:  # only pyplot keeps figures alive
        sys.modules["matplotlib.pyplot"].close(fig)
