"""Windows of cells, a few seeing discs wide, over which images are compared.

Arrays are (64, n + 1), cells first: a mean over windows is then a few sums of long rows (see `layers.cells_first`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Beside, cells_first


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of two widths about every cell of a sheet; means over empty ones are 0 (their divisors infinite)."""

    beside: Beside
    finest: int  # doublings of the smaller window; the other has one more
    weight: Float32Array  # (64, n + 1): information of the pixels
    # (64, n + 1) each: standard deviation of the sums of weighted residuals over each window, and expected sum of their
    # weighted squares over the smaller one
    noise: tuple[Float32Array, ...]
    seen: tuple[Float32Array, ...]  # (64, n + 1) each: share of each window that has cells

    @classmethod
    def of_weights(cls, beside: Beside, finest: int, weight: Float32Array, own: Float32Array) -> Windows:
        """From the weights (n, 64) of cells and the shares of their variance that remain in residuals."""
        weight, own = cells_first(weight), cells_first(own)
        seen = (weight > 0).astype(np.float32)
        noise = [
            np.sqrt(np.float32(_energy(finest + k)) * sums)
            for k, sums in enumerate(_both(beside, weight * own, finest))
        ]
        return cls(
            beside=beside,
            finest=finest,
            weight=weight,
            noise=tuple(map(_divisor, (*noise, beside.smoothed(own * seen, finest)))),
            seen=tuple(map(_divisor, _both(beside, seen, finest))),
        )

    def both(self, a: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Means over the smaller and the larger windows."""
        return _both(self.beside, a, self.finest)


def _both(beside: Beside, a: Float32Array, finest: int) -> tuple[Float32Array, Float32Array]:
    smaller = beside.smoothed(a, finest)
    return smaller, beside.smoothed(smaller, finest + 1, done=finest)


def _divisor(a: Float32Array) -> Float32Array:
    return np.where(a > 0, a, np.float32(np.inf))


@cache
def _energy(doublings: int) -> float:
    """Variance of the mean over a window of cells of unit variance, along both axes."""
    window = np.ones(1)
    for k in range(doublings):
        step = np.zeros(2 ** (k + 1) + 1)
        step[[0, -1]], step[2**k] = 0.25, 0.5
        window = np.convolve(window, step)
    return float((window**2).sum() ** 2)
