"""Structure of differences within overlaps: what the noise of the pixels does not explain.

The difference of two images should be the same all over their overlap. Where it is not (gradients, residual flats,
ghosts that no cell betrays, noise that reaches further than the cells), the mean over the overlap is uncertain by
more than its noise, and by more than the pieces of an overlap would average out to: what varies on the scale of the
overlap goes on beyond it. So the variance between nine pieces, beyond their noise (DerSimonian & Laird 1986), is added
to that of the difference undivided.

Differences that grow with the brightness of the scene mean zero points that differ. How bright the scene is above a
black sky can't be known from the images: a factor times a constant is a constant. It is taken to be as bright as it
varies: from the darkest block of the images that hang together to their brightest overlap. The slope times that is
added to the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.sums import inverse, over
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.model import FloatArray, IntArray, OverlapGraph

_SIDE = 3  # pieces along a side of the box of an overlap
_PIECES = _SIDE**2
_LIKELY = (
    2.0  # standard deviations of its noise that a variance between pieces must exceed, in the overlaps of an image
)
_SURE = 3.0  # the same in one overlap
_EXTENT = 4.0  # variance of an image's level over that of its overlaps' pieces, where structure is as large as a frame
_FEW = 6  # blocks that say nothing about a slope
_CLEAR = 4.0  # errors that the slope of one overlap with brightness must exceed
_MANY = 3  # overlaps of a component, beyond which one that stands alone can be told
_FAR = 6.0  # errors beyond which a slope is no accident, even alone
_VISIBLE = 1.0  # brightness, in noise of a pixel: below it a difference of seeing looks the same


@dataclass(frozen=True, slots=True, eq=False)
class BlockSums:
    """What the blocks of one sheet show: k pairs in blocks.

    Attributes
    ----------
    pair : (k,) int64
        Index into the graph.
    row, column : (k,) int64
        Of the block.
    columns : (4, k) float64
        Sums over the cells of the block: weights q, q times the difference, variance of that, q times the sky.
    """

    pair: IntArray
    row: IntArray
    column: IntArray
    columns: FloatArray

    @classmethod
    def of_sheet(
        cls, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array, sky: Float32Array
    ) -> BlockSums:
        """From weights, residuals and shares (n, 64) of the cells, and their skies (m, 64)."""
        layers, products = sheet.layers, sheet.pairs.block_products
        by_residual = share * residual
        per_total = layers.each(np.multiply, share, inverse(layers.total(weight)))
        square = weight * weight
        which, row, column = sheet.pairs.in_blocks()
        columns = (
            products(share, weight),
            products(by_residual, weight) - products(weight, by_residual),
            products(per_total, square) + products(square, per_total),
            products(_times_sky(layers, share, sky), weight),
        )
        return cls(sheet.pairs.rows[which], row, column, np.array(columns, float))


def _times_sky(layers: Layers, share: Float32Array, sky: Float32Array) -> Float32Array:
    return layers.each(np.multiply, share, sky)


@dataclass(frozen=True, slots=True, eq=False)
class PairStructure:
    """Sums over the blocks of M pairs.

    Attributes
    ----------
    low, size : (M, 2) float64
        Box that both meshes of a pair share, in blocks (row, column).
    pieces : (3, M, 9) float64
        Weight, weight times difference, and variance of that, in the pieces of the box.
    bright : (5, M) float64
        With weight q, mean sky s and difference d of a block: sums of q s, q s^2, q s d, q d^2, and of one.
    darkest : (M,) float64
        Sky of the darkest block.
    """

    low: FloatArray
    size: FloatArray
    pieces: FloatArray
    bright: FloatArray
    darkest: FloatArray

    @classmethod
    def empty(cls, graph: OverlapGraph, meshes: Sequence[Sequence[Mesh | None]]) -> PairStructure:
        """No block yet. ``meshes``: for every plane of the graph, for every image."""
        m = len(graph.a)
        low, high = np.zeros((2, m, 2))
        for k, images in enumerate(meshes):
            mine = np.flatnonzero(graph.plane == k)
            box = np.array([_box(mesh) for mesh in images]).reshape(-1, 2, 2)
            low[mine] = np.maximum(box[graph.a[mine], 0], box[graph.b[mine], 0])
            high[mine] = np.minimum(box[graph.a[mine], 1], box[graph.b[mine], 1])
        size = np.maximum(high - low, 1)
        return cls(low, size, np.zeros((3, m, _PIECES)), np.zeros((5, m)), np.full(m, np.inf))

    def add(self, found: BlockSums) -> None:
        """Add the blocks of a sheet."""
        weight, pull, variance, bright = found.columns
        use = weight > 0
        pair, weight, pull, variance, bright = (c[use] for c in (found.pair, weight, pull, variance, bright))
        place = np.stack([found.row[use], found.column[use]], axis=1) + 0.5
        piece = np.clip(_SIDE * (place - self.low[pair]) / self.size[pair], 0, _SIDE - 1).astype(np.int64)
        cell = pair * _PIECES + piece[:, 0] * _SIDE + piece[:, 1]
        for k, value in enumerate((weight, pull, variance)):
            self.pieces[k] += np.bincount(cell, value, self.pieces[k].size).reshape(self.pieces[k].shape)
        sky = bright / weight
        terms = (bright, bright * sky, sky * pull, pull**2 / weight, np.ones(len(sky)))
        for k, value in enumerate(terms):
            self.bright[k] += np.bincount(pair, value, len(self.darkest))
        np.minimum.at(self.darkest, pair, sky)

    def variance(self, graph: OverlapGraph) -> FloatArray:
        """Variance (M,) of the differences that comes of structure in the overlaps."""
        weight, pull, noise = self.pieces
        total = weight.sum(axis=1)
        difference = over(pull, weight)
        mean = over(pull.sum(axis=1), total)
        found = (weight * (difference - mean[:, None]) ** 2).sum(axis=1)
        each = over(noise, weight)
        expected = each.sum(axis=1) - over(noise.sum(axis=1), total)
        doubt = 2 * (each**2).sum(axis=1)
        per_variance = total - over((weight**2).sum(axis=1), total)
        excess = found - expected
        own = over(np.maximum(excess - _SURE * np.sqrt(doubt), 0), per_variance)
        pooled = []
        for ends in (graph.a, graph.b):
            sums = [_of_images(c, graph) for c in (excess, doubt, per_variance)]
            likely = over(np.maximum(sums[0] - _LIKELY * np.sqrt(sums[1]), 0), sums[2])
            pooled.append(likely[ends])
        return np.asarray(_EXTENT * np.maximum(own, np.minimum(*pooled)))

    def slopes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Slope of the difference with brightness and its error (M,), and the mean brightness of the overlap (M,).

        Regression over the blocks; its error is that of what the blocks scatter by about it.
        """
        weight, pull, _ = self.pieces.sum(axis=2)
        first, second, product, square, count = self.bright
        mean = over(first, weight)
        spread = second - mean * first
        known = (spread > 1e-6 * second) & (count > _FEW)
        spread = np.where(known, spread, 1.0)
        slope = np.where(known, (product - mean * pull) / spread, 0.0)
        scatter = np.maximum(square - over(pull**2, weight) - slope**2 * spread, 1e-6 * square)
        err = np.sqrt(scatter / np.maximum(count - 2, 1) / spread)
        return slope, np.where(known & (err > 0), err, np.inf), mean


def _box(mesh: Mesh | None) -> FloatArray:
    """First and last (row, column) of a mesh, in blocks."""
    if mesh is None:
        return np.zeros((2, 2))
    low = np.array(mesh.origin, float) / BLOCK
    return np.stack([low, low + np.array(mesh.shape) / BLOCK])


def _of_images(per_pair: FloatArray, graph: OverlapGraph) -> FloatArray:
    n = graph.n_images
    return np.asarray(np.bincount(graph.a, per_pair, n) + np.bincount(graph.b, per_pair, n))


@dataclass(frozen=True, slots=True, eq=False)
class ZeroPoints:
    """Factors between the images, from differences that grow with brightness.

    Attributes
    ----------
    factor, err : (N,) float64
        Of every image, relative to the mean of those it hangs together with; 1 where nothing is seen.
    variance : (M,) float64
        Variance of the differences that comes of it.
    """

    factor: FloatArray
    err: FloatArray
    variance: FloatArray

    @classmethod
    def of_structure(cls, structure: PairStructure, graph: OverlapGraph) -> ZeroPoints:
        """From the sums over all blocks.

        One overlap alone seldom shows a factor of a per cent, all of a component do: the variance of their slopes
        beyond what their errors explain is the variance of the factors between two images.
        """
        n, n_pairs = graph.n_images, len(graph.a)
        slope, err, mean = structure.slopes()
        use = np.isfinite(err) & (err > 0)
        nothing = cls(np.ones(n), np.zeros(n), np.zeros(n_pairs))
        if not use.any():
            return nothing
        weight = np.where(use, np.where(use, err, 1.0) ** -2.0, 0.0)
        component = connected(n, graph.a[use], graph.b[use])
        of_pair, size = component[graph.a], int(component.max()) + 1
        darkest, brightest = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(darkest, of_pair[use], structure.darkest[use])
        np.maximum.at(brightest, of_pair[use], mean[use])
        above = np.zeros(n_pairs)
        above[use] = (brightest - darkest)[of_pair[use]]
        square, count, total = (np.bincount(of_pair, c, size) for c in (weight * slope**2, use.astype(float), weight))
        # A factor shows in several overlaps: one alone, and not far (a variable star), counts like the next.
        largest, second = np.zeros((2, size))
        np.maximum.at(largest, of_pair, weight * slope**2)
        np.maximum.at(second, of_pair, np.where(weight * slope**2 < largest[of_pair], weight * slope**2, 0))
        square -= np.where((count > _MANY) & (largest < _FAR**2), largest - second, 0)
        excess = over(np.maximum(square - count - np.sqrt(2 * count), 0), total)[of_pair]
        clear = np.abs(slope) > _CLEAR * np.where(use, err, np.inf)
        variance = np.maximum(excess, np.where(clear, slope**2, 0)) * np.where(above > _VISIBLE, above, 0) ** 2
        # all overlaps of an image err alike: their number must not average it out
        overlaps = _of_images(use.astype(float), graph)
        variance *= np.maximum(0.5 * np.sqrt(overlaps[graph.a] * overlaps[graph.b]), 1)
        if not variance.any():
            return nothing
        gain = least_squares_offsets(n, graph.a[use], graph.b[use], weight[use], slope[use])
        gain -= (np.bincount(component, gain, size) / np.bincount(component, minlength=size))[component]
        information = _of_images(weight, graph)
        seen = _of_images(np.where((excess > 0) | (count[of_pair] <= _MANY), variance, 0), graph) > 0
        per_image = np.divide(1, np.sqrt(information), out=np.zeros(n), where=information > 0)
        return cls(np.where(seen, 1 + gain, 1.0), np.where(seen, per_image, 0.0), variance)
