"""Signs that look random and are the same in every run."""

from __future__ import annotations

import numpy as np

from .model import FloatArray, IntArray


def mixed(index: IntArray) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A 64-bit hash of every index (splitmix64: Steele, Lea & Flood 2014, OOPSLA, 453)."""
    z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sign_columns(n: int, columns: slice) -> FloatArray:
    """Columns, at most 64, of a fixed (n, 64) matrix of independent signs ±1."""
    bits = np.arange(64, dtype=np.uint64)[columns]
    set_bits = (mixed(np.arange(n))[:, None] >> bits) & np.uint64(1)
    return 1.0 - 2.0 * set_bits.astype(np.float64)
