"""Signs that look random and are the same in every run, on every machine."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import FloatArray

_SEED = 20_000
_OF_BYTE = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
N_BLOCKS = 8
"""Blocks of eight columns that ``sign_columns`` has."""


def random_bits(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """64 bits for each of ``n`` things, from a fixed seed; numpy keeps the raw stream of PCG64 as it is."""
    return np.random.PCG64(_SEED).random_raw(n).astype(np.uint64)


def sign_columns(n: int, block: int) -> FloatArray:
    """Eight columns, (n, 8), of a fixed matrix of independent signs ±1 that has eight such blocks."""
    signs: FloatArray = _OF_BYTE[random_bits(n).astype("<u8").view(np.uint8).reshape(n, 8)[:, block]]
    return signs
