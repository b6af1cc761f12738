"""Freed memory is given back to the system."""

import sys

import numpy as np
import pytest

from llama_core.traces import memory


def own_pages() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_what_lies_between_living_things_is_given_back():
    if memory._malloc_trim() is None:
        pytest.skip("the C library has no malloc_trim")
    arrays = [np.ones(2_000) for _ in range(8_000)]  # 128 MB, each too small to have pages of its own
    living = arrays[::100]
    del arrays
    before = own_pages()
    memory.release_freed()
    assert before - own_pages() > 60_000_000 and len(living) == 80


def test_a_system_without_the_call_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory._malloc_trim.cache_clear()
    memory.release_freed()
    memory._malloc_trim.cache_clear()
