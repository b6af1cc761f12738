"""How wide text may be: as the terminal is, but never wider than a reader likes."""

from __future__ import annotations

import shutil

from llama_core.checkpoints.result import WIDTH

_LEAST = 60


def text_width() -> int:
    """Columns of a line: the terminal's, from 60 to 100; 100 where the output is no terminal."""
    return max(_LEAST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
