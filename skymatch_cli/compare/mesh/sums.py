"""Sums over cells: differences of pairs of images, their moments, and scatter of the cells of an image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.pairs import Factors
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.model import FloatArray, OverlapGraph
from skymatch_cli.model.monomials import carried, degree_of, exponents, n_terms

_Float = TypeVar("_Float", bound=np.floating)
_PRIOR_BLOCKS = 10.0  # blocks' worth of belief in the noise that pixels show to their neighbours
_COMMON_BLOCKS = 30.0  # of belief that all images of a run scatter alike: the scatter of few blocks is itself noise
_UNDOUBTED = np.float32(0.93)  # of the scatter of Gaussian noise, in the cells that `trust` leaves their weight
_NEIGHBOUR = 0.19  # covariance of neighbouring cells of a row, where the variance is 1 - 2 * 0.19
_ALONG = (1.0 - 2.0 * _NEIGHBOUR) * np.eye(BLOCK) + _NEIGHBOUR * (np.eye(BLOCK, k=1) + np.eye(BLOCK, k=-1))
_COVARIANCE = np.kron(_ALONG, _ALONG).astype(np.float32)  # of the cells of a block


@dataclass(frozen=True, slots=True, eq=False)
class PairSums:
    """Sums over the common cells of M pairs, each (M,), with weights q = w_a w_b / sum(w)."""

    offset_a: FloatArray  # offsets of the images, which residuals are relative to
    offset_b: FloatArray
    weight: FloatArray  # of q
    a: FloatArray  # of q times the residual of the first image: value minus offset minus the cell's sky
    b: FloatArray  # the same of the second image
    sky: FloatArray  # of q times the cell's sky
    variance: FloatArray  # of q**2 (1 / w_a + 1 / w_b)
    n_cells: FloatArray  # of one, for cells that count
    pixels_a: FloatArray  # of the good pixels of the first image in these cells
    pixels_b: FloatArray
    information: FloatArray  # of q of the pixels' own information: ``weight`` lacks what stars and disagreement take

    @classmethod
    def empty(cls, graph: OverlapGraph, offset: FloatArray) -> PairSums:
        """Return empty sums, about the offsets (N,) of the images."""
        return cls(offset[graph.a], offset[graph.b], *np.zeros((9, len(graph.a))))

    def add(self, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array) -> None:
        """Add the cells of a sheet for the differences alone; ``share``: of the images in the weights of the cells."""
        sheet.pairs.add_products(share, weight, self.weight)
        sheet.pairs.add_products(share * residual, weight, self.a, self.b)

    def add_all(
        self, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array, sky: Float32Array
    ) -> None:
        """Add the cells of a sheet to all sums, with the skies (m, 64) of the cells."""
        self.add(sheet, weight, residual, share)
        layers, pairs = sheet.layers, sheet.pairs
        per_total = layers.each(np.multiply, share, inverse(layers.total(weight)))
        counts = (weight > 0).astype(np.float32)
        pairs.add_products(layers.each(np.multiply, share, sky), weight, self.sky)
        pairs.add_products(per_total, weight * weight, self.variance, self.variance)
        pairs.add_products(counts, counts, self.n_cells)
        pairs.add_products(sheet.pixels * counts, counts, self.pixels_a, self.pixels_b)
        pairs.add_products(shares(layers, sheet.weight), sheet.weight, self.information)

    def difference(self) -> FloatArray:
        """Weighted mean difference of every pair; that of the offsets where there is no common cell."""
        return np.asarray(self.offset_a - self.offset_b + (self.a - self.b) * inverse(self.weight))

    def skies(self) -> tuple[FloatArray, FloatArray]:
        """Weighted means of both images over the common cells."""
        per_weight = inverse(self.weight)
        return self.offset_a + (self.a + self.sky) * per_weight, self.offset_b + (self.b + self.sky) * per_weight


def add_sums(total: Any, more: Any) -> None:
    """Add the arrays of a dataclass to those of another."""
    for field in fields(total):
        array = getattr(total, field.name)
        array += getattr(more, field.name)


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
class PlaneMoments:
    """Sums over the common cells of M pairs, about a position of each."""

    position: FloatArray  # (M, 2)
    moments: FloatArray  # (M, t): weights, for each power of u and v up to twice the degree
    noises: FloatArray  # (M, t): variances of the pulls
    pull: FloatArray  # (M, k)

    @classmethod
    def empty(cls, position: FloatArray, degree: int) -> PlaneMoments:
        """Sums over nothing."""
        moments, noises = np.zeros((2, len(position), n_terms(2 * degree)))
        return cls(position, moments, noises, np.zeros((len(position), n_terms(degree))))

    def add(
        self, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array, *, noise: bool = False
    ) -> None:
        """Add the weights and residuals of a sheet; the noise only where it is asked for."""
        layers, degree = sheet.layers, degree_of(self.pull.shape[1])
        pairs = sheet.pairs
        factors: list[Factors] = [(share * residual, weight, np.subtract, degree), (share, weight, None, 2 * degree)]
        if noise:
            per_weight = layers.each(np.multiply, share, inverse(layers.total(weight)))
            factors.append((per_weight, weight * weight, np.add, 2 * degree))
        use = pairs.run_pair < len(pairs.rows)
        row = pairs.rows[pairs.run_pair[use]]
        move = carried(pairs.middles()[pairs.run_tile[use]] - self.position[row], 2 * degree)
        found = pairs.moments(2 * degree, factors)
        for total, value in zip((self.pull, self.moments, self.noises), found, strict=False):
            t = total.shape[1]
            np.add.at(total, row, np.einsum("rst,rs->rt", move[:, :t, :t], value[use]))

    def matrices(self, sums: FloatArray) -> FloatArray:
        """Moments (M, t) as the matrices (M, k, k) of the products of two monomials."""
        terms = exponents(degree_of(self.pull.shape[1]))
        number = {powers: t for t, powers in enumerate(exponents(2 * degree_of(self.pull.shape[1])))}
        # In the order of memory of a store's, for the last digits of products depend on it.
        return sums.take([[number[i + a, j + b] for a, b in terms] for i, j in terms], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class BlockScatter:
    """Scatter of weighted residuals in blocks of cells, for every image."""

    # (4, N): sums over the blocks: variance found, variance that the weights promise, one, and the promised one squared
    totals: FloatArray

    @classmethod
    def empty(cls, n: int) -> BlockScatter:
        """No block yet, for ``n`` images."""
        return cls(np.zeros((4, n)))

    def add(self, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array) -> None:
        """Add the blocks of a sheet."""
        noise = np.sqrt(weight * (np.float32(1) - share))
        promised = (_UNDOUBTED * np.einsum("bc,bc->b", noise, noise @ _COVARIANCE)).astype(float)
        found = np.einsum("bc,bc->b", weight, residual).astype(float)
        for total, each in zip(self.totals, (found**2, promised, promised > 0, promised**2), strict=True):
            total[sheet.images] += np.bincount(sheet.number, each, len(sheet.images))

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
