"""Sums over cells: what pairs of images differ by, and how much the cells of an image scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from skymatch_cli.mesh.cells import Float32Array
from skymatch_cli.mesh.tiles import BLOCK, Tile
from skymatch_cli.model import FloatArray, IntArray, OverlapGraph

_Float = TypeVar("_Float", bound=np.floating)
_PRIOR_BLOCKS = 10.0  # blocks' worth of belief in the noise that pixels show to their neighbours
_COMMON_BLOCKS = 30.0  # of belief that all images of a run scatter alike: the scatter of few blocks is itself noise
_NEIGHBOUR = 0.19  # covariance of neighbouring cells of a row, where the variance is 1 - 2 * 0.19


@dataclass(frozen=True, slots=True, eq=False)
class TileSums:
    """What one tile adds to sums over pairs, or over images.

    Attributes
    ----------
    rows : (p,) int64
        Pairs of the graph, or images.
    columns : (c, p) float64
        What is added to the first c columns of these rows.
    """

    rows: IntArray
    columns: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class PairSums:
    """Sums over the common cells of every pair; columns over the M pairs.

    Attributes
    ----------
    offset_a, offset_b : (M,) float64
        Offsets of the images, which residuals are relative to.
    totals : (9, M) float64
        The columns below.
    """

    offset_a: FloatArray
    offset_b: FloatArray
    totals: FloatArray

    @classmethod
    def empty(cls, graph: OverlapGraph, offset: FloatArray) -> PairSums:
        """Sums over nothing, about the offsets (N,) of the images."""
        return cls(offset[graph.a], offset[graph.b], np.zeros((9, len(graph.a))))

    @property
    def weight(self) -> FloatArray:
        """Sum of q = w_a w_b / sum(w)."""
        return np.asarray(self.totals[0])

    @property
    def a(self) -> FloatArray:
        """Sum of q times the residual of the first image: value minus offset minus the cell's sky."""
        return np.asarray(self.totals[1])

    @property
    def b(self) -> FloatArray:
        """The same of the second image."""
        return np.asarray(self.totals[2])

    @property
    def sky(self) -> FloatArray:
        """Sum of q times the cell's sky."""
        return np.asarray(self.totals[3])

    @property
    def variance(self) -> FloatArray:
        """Sum of q**2 (1 / w_a + 1 / w_b)."""
        return np.asarray(self.totals[4])

    @property
    def n_cells(self) -> FloatArray:
        """Cells that count."""
        return np.asarray(self.totals[5])

    @property
    def n_pixels(self) -> tuple[FloatArray, FloatArray]:
        """Good pixels of either image in these cells."""
        return np.asarray(self.totals[6]), np.asarray(self.totals[7])

    @property
    def information(self) -> FloatArray:
        """Sum of q of the pixels' own information: ``weight`` is less by what stars and disagreement take."""
        return np.asarray(self.totals[8])

    def add(self, found: TileSums) -> None:
        """Add what was found in a tile: three columns, or all of them."""
        self.totals[: len(found.columns), found.rows] += found.columns

    def difference(self) -> FloatArray:
        """Weighted mean difference of every pair; that of the offsets where there is no common cell."""
        return np.asarray(self.offset_a - self.offset_b + (self.a - self.b) * _inverse(self.weight))

    def skies(self) -> tuple[FloatArray, FloatArray]:
        """Weighted means of both images over the common cells."""
        per_weight = _inverse(self.weight)
        return self.offset_a + (self.a + self.sky) * per_weight, self.offset_b + (self.b + self.sky) * per_weight


def pair_sums(tile: Tile, weight: Float32Array, residual: Float32Array, sky: Float32Array | None = None) -> TileSums:
    """Sums over the cells of a tile, products of all its images at once.

    With the skies (nj, ni) of the cells all columns of `PairSums`, else the first three.
    """
    k = len(tile.images)
    w = weight.reshape(k, -1)
    share = _shares(w)
    one, other = tile.first, tile.second
    by_weight, by_residual = share @ w.T, (share * residual.reshape(k, -1)) @ w.T
    columns = [by_weight[one, other], by_residual[one, other], by_residual[other, one]]
    if sky is not None:
        by_sky = (share * sky.reshape(-1)) @ w.T
        by_square = (share * _inverse(w.sum(axis=0))) @ (w * w).T
        counts = (w > 0).astype(np.float32)
        cells, pixels = counts @ counts.T, (tile.pixels.reshape(k, -1) * counts) @ counts.T
        columns += [by_sky[one, other], by_square[one, other] + by_square[other, one]]
        information = tile.information.reshape(k, -1)
        by_information = _shares(information) @ information.T
        columns += [cells[one, other], pixels[one, other], pixels[other, one], by_information[one, other]]
    return TileSums(tile.pair, np.array(columns, float))


def _shares(w: Float32Array) -> Float32Array:
    return np.asarray(w * _inverse(w.sum(axis=0)))


def _over(a: FloatArray, b: FloatArray) -> FloatArray:
    """A / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _inverse(a: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """1 / a, and 0 where a is 0."""
    return np.asarray(np.divide(1, a, out=np.zeros_like(a), where=a > 0))


@dataclass(frozen=True, slots=True, eq=False)
class BlockScatter:
    """Scatter of weighted residuals in blocks of cells, for every image.

    Attributes
    ----------
    totals : (4, N) float64
        Sums over the blocks: variance found, variance that the weights promise, one, and the promised one squared.
    """

    totals: FloatArray

    @classmethod
    def empty(cls, n: int) -> BlockScatter:
        """No block yet, for ``n`` images."""
        return cls(np.zeros((4, n)))

    def add(self, found: TileSums) -> None:
        """Add the blocks of a tile."""
        self.totals[:, found.rows] += found.columns

    def ratio(self) -> FloatArray:
        """Variance found over variance promised: near that of a typical image where blocks are few.

        The offset of an image makes its blocks add up to nothing, which takes its share of the variance.
        """
        found, promised, n_blocks, square = self.totals
        expected = promised - _over(square, promised)
        block = np.where(n_blocks > 0, _over(promised, n_blocks), 1.0)
        alone = (found + _PRIOR_BLOCKS * block) / (expected + _PRIOR_BLOCKS * block)
        typical = np.median(alone[n_blocks > 0]) if n_blocks.any() else 1.0
        return np.asarray((found + typical * _COMMON_BLOCKS * block) / (expected + _COMMON_BLOCKS * block))


def block_scatter(tile: Tile, weight: Float32Array, residual: Float32Array) -> TileSums:
    """What the blocks of a tile add to `BlockScatter`."""
    own = weight * _inverse(weight.sum(axis=0))
    promised = _block_variance(np.sqrt(weight * (np.float32(1) - own))).astype(float)
    found = _block_sums(weight * residual).astype(float)
    n_blocks = np.count_nonzero(promised, axis=(1, 2))
    sums = [(found**2).sum(axis=(1, 2)), promised.sum(axis=(1, 2)), n_blocks, (promised**2).sum(axis=(1, 2))]
    return TileSums(tile.images, np.array(sums))


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
