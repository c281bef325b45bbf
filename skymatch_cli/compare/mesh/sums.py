"""Sums over cells: differences of pairs of images, and scatter of the cells of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.model import FloatArray, IntArray, OverlapGraph

_Float = TypeVar("_Float", bound=np.floating)
_PRIOR_BLOCKS = 10.0  # blocks' worth of belief in the noise that pixels show to their neighbours
_COMMON_BLOCKS = 30.0  # of belief that all images of a run scatter alike: the scatter of few blocks is itself noise
_UNDOUBTED = np.float32(0.93)  # of the scatter of Gaussian noise, in the cells that `trust` leaves their weight
_NEIGHBOUR = 0.19  # covariance of neighbouring cells of a row, where the variance is 1 - 2 * 0.19
_ALONG_ROW = np.float32(1.0 - 2.0 * _NEIGHBOUR) * np.eye(BLOCK, dtype=np.float32)
_ALONG_ROW += np.float32(_NEIGHBOUR) * (np.eye(BLOCK, k=1, dtype=np.float32) + np.eye(BLOCK, k=-1, dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class SheetSums:
    """Sums of one sheet over pairs, or over images."""

    rows: IntArray  # (p,): pairs of the graph, or images
    columns: FloatArray  # (c, p): what is added to the first c columns of these rows


@dataclass(frozen=True, slots=True, eq=False)
class PairSums:
    """Sums over the common cells of every pair; columns over the M pairs."""

    offset_a: FloatArray  # (M,): offsets of the images, which residuals are relative to
    offset_b: FloatArray  # (M,)
    totals: FloatArray  # (9, M): the columns below

    @classmethod
    def empty(cls, graph: OverlapGraph, offset: FloatArray) -> PairSums:
        """Return empty sums, about the offsets (N,) of the images."""
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

    def add(self, found: SheetSums) -> None:
        """Add the sums of a sheet: three columns, or all of them."""
        self.totals[: len(found.columns), found.rows] += found.columns

    def difference(self) -> FloatArray:
        """Weighted mean difference of every pair; that of the offsets where there is no common cell."""
        return np.asarray(self.offset_a - self.offset_b + (self.a - self.b) * inverse(self.weight))

    def skies(self) -> tuple[FloatArray, FloatArray]:
        """Weighted means of both images over the common cells."""
        per_weight = inverse(self.weight)
        return self.offset_a + (self.a + self.sky) * per_weight, self.offset_b + (self.b + self.sky) * per_weight


def pair_sums(sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array) -> SheetSums:
    """The first three columns of `PairSums` over the cells of a sheet.

    ``share`` is that of each image in the weight of its cell.
    """
    by_residual = share * residual
    columns = sheet.pairs.products(share, weight), *sheet.pairs.both_products(by_residual, weight)
    return SheetSums(sheet.pairs.rows, np.array(columns))


def all_pair_sums(
    sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array, sky: Float32Array
) -> SheetSums:
    """All columns of `PairSums` over the cells of a sheet, with the skies (m, 64) of these."""
    layers, products = sheet.layers, sheet.pairs.products
    first = pair_sums(sheet, weight, residual, share).columns
    per_total = layers.each(np.multiply, share, inverse(layers.total(weight)))
    square = weight * weight
    counts = (weight > 0).astype(np.float32)
    pixels = sheet.pixels * counts
    information = shares(layers, sheet.weight)
    more = [
        products(layers.each(np.multiply, share, sky), weight),
        sum(sheet.pairs.both_products(per_total, square)),
        products(counts, counts),
        *sheet.pairs.both_products(pixels, counts),
        products(information, sheet.weight),
    ]
    return SheetSums(sheet.pairs.rows, np.array([*first, *more]))


def shares(layers: Layers, weight: Float32Array) -> Float32Array:
    """The share of each image in the weight of its cell, 0 where there is none."""
    return layers.each(np.multiply, weight, inverse(layers.total(weight)))


def over(a: npt.NDArray[_Float], b: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """A / b, and 0 where b is 0."""
    return np.asarray(np.divide(a, b, out=np.zeros_like(a), where=b > 0))


def inverse(a: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """1 / a, and 0 where a is 0."""
    return np.asarray(np.divide(1, a, out=np.zeros_like(a), where=a > 0))


@dataclass(frozen=True, slots=True, eq=False)
class BlockScatter:
    """Scatter of weighted residuals in blocks of cells, for every image."""

    # (4, N): sums over the blocks: variance found, variance that the weights promise, one, and the promised one squared
    totals: FloatArray

    @classmethod
    def empty(cls, n: int) -> BlockScatter:
        """No block yet, for ``n`` images."""
        return cls(np.zeros((4, n)))

    def add(self, found: SheetSums) -> None:
        """Add the blocks of a sheet."""
        self.totals[:, found.rows] += found.columns

    def ratio(self, scale: FloatArray | float = 1.0) -> FloatArray:
        """Variance found over variance that the pixels promise: near that of a typical image where blocks are few.

        The offset of an image makes its blocks add up to nothing, which takes its share of the variance. ``scale``
        (N,): that of the pixels' variance in the weights; belief is in the pixels, however often it is asked.
        """
        found, promised, n_blocks, square = self.totals
        found = found * scale
        expected = promised - over(square, promised)
        block = np.where(n_blocks > 0, over(promised, n_blocks), 1.0)
        alone = (found + _PRIOR_BLOCKS * block) / (expected + _PRIOR_BLOCKS * block)
        typical = np.median(alone[n_blocks > 0]) if n_blocks.any() else 1.0
        return np.asarray((found + typical * _COMMON_BLOCKS * block) / (expected + _COMMON_BLOCKS * block))


def block_scatter(sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array) -> SheetSums:
    """Sum the scatter of the blocks of a sheet, for `BlockScatter`."""
    promised = (_UNDOUBTED * _block_variance(np.sqrt(weight * (np.float32(1) - share)))).astype(float)
    found = np.einsum("bc,bc->b", weight, residual).astype(float)
    each = (found**2, promised, promised > 0, promised**2)
    return SheetSums(sheet.images, np.array([np.bincount(sheet.number, c, len(sheet.images)) for c in each]))


def _block_variance(a: Float32Array) -> Float32Array:
    """Variance of sums over blocks of a cell-by-cell noise (n, 64); the noise of neighbouring cells is correlated."""
    rows = a.reshape(-1, BLOCK)
    along = (rows @ _ALONG_ROW).reshape(-1, BLOCK, BLOCK)
    spread = along * np.float32(1.0 - 2.0 * _NEIGHBOUR)
    along *= np.float32(_NEIGHBOUR)
    spread[:, 1:] += along[:, :-1]
    spread[:, :-1] += along[:, 1:]
    return np.asarray(np.einsum("bc,bc->b", a, spread.reshape(a.shape)))
