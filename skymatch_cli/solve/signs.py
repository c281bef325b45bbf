"""Signs that look random and are the same in every run, on every machine."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import FloatArray, IntArray

_OF_BYTE = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)


def mixed(index: IntArray) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A 64-bit hash of every index (splitmix64: Steele, Lea & Flood 2014, OOPSLA, 453)."""
    z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sign_columns(n: int, block: int) -> FloatArray:
    """Eight columns, (n, 8), of a fixed matrix of independent signs ±1 that has eight such blocks."""
    signs: FloatArray = _OF_BYTE[mixed(np.arange(n)).astype("<u8").view(np.uint8).reshape(n, 8)[:, block]]
    return signs
