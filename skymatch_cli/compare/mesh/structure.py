"""Structure of differences within overlaps: what the noise of the pixels does not explain.

The difference of two images should be the same all over their overlap. Where it is not (gradients, residual flats,
ghosts that no cell betrays, noise that reaches further than the cells), the mean over the overlap is uncertain by
more than its noise, and by more than the pieces of an overlap would average out to: what varies on the scale of the
overlap goes on beyond it. So the variance between nine pieces, beyond their noise (DerSimonian & Laird 1986), is added
to that of the difference undivided.

What an image has of its own (a bowl, scattered light, a zero point) is common to all of its overlaps: no loop shows it,
and no number of overlaps averages it out. So part of the structure is a variance of the level of the image.

Differences that grow with the brightness of the scene mean zero points that differ. How bright the scene is above a
black sky can't be known from the images: a factor times a constant is a constant. It is taken to be as bright as it
varies: from the darkest block of the images that hang together to their brightest overlap. The factor times that is
the error of a level. Factors that are too small for the overlaps to show are said, not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.sums import inverse, over
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_SIDE = 3  # pieces along a side of the box of an overlap
_PIECES = _SIDE**2
_LIKELY = 0.01  # probability that the variance between pieces, in the overlaps of an image, is chance
_SURE = 0.002  # the same in one overlap
_EXTENT = 1.0  # variance of an overlap over that of its pieces, where structure is as large as an overlap
_COMMON = 1.2  # the same of the level of an image, over that of the pieces of its overlaps
_PRIOR = 15.0  # blocks' worth of belief in the noise of the images
_FEW = 6  # blocks that say nothing about a slope
_VISIBLE = 1.0  # brightness, in noise of a pixel: below it a difference of seeing looks the same
_UNSEEN = 2.0  # errors that a factor that can't be seen may have
_MANY = 3  # overlaps of a component, beyond which one that stands alone can be told
_FAR = 6.0  # errors beyond which a slope is no accident, even alone
_CHANCE = 0.05  # probability that slopes as large as those that factors explain are chance
_USUAL, _BELIEF = 1.5, 4.0  # variance of slopes over that of their errors: what is usual, and its weight in overlaps
_PLAUSIBLE = 0.02  # factor by which the zero points of a survey differ at most


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
    bright : (6, M) float64
        With weight q, mean sky s, difference d and its noise e of a block: sums of q s, q s^2, q s d, q d^2, q e^2, and
        of one.
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
        return cls(low, size, np.zeros((3, m, _PIECES)), np.zeros((6, m)), np.full(m, np.inf))

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
        terms = (bright, bright * sky, sky * pull, pull**2 / weight, variance / weight, np.ones(len(sky)))
        for k, value in enumerate(terms):
            self.bright[k] += np.bincount(pair, value, len(self.darkest))
        np.minimum.at(self.darkest, pair, sky)

    def variance(self, graph: OverlapGraph) -> tuple[FloatArray, FloatArray]:
        """Variances of structure in the overlaps: of the differences (M,), and of the levels of the images (N,)."""
        weight, pull, noise = self.pieces
        total = weight.sum(axis=1)
        difference = over(pull, weight)
        mean = over(pull.sum(axis=1), total)
        found = (weight * (difference - mean[:, None]) ** 2).sum(axis=1)
        local, local_doubt = self._local_noise(graph)
        each = over(noise, weight) * local[:, None]
        expected = each.sum(axis=1) - over((each * weight).sum(axis=1), total)
        doubt = 2 * (each**2).sum(axis=1) + (expected * local_doubt) ** 2
        per_variance = total - over((weight**2).sum(axis=1), total)
        own = over(np.where(_no_chance(found, expected, doubt, _SURE), found - expected, 0), per_variance)
        found, expected, doubt, per_variance = (_of_images(c, graph) for c in (found, expected, doubt, per_variance))
        image = over(np.where(_no_chance(found, expected, doubt, _LIKELY), found - expected, 0), per_variance)
        pair = np.maximum(own, np.minimum(image[graph.a], image[graph.b]))
        return _EXTENT * pair, _COMMON / 2 * image

    def _local_noise(self, graph: OverlapGraph) -> tuple[FloatArray, FloatArray]:
        """Variance of the blocks of every overlap (M,) within its pieces, over what was expected, and its error.

        1 at most; the error is relative.

        The noise of an image is scaled to the scatter of its blocks, in which structure has a part.
        """
        weight, pull, noise = self.pieces
        found = self.bright[3] - over(pull**2, weight).sum(axis=1)
        expected = self.bright[4] - over(noise, weight).sum(axis=1)
        n_blocks = np.maximum(self.bright[5] - (weight > 0).sum(axis=1), 0.0)
        found, expected, n_blocks = (_of_images(c, graph) for c in (found, expected, n_blocks))
        believed = _PRIOR * over(expected, n_blocks)
        ratio = np.where(n_blocks > 0, np.minimum(over(found + believed, expected + believed), 1), 1.0)
        n_both = n_blocks[graph.a] + n_blocks[graph.b] + 2 * _PRIOR
        return 0.5 * (ratio[graph.a] + ratio[graph.b]), np.sqrt(2 / n_both)

    def slopes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Slope of the difference with brightness and its error (M,), and the mean brightness of the overlap (M,).

        Regression over the blocks; its error is that of what the blocks scatter by about it.
        """
        weight, pull, _ = self.pieces.sum(axis=2)
        first, second, product, square, _, count = self.bright
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


def _no_chance(found: FloatArray, expected: FloatArray, doubt: FloatArray, probability: float) -> BoolArray:
    """Whether square sums exceed their expectation, of variance ``doubt``, by more than chance (Satterthwaite 1946)."""
    dof = np.maximum(over(2 * expected**2, doubt), 1e-6)
    return np.asarray(over(found * dof, expected) > chdtri(dof, probability))


def _of_images(per_pair: FloatArray, graph: OverlapGraph) -> FloatArray:
    n = graph.n_images
    sums = np.bincount(graph.a, per_pair, n) + np.bincount(graph.b, per_pair, n)
    return np.asarray(sums, float)  # of no pairs: integers


@dataclass(frozen=True, slots=True, eq=False)
class ZeroPoints:
    """Factors between the images, from differences that grow with brightness.

    Attributes
    ----------
    factor, err : (N,) float64
        Of every image, relative to the mean of those it hangs together with; 1 and 0 where nothing is seen.
    variance : (N,) float64
        Variance of the level of every image that comes of the factors.
    hidden : (N,) float64
        By what factors that the overlaps can't show (2 sigma, two per cent at most) may shift the level of an image.
    """

    factor: FloatArray
    err: FloatArray
    variance: FloatArray
    hidden: FloatArray

    @classmethod
    def of_structure(cls, structure: PairStructure, shared: FloatArray, graph: OverlapGraph) -> ZeroPoints:
        """From the sums over all blocks.

        One overlap alone seldom shows a factor of a per cent, all of a component do: the square sum of the slopes that
        factors explain, beyond what their errors do, gives the variance of the factors. The errors are scaled to what
        factors do not explain. ``shared`` (M,): part of the information of a pair that no other pair uses, 2 / k in a
        stack of k images.
        """
        n = graph.n_images
        slope, err, mean = structure.slopes()
        use = np.isfinite(err) & (err > 0) & (shared > 0)
        if not use.any():
            return cls(np.ones(n), *np.zeros((3, n)))
        a, b, weight = graph.a[use], graph.b[use], shared[use] / err[use] ** 2
        component = connected(n, a, b)
        mine, size = component[a], int(component.max()) + 1
        slope = err[use] * _supported(slope[use] / err[use], mine, size)

        def total(per_pair: FloatArray) -> FloatArray:
            return np.bincount(mine, per_pair, size).astype(float)

        n_factors = np.bincount(component, minlength=size).astype(float) - 1
        gain = least_squares_offsets(n, a, b, weight, slope)
        left = weight * (slope - gain[a] + gain[b]) ** 2
        dof = np.maximum(total(shared[use]) - n_factors, 0)
        scale = np.maximum((total(left) + _USUAL * _BELIEF) / (dof + _BELIEF), 1)
        square = total(weight * slope**2 - left) / scale
        bright = _above_darkest(structure.darkest[use], mean[use], mine, size)
        seen = (bright > 0) & (square > chdtri(np.maximum(n_factors, 1), _CHANCE))
        spread = np.where(seen, (square - n_factors) * over(scale, 2 * total(weight)), 0.0)[component]
        weight /= scale[mine]
        information = (np.bincount(a, weight, n) + np.bincount(b, weight, n)).astype(float)
        above = bright[component]
        hidden = np.minimum(_UNSEEN * np.sqrt(inverse(information)), _PLAUSIBLE) * above
        if not spread.any():
            return cls(np.ones(n), np.zeros(n), np.zeros(n), hidden)
        # factors of that variance about a common one: the most likely ones
        own = np.flatnonzero(spread > 0)
        common = n + component[own]
        gain = least_squares_offsets(
            n + size,
            np.append(a, own),
            np.append(b, common),
            np.append(weight, 1 / spread[own]),
            np.append(slope, np.zeros(len(own))),
        )
        gain = np.where(spread > 0, gain[:n] - gain[n + component], 0.0)
        others = n_factors[component] / (n_factors[component] + 1)  # a factor is relative to the mean
        error = others * np.sqrt(inverse(information + inverse(spread))) * (spread > 0)
        return cls(1 + gain, error, (gain**2 + error**2) * above**2, np.where(spread > 0, 0.0, hidden))


def _supported(pull: FloatArray, component: IntArray, size: int) -> FloatArray:
    """Slopes over their errors, those that stand alone in their component cut to the size of the next.

    A factor shows in all overlaps of an image; one overlap alone has a variable star, or the edge of a galaxy.
    """
    order = np.lexsort((-np.abs(pull), component))
    first = np.searchsorted(component[order], np.arange(size))
    many = np.flatnonzero(np.bincount(component, minlength=size) > _MANY)
    largest, next_one = order[first[many]], np.abs(pull)[order[first[many] + 1]]
    alone = np.abs(pull[largest]) < _FAR
    cut = pull.copy()
    cut[largest[alone]] = np.copysign(next_one, pull[largest])[alone]
    return cut


def _above_darkest(darkest: FloatArray, mean: FloatArray, component: IntArray, size: int) -> FloatArray:
    """Brightness of the brightest overlap of every component above its darkest block, (size,)."""
    lowest, highest = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(lowest, component, darkest)
    np.maximum.at(highest, component, mean)
    above = np.where(np.isfinite(lowest), highest - lowest, 0.0)
    return np.where(above > _VISIBLE, above, 0.0)
