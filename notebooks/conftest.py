"""Makes `pytest --nbval` strict: it lets through more than it says.

By itself nbval compares no pictures, passes a cell that was never run (so a notebook without any outputs passes whole),
ignores the order of outputs and their metadata, and prints what a trailing semicolon should hide. Here:

- a cell must have been run before it was committed;
- its outputs are the stored ones in kind, number and order, pictures and widgets included;
- pictures are the stored ones, pixel by pixel, with the same alternative text.

Under `--nbval-lax`, where outputs are not compared, only the first holds.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, NbCellError, coalesce_streams
from PIL import Image

#: Grey levels (of 255) by which a pixel may differ: last digits differ between processors, and move colours by a few.
LEVELS = 16
#: How many pixels may differ by more than that. One digit of a label is more than this.
PIXELS = 4
#: Root mean square of all differences, in grey levels.
RMS = 1.0


def _execute(self, cell_input: str, allow_stdin: bool | None = None) -> str:
    """As nbval's own, but with history: without it IPython does not hide the value before a trailing semicolon."""
    return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


RunningKernel.execute_cell_input = _execute


def kind(output) -> tuple[str, ...]:
    """What sort of output it is, without its content: its type and stream, error or MIME types."""
    if output.output_type == "stream":
        return ("stream", output.name)
    if output.output_type == "error":
        return ("error", output.ename)
    return (output.output_type, *sorted(output.data))


def pictures(output) -> list[tuple[str, str]]:
    """The MIME type and base64 text of each picture in an output; SVG is text, which nbval compares."""
    found = output.get("data", {}).items()
    return [(mime, data) for mime, data in found if mime.startswith("image/") and mime != "image/svg+xml"]


def _pixels(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA"), dtype=float)


def picture_difference(stored: str, produced: str) -> str:
    """A sentence on how two pictures in base64 differ; empty where they are the same within the tolerances above."""
    if "".join(stored.split()) == "".join(produced.split()):
        return ""
    before, after = _pixels(stored), _pixels(produced)
    if before.shape != after.shape:
        sizes = [f"{width} × {height}" for height, width, _ in (before.shape, after.shape)]
        return f"stored with {sizes[0]} pixels, produced with {sizes[1]}"
    difference = np.abs(before - after)
    pixels = int((difference.max(axis=-1) > LEVELS).sum())
    rms = float(np.sqrt(np.square(difference).mean()))
    if pixels > PIXELS or rms > RMS:
        return f"{pixels} pixels differ by more than {LEVELS} levels, root mean square {rms:.2f} levels"
    return ""


def differences(stored: Sequence, produced: Sequence) -> str:
    """A sentence on what nbval does not compare and that differs; empty where nothing does."""
    kinds = [[kind(output) for output in outputs] for outputs in (stored, produced)]
    if kinds[0] != kinds[1]:
        return f"kinds of outputs differ: stored {kinds[0]}, produced {kinds[1]}"
    for number, (before, after) in enumerate(zip(stored, produced, strict=True)):
        if before.get("metadata", {}) != after.get("metadata", {}):
            return f"metadata of output {number} differ: stored {before.metadata}, produced {after.metadata}"
        for (mime, old), (_, new) in zip(pictures(before), pictures(after), strict=True):
            difference = picture_difference(old, new)
            if difference:
                return f"{mime} of output {number}: {difference}"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    result = yield
    if not isinstance(item, IPyNbCell):
        return result
    if item.cell.execution_count is None and item.cell.source.strip():
        message = "the cell was committed without having been run; `make notebooks` runs it"
        raise NbCellError(item.cell_num, message, item.cell.source)
    if item.options["check"]:
        difference = differences(coalesce_streams(item.cell.outputs), item.test_outputs)
        if difference:
            raise NbCellError(item.cell_num, difference, item.cell.source)
    return result
