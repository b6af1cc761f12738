"""Where you are: the checkpoints in a row, with one marked. HTML, for notebooks and pages alike."""

from __future__ import annotations

import html
from collections.abc import Mapping

from llama_core.errors import InputError

#: Checkpoint -> name, in the order in which they build on each other.
CHECKPOINTS = {
    "0": "Foundation",
    "1": "RMSNorm",
    "1B": "RoPE",
    "2": "QKV",
    "3": "Attention",
    "4": "Output projection",
    "5": "Feed-forward",
    "6": "Block",
    "7": "Full model",
    "8": "KV cache",
    "9": "Sampling",
    "10": "Generation",
}
#: What comes after them: no checkpoint, and part of the strip only where it is the place to be marked.
BEYOND = {"11": "Port your own"}

# Only the marked cell has colours of its own; the others take the page's, light or dark.
_CELL = "border:1px solid #8c959f;padding:4px 7px;text-align:center;font-size:12px;line-height:1.3"
_HERE = _CELL + ";background:#00356f;color:#ffffff;border-color:#00356f"


class CheckpointStrip:
    """The strip as HTML; notebooks show it, pages take ``.html``.

    Attributes:
        html: a table of one row, without scripts, style sheets or anything from elsewhere. Where styles are removed
            the marked checkpoint still stands out: it is bold, between arrows.
    """

    def __init__(self, html_text: str, text: str):
        self.html, self._text = html_text, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self._text


def checkpoint_strip(current: str, links: Mapping[str, str] | None = None) -> CheckpointStrip:
    """All checkpoints, 0 to 10, with one marked.

    Args:
        current: ``"0"``, ``"1"``, ``"1B"`` ... ``"10"``; or ``"11"``, which then stands behind them.
        links: checkpoint -> relative address, e.g. of its notebook.

    Raises:
        InputError: no such checkpoint.
    """
    steps = CHECKPOINTS | (BEYOND if current in BEYOND else {})
    for checkpoint in (current, *(links or {})):
        if checkpoint not in steps:
            raise InputError(
                f"there is no checkpoint {checkpoint!r}",
                key="current",
                expected=" ".join(CHECKPOINTS | BEYOND),
                actual=checkpoint,
            )
    cells = []
    for checkpoint, name in steps.items():
        if checkpoint == current:
            inside = f"<strong>▸ {checkpoint} ◂</strong><br><strong>{name}</strong>"
            cells.append(f'<td style="{_HERE}" aria-current="step">{inside}</td>')
            continue
        inside = f"{checkpoint}<br>{name}"
        if links and checkpoint in links:
            inside = f'<a href="{html.escape(links[checkpoint], quote=True)}" style="color:inherit">{inside}</a>'
        cells.append(f'<td style="{_CELL}">{inside}</td>')
    label = f"{'After checkpoints' if current in BEYOND else f'Checkpoint {current} of'} 0 to 10: {steps[current]}"
    table = (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:0" aria-label="{label}">'
        f"<tr>{''.join(cells)}</tr></table></div>"
    )
    text = " · ".join(f"[{c} {steps[c]}]" if c == current else c for c in steps)
    return CheckpointStrip(table, text)
