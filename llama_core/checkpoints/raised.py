"""An exception out of somebody else's code, in one line: what it did and where."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

#: Characters of an exception's text that are kept.
_LONGEST = 500
#: Where code lies that nobody who is judged has written.
_LIBRARIES = ("<frozen", sysconfig.get_path("stdlib"), f"{Path(__file__).parents[1]}{os.sep}")
#: The modules that load and call an implementation.
_CALLERS = tuple(str(Path(__file__).with_name(f"{name}.py")) for name in ("implementation", "loading"))


def one_line(e: BaseException) -> str:
    """Its class and its text, cut where it is long."""
    try:
        text = " ".join(str(e).split())
    except Exception:  # an exception that cannot be printed
        text = ""
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return f"{type(e).__name__}: {text}" if text else type(e).__name__


def describe(e: BaseException) -> str:
    """What somebody else's code did: raised this, or called ``sys.exit``."""
    if isinstance(e, SystemExit):
        return f"called sys.exit({'' if e.code is None else repr(e.code)})"
    return f"raised {one_line(e)}"


def where(e: BaseException) -> str | None:
    """The last line of somebody else's code in a traceback; its callers are left out, libraries where they can be."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename not in _CALLERS]
    written = [f for f in frames if not f.filename.startswith(_LIBRARIES) and "site-packages" not in f.filename]
    return f"{(written or frames)[-1].filename}:{(written or frames)[-1].lineno}" if frames else None
