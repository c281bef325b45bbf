"""Sums over cells: what pairs of images differ by, and how much the cells of an image scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.mesh_tiles import BLOCK, Tile
from skymatch_cli.model import FloatArray, OverlapGraph

_PRIOR_BLOCKS = 10.0  # blocks' worth of belief in the noise that pixels show to their neighbours
_NEIGHBOUR = 0.19  # covariance of neighbouring cells of a row, where the variance is 1 - 2 * 0.19


@dataclass(frozen=True, slots=True, eq=False)
class PairSums:
    """Sums over the common cells of every pair; columns over the M pairs, values relative to the levels.

    Attributes
    ----------
    weight : (M,) float64
        Sum of q = w_a w_b / sum(w).
    a, b : (M,) float64
        Sums of q times the value of each image.
    variance : (M,) float64
        Sum of q**2 (1 / w_a + 1 / w_b).
    n_cells, n_a, n_b : (M,) float64
        Cells that count, and the good pixels of each image in them.
    """

    weight: FloatArray
    a: FloatArray
    b: FloatArray
    variance: FloatArray
    n_cells: FloatArray
    n_a: FloatArray
    n_b: FloatArray

    @classmethod
    def empty(cls, m: int) -> PairSums:
        """Sums over nothing, for ``m`` pairs."""
        return cls(*(np.zeros(m) for _ in range(7)))

    def add(self, tile: Tile, weight: FloatArray) -> None:
        """Add the cells of a tile; products of all its images at once."""
        k = len(tile.images)
        total = weight.sum(axis=0).ravel()
        used = total > 0
        w = weight.reshape(k, -1)[:, used]
        share = w / total[used]
        value = tile.value.reshape(k, -1)[:, used].astype(float)
        counts = (w > 0).astype(float)
        by_value = (share * value) @ w.T
        by_square = (share / total[used]) @ (w * w).T
        pixels = (tile.pixels.reshape(k, -1)[:, used] * counts) @ counts.T
        one, other = tile.first, tile.second
        for mine, products in (
            (self.weight, (share @ w.T)[one, other]),
            (self.a, by_value[one, other]),
            (self.b, by_value[other, one]),
            (self.variance, by_square[one, other] + by_square[other, one]),
            (self.n_cells, (counts @ counts.T)[one, other]),
            (self.n_a, pixels[one, other]),
            (self.n_b, pixels[other, one]),
        ):
            mine[tile.pair] += products

    def difference(self, level: FloatArray, graph: OverlapGraph) -> FloatArray:
        """Weighted mean difference of every pair, levels included; 0 where there is none."""
        mean = np.divide(self.a - self.b, self.weight, out=np.zeros_like(self.weight), where=self.weight > 0)
        return np.asarray(mean + level[graph.a] - level[graph.b])


@dataclass(frozen=True, slots=True, eq=False)
class BlockScatter:
    """Scatter of weighted residuals in blocks of cells, for every image, and what the weights promise."""

    found: FloatArray
    promised: FloatArray
    n_blocks: FloatArray

    @classmethod
    def empty(cls, n: int) -> BlockScatter:
        """No block yet, for ``n`` images."""
        return cls(np.zeros(n), np.zeros(n), np.zeros(n))

    def add(self, tile: Tile, weight: FloatArray, residual: FloatArray) -> None:
        """Add the blocks of a tile."""
        total = weight.sum(axis=0)
        own = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        promised = _block_variance(np.sqrt(weight * (1.0 - own)))
        self.found[tile.images] += (_block_sums(weight * residual) ** 2).sum(axis=(1, 2))
        self.promised[tile.images] += promised.sum(axis=(1, 2))
        self.n_blocks[tile.images] += np.count_nonzero(promised, axis=(1, 2))

    def ratio(self) -> FloatArray:
        """Variance found over variance promised, drawn to 1 where blocks are few."""
        prior = _PRIOR_BLOCKS * np.divide(
            self.promised, self.n_blocks, out=np.ones_like(self.promised), where=self.n_blocks > 0
        )
        return np.asarray((self.found + prior) / (self.promised + prior))


def _block_sums(a: FloatArray) -> FloatArray:
    k, nj, ni = a.shape
    return np.asarray(a.reshape(k, nj // BLOCK, BLOCK, ni // BLOCK, BLOCK).sum(axis=(2, 4)))


def _block_variance(a: FloatArray) -> FloatArray:
    """Variance of sums over blocks of a cell-by-cell noise; the noise of neighbouring cells is correlated."""
    k, nj, ni = a.shape
    blocks = a.reshape(k, nj // BLOCK, BLOCK, ni // BLOCK, BLOCK)
    spread = blocks
    for axis in (2, 4):
        low, high = ((slice(None),) * axis + (s,) for s in (slice(None, -1), slice(1, None)))
        out = spread * (1.0 - 2.0 * _NEIGHBOUR)
        out[high] += _NEIGHBOUR * spread[low]
        out[low] += _NEIGHBOUR * spread[high]
        spread = out
    return np.asarray((blocks * spread).sum(axis=(2, 4)))
