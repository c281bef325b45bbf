"""Sums over cells: what pairs of images differ by, and how much the cells of an image scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from skymatch_cli.mesh.cells import Float32Array
from skymatch_cli.mesh.tiles import BLOCK, Tile
from skymatch_cli.model import FloatArray, OverlapGraph

_Float = TypeVar("_Float", bound=np.floating)
_PRIOR_BLOCKS = 10.0  # blocks' worth of belief in the noise that pixels show to their neighbours
_NEIGHBOUR = 0.19  # covariance of neighbouring cells of a row, where the variance is 1 - 2 * 0.19


@dataclass(frozen=True, slots=True, eq=False)
class PairSums:
    """Sums over the common cells of every pair; columns over the M pairs.

    Attributes
    ----------
    offset_a, offset_b : (M,) float64
        Offsets of the images, which residuals are relative to.
    weight : (M,) float64
        Sum of q = w_a w_b / sum(w).
    a, b : (M,) float64
        Sums of q times the residual of each image: value minus offset minus the cell's sky.
    sky : (M,) float64
        Sum of q times the cell's sky.
    variance : (M,) float64
        Sum of q**2 (1 / w_a + 1 / w_b).
    n_cells, n_a, n_b : (M,) float64
        Cells that count, and the good pixels of each image in them.
    """

    offset_a: FloatArray
    offset_b: FloatArray
    weight: FloatArray
    a: FloatArray
    b: FloatArray
    sky: FloatArray
    variance: FloatArray
    n_cells: FloatArray
    n_a: FloatArray
    n_b: FloatArray

    @classmethod
    def empty(cls, graph: OverlapGraph, offset: FloatArray) -> PairSums:
        """Sums over nothing, about the offsets (N,) of the images."""
        return cls(offset[graph.a], offset[graph.b], *(np.zeros(len(graph.a)) for _ in range(8)))

    def add(self, tile: Tile, weight: Float32Array, residual: Float32Array) -> None:
        """Add the weights and residuals of a tile; products of all its images at once."""
        k = len(tile.images)
        w = weight.reshape(k, -1)
        share = _shares(w)
        by_weight = share @ w.T
        share *= residual.reshape(k, -1)
        by_residual = share @ w.T
        one, other = tile.first, tile.second
        self.weight[tile.pair] += by_weight[one, other]
        self.a[tile.pair] += by_residual[one, other]
        self.b[tile.pair] += by_residual[other, one]

    def add_details(self, tile: Tile, weight: Float32Array, sky: Float32Array) -> None:
        """Add what only the result needs; ``sky`` (nj, ni) is that of the cells."""
        k = len(tile.images)
        w = weight.reshape(k, -1)
        share = _shares(w)
        by_sky = (share * sky.reshape(-1)) @ w.T
        by_square = (share * _inverse(w.sum(axis=0))) @ (w * w).T
        counts = (w > 0).astype(np.float32)
        cells, pixels = counts @ counts.T, (tile.pixels.reshape(k, -1) * counts) @ counts.T
        one, other = tile.first, tile.second
        self.sky[tile.pair] += by_sky[one, other]
        self.variance[tile.pair] += by_square[one, other] + by_square[other, one]
        self.n_cells[tile.pair] += cells[one, other]
        self.n_a[tile.pair] += pixels[one, other]
        self.n_b[tile.pair] += pixels[other, one]

    def difference(self) -> FloatArray:
        """Weighted mean difference of every pair; that of the offsets where there is no common cell."""
        return np.asarray(self.offset_a - self.offset_b + (self.a - self.b) * _inverse(self.weight))

    def skies(self) -> tuple[FloatArray, FloatArray]:
        """Weighted means of both images over the common cells."""
        per_weight = _inverse(self.weight)
        return self.offset_a + (self.a + self.sky) * per_weight, self.offset_b + (self.b + self.sky) * per_weight


def _shares(w: Float32Array) -> Float32Array:
    return np.asarray(w * _inverse(w.sum(axis=0)))


def _inverse(a: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """1 / a, and 0 where a is 0."""
    return np.asarray(np.divide(1, a, out=np.zeros_like(a), where=a > 0))


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

    def add(self, tile: Tile, weight: Float32Array, residual: Float32Array) -> None:
        """Add the blocks of a tile."""
        own = weight * _inverse(weight.sum(axis=0))
        promised = _block_variance(np.sqrt(weight * (np.float32(1) - own)))
        self.found[tile.images] += (_block_sums(weight * residual).astype(float) ** 2).sum(axis=(1, 2))
        self.promised[tile.images] += promised.sum(axis=(1, 2), dtype=float)
        self.n_blocks[tile.images] += np.count_nonzero(promised, axis=(1, 2))

    def ratio(self) -> FloatArray:
        """Variance found over variance promised, drawn to 1 where blocks are few."""
        prior = _PRIOR_BLOCKS * np.divide(
            self.promised, self.n_blocks, out=np.ones_like(self.promised), where=self.n_blocks > 0
        )
        return np.asarray((self.found + prior) / (self.promised + prior))


def _block_sums(a: Float32Array) -> Float32Array:
    k, nj, ni = a.shape
    return np.asarray(a.reshape(k, nj // BLOCK, BLOCK, ni // BLOCK, BLOCK).sum(axis=(2, 4)))


def _block_variance(a: Float32Array) -> Float32Array:
    """Variance of sums over blocks of a cell-by-cell noise; the noise of neighbouring cells is correlated."""
    k, nj, ni = a.shape
    blocks = a.reshape(k, nj // BLOCK, BLOCK, ni // BLOCK, BLOCK)
    spread = blocks
    for axis in (2, 4):
        low, high = ((slice(None),) * axis + (s,) for s in (slice(None, -1), slice(1, None)))
        out = spread * np.float32(1.0 - 2.0 * _NEIGHBOUR)
        out[high] += np.float32(_NEIGHBOUR) * spread[low]
        out[low] += np.float32(_NEIGHBOUR) * spread[high]
        spread = out
    return np.asarray((blocks * spread).sum(axis=(2, 4)))
