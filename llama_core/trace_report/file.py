"""Where the page goes: one file, whole or not at all, and never over anything but such a page."""

from __future__ import annotations

import contextlib
import os
import tempfile
from os import PathLike
from pathlib import Path

from llama_core.errors import TraceError
from llama_core.report import Page
from llama_core.trace_report.page import MADE_BY


def check_file(place: str | PathLike[str]) -> Path:
    """The file as a path, if a page may be written there: a new or empty one, or an earlier page.

    Raises:
        TraceError: a folder, a file that is something else, or a folder that does not exist.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        raise TraceError("a page is one file, and this is a folder", file=path, key="--html", expected="FILE.html")
    if not path.parent.is_dir():
        raise TraceError("the folder for the page does not exist", file=path, key="--html", expected=path.parent)
    if path.exists() and (not path.is_file() or (path.stat().st_size and not _is_page(path))):
        raise TraceError(
            f"{path.name} is there and is no page of a comparison",
            file=path,
            key="--html",
            expected="a new file, or a page to replace",
            hint="name a new file",
        )
    return path


def _is_page(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return f'content="{MADE_BY}' in file.read(1000)


def write_page(page: Page, place: str | PathLike[str]) -> Path:
    """Write a page as self-contained HTML; returns where it is."""
    path = check_file(place)
    staged = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            staged = file.name
            file.write(page.html())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(staged, 0o644)
        os.replace(staged, path)
    except OSError as e:
        raise TraceError(
            f"the page could not be written: {e.strerror or e}",
            file=path,
            key="--html",
            expected="room on the disk and the right to write",
            hint="what was there before is unchanged",
        ) from e
    finally:
        if staged is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
    return path
