"""Memory that arrays have left behind, given back to the system.

What was freed lies in the C library's heap between small things that live on. It is not given back by itself, and where
arrays of many sizes come and go it is not used again either: comparing two traces of a billion parameters took a third
more memory than its arrays.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def release_freed() -> None:
    """Give freed pages back. Does nothing where the C library has no call for it (glibc has)."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library, another system
        return None
