"""A report's folder: written whole or not at all, and never over anything else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from llama_core.checkpoints.specification import CHECKPOINTS
from llama_core.errors import CheckpointError
from llama_core.gate_report.pages import MADE_BY
from llama_core.report import Page
from llama_core.weights.replace_folder import staged_folder

_INDEX, _FIGURES = "index.html", "figures"
_PAGES = {
    f"{name}.{ending}" for name in ("index", *(s.notebook for s in CHECKPOINTS.values())) for ending in ("html", "md")
}
_FIGURE = re.compile(rf"({'|'.join(s.notebook for s in CHECKPOINTS.values())})-[a-z]+\.png")


def check_place(folder: str | PathLike[str]) -> Path:
    """The folder as a path, if a report may be written there: a new or empty one, or one that holds a report alone.

    Raises:
        CheckpointError: a file, a folder that holds anything else, or one that may not be replaced.
    """
    place = Path(folder).expanduser().resolve()
    if not place.exists():
        return place
    if not place.is_dir():
        raise _refused(place, "the place for the report is a file", "a file")
    others = sorted(_others(place))
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise _refused(place, "the folder holds other things than a report", shown)
    if Path.cwd().is_relative_to(place) or os.path.ismount(place):
        raise _refused(place, "the working directory and mount points cannot be replaced", "one of them")
    return place


def write_pages(pages: Sequence[Page], folder: str | PathLike[str]) -> Path:
    """Write every page as HTML and Markdown, with the figures of the latter; returns the index.

    An earlier report there is replaced as a whole. Raises CheckpointError where the folder may not be written.
    """
    place = check_place(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(place, lambda name: name in _PAGES or name == _FIGURES) as staged:
            (staged / _FIGURES).mkdir()
            for page in pages:
                (staged / f"{page.name}.html").write_text(page.html(), encoding="utf-8")
                (staged / f"{page.name}.md").write_text(page.markdown(), encoding="utf-8")
                for figure in page.figures():
                    (staged / figure.file).write_bytes(figure.png)
    except OSError as e:
        raise CheckpointError(
            f"the report could not be written: {e.strerror or e}",
            file=place,
            key="report",
            hint="what was in the folder before is unchanged",
        ) from e
    return place / _INDEX


def _others(place: Path) -> list[str]:
    """What in a folder is no part of a report."""
    others = []
    for entry in place.iterdir():
        if entry.name == _FIGURES and entry.is_dir() and not entry.is_symlink():
            others += [f"{_FIGURES}/{e.name}" for e in entry.iterdir() if not _FIGURE.fullmatch(e.name)]
        elif entry.name not in _PAGES or not entry.is_file() or entry.is_symlink():
            others.append(entry.name)
    if not others and any(place.iterdir()) and not _is_report(place / _INDEX):
        others = [entry.name for entry in place.iterdir()]
    return others


def _is_report(index: Path) -> bool:
    """Whether an index is a report's; the workbook's pages have the same names."""
    return index.is_file() and f'content="{MADE_BY}' in index.read_text(encoding="utf-8", errors="replace")[:1000]


def _refused(place: Path, message: str, actual: str) -> CheckpointError:
    expected = "a new or empty folder, or an earlier report"
    return CheckpointError(
        message, file=place, key="report", expected=expected, actual=actual, hint="name a new folder"
    )
