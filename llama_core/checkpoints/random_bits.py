"""Test inputs that are the same bits in every language: splitmix64, and one multiplication.

The n-th draw of the stream with seed s is the finaliser of ``s + (n + 1) · 0x9E3779B97F4A7C15`` (mod 2^64). Its top
24 bits minus 2^23 are a whole number that float32 holds exactly; times one float32 constant they are uniform around 0
with the wanted standard deviation. No sine, logarithm or division is involved: two libraries on one machine already
disagree about sines.

Source of the generator: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 16, with
the constants of Vigna's splitmix64.c.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_CHUNK = 1 << 15  # stays in the processor's cache


def splitmix64(seed: int, count: int, start: int = 0) -> np.ndarray:
    """Draws ``start`` to ``start + count`` of the stream, uint64."""
    with np.errstate(over="ignore"):
        z = np.arange(start + 1, start + count + 1, dtype=np.uint64)
        z *= _GOLDEN
        z += np.uint64(seed)
        z ^= z >> np.uint64(30)
        z *= _MIX_1
        z ^= z >> np.uint64(27)
        z *= _MIX_2
        z ^= z >> np.uint64(31)
    return z


def uniform(seed: int, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Float32 values, uniform in ``±std·√3``: ``(top 24 bits - 2^23) · float32(std · √3 / 2^23)``."""
    count = math.prod(shape)
    constant = np.float32(std * math.sqrt(3) / 2**23)
    out = np.empty(count, np.float32)
    threads = min(os.cpu_count() or 1, 4) if count > 8 * _CHUNK else 1  # numpy lets go of the interpreter's lock
    if threads == 1:
        _fill(out, seed, constant, 0, 1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda worker: _fill(out, seed, constant, worker, threads), range(threads)))
    return out.reshape(shape)


def _fill(out: np.ndarray, seed: int, constant: np.float32, worker: int, workers: int) -> None:
    """Every ``workers``-th chunk of ``out``. The arithmetic of ``splitmix64`` in place: it fills 7B's matrices."""
    size = min(_CHUNK, len(out))
    steps = np.arange(1, size + 1, dtype=np.uint64) * _GOLDEN
    z_buffer, shifted_buffer = np.empty(size, np.uint64), np.empty(size, np.uint64)
    for start in range(worker * size, len(out), workers * size):
        part = out[start : start + size]
        z, shifted = z_buffer[: len(part)], shifted_buffer[: len(part)]
        np.add(steps[: len(part)], np.uint64((seed + start * int(_GOLDEN)) % 2**64), out=z)
        for bits, factor in ((30, _MIX_1), (27, _MIX_2)):
            np.right_shift(z, np.uint64(bits), out=shifted)
            np.bitwise_xor(z, shifted, out=z)
            np.multiply(z, factor, out=z)
        np.right_shift(z, np.uint64(31), out=shifted)
        np.bitwise_xor(z, shifted, out=z)
        np.right_shift(z, np.uint64(40), out=z)
        np.copyto(part, z.view(np.int64), casting="unsafe")  # 24 bits: exact in float32
        part -= np.float32(1 << 23)
        part *= constant


def whole_numbers(seed: int, shape: tuple[int, ...], below: int) -> np.ndarray:
    """Int64 values in [0, below): the top 24 bits modulo ``below``."""
    bits = splitmix64(seed, math.prod(shape))
    return ((bits >> np.uint64(40)) % np.uint64(below)).astype(np.int64).reshape(shape)
