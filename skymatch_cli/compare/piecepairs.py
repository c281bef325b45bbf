"""Pieces of overlaps in both of their images: structure within images, noise that pixels share, factors.

The difference of two images should be the same all over their overlap. Its pieces differ by their noise; gradients,
bowls, steps and factors make them differ by more, and move the level of an overlap by as much. Differences of
differences, along and across, are free of most such structure: they show noise that pixels have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.compare.pieces import ACROSS, ALONG, PieceMeans
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_FEW = 10  # pixels of a piece that say nothing
_LEAST_SHARE = 0.3  # of the pixels of a typical piece
_LEAST_PIECES = 6
_CHANCE = 0.43  # standard deviation of the scatter of twelve pieces, over its mean, where there is only noise
_OF_MIXED = 1.6  # that of the square of one mixed difference; those beside each other are not independent
_CLEAR = 3.0  # times that
_OF_SCATTER = 5.0  # variance of an overlap's mean in its frame over that of its pieces: gradients and bowls
_FLAT = 1.0  # variation of the scene, in noise of a pixel: below it, factors change nothing
_FEW_LOOPS, _CLOSED = 3.0, 0.1  # degrees of freedom; chi2 over them that is far less than chance makes it
_PARTS = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03, 0.0)
_BELIEF = 2.0  # overlaps' worth that images are as the others


def as_loops_allow(
    graph: OverlapGraph, delta: FloatArray, noise: FloatArray, structure: FloatArray, shared: FloatArray
) -> FloatArray:
    """Variances of structure (M,), less where loops close far better than with them: all images may have the same.

    ``noise`` (M,): variances of the noise of the differences ``delta``, infinite where they do not count.
    """
    used = np.isfinite(noise)
    a, b = graph.a[used], graph.b[used]
    left = graph.n_images - int(connected(graph.n_images, a, b).max(initial=-1)) - 1
    dof = float(shared[used].sum()) - left
    if dof < _FEW_LOOPS:
        return structure
    for part in _PARTS:
        weight = 1 / (noise + part * structure)[used]
        offset = least_squares_offsets(graph.n_images, a, b, weight, delta[used])
        chi2 = float((weight * (delta[used] - offset[a] + offset[b]) ** 2).sum())
        if chi2 > _CLOSED * dof:
            break
    return part * structure


@dataclass(frozen=True, slots=True, eq=False)
class PiecePairs:
    """Pieces of M overlaps in both of their images, in comparison units, (M, 12) each.

    Attributes
    ----------
    difference, sum : (M, 12) float64
        Of the means over a piece in both images.
    variance : (M, 12) float64
        Of either, if pixels are independent; infinite where there are too few.
    pixel : (M,) float64
        Variance of a pixel of a typical piece.
    """

    difference: FloatArray
    sum: FloatArray
    variance: FloatArray
    pixel: FloatArray

    @classmethod
    def of_means(cls, first: PieceMeans, second: PieceMeans, used: BoolArray) -> PiecePairs:
        """From the means of both images; only overlaps that are ``used`` (M,) have any."""
        n = np.minimum(first.n, second.n)
        variance = sum(m.variance[:, None] / np.maximum(m.n, 1) for m in (first, second))
        seen = (n >= _FEW) & (n > _LEAST_SHARE * n.mean(axis=1, keepdims=True)) & used[:, None] & (variance > 0)
        seen &= (np.count_nonzero(seen, axis=1) >= _LEAST_PIECES)[:, None]
        pixel = 0.5 * (first.variance + second.variance)
        return cls(first.value - second.value, first.value + second.value, np.where(seen, variance, np.inf), pixel)

    def scatter(self, ends: IntArray, outside: FloatArray) -> tuple[float, FloatArray]:
        """Variance of the noise over that of independent pixels, and variance (M,) that structure gives the levels.

        ``ends`` (2, M): images of every overlap; ``outside`` (2, M): share of their frames that is outside of it, which
        structure makes another level. Images have structure: one overlap alone shows it by a few squares only.
        """
        weight = 1 / self.variance
        many = np.count_nonzero(weight, axis=1)
        known = many > 0
        if not known.any():
            return 1.0, np.zeros(len(known))
        mean = (weight * self.difference).sum(axis=1) / np.where(known, weight.sum(axis=1), 1)
        square = (weight * (self.difference - mean[:, None]) ** 2).sum(axis=1)[known] / (many[known] - 1)
        noise, noise_err = self._noise()
        chance = noise * np.hypot(_CHANCE / np.sqrt(len(square)), noise_err)
        if square.mean() < noise + _CLEAR * chance:
            return (float(square.mean()) if noise_err else 1.0), np.zeros(len(known))
        found = (square - noise) * many[known] / weight[known].sum(axis=1)
        mine = ends[:, known].reshape(-1)
        of_image = np.bincount(mine, np.tile(found, 2), ends.max() + 1) + _BELIEF * found.mean()
        of_image /= np.bincount(mine, minlength=len(of_image)) + _BELIEF
        return noise, _OF_SCATTER * (np.maximum(of_image, 0.0)[ends] * outside**2).mean(axis=0)

    def _noise(self) -> tuple[float, float]:
        """Variance of the noise over that of independent pixels, and its relative error.

        From differences in which gradients, and all sums of functions along and across, are nothing.
        """
        grid = (-1, ALONG, ACROSS)
        mixed = np.diff(np.diff(self.difference.reshape(grid), axis=1), axis=2)
        variance = self.variance.reshape(grid)
        variance = variance[:, 1:] + variance[:, :-1]
        variance = variance[:, :, 1:] + variance[:, :, :-1]
        seen = np.isfinite(variance)
        if not seen.any():
            return 1.0, 0.0
        noise, err = float((mixed[seen] ** 2 / variance[seen]).mean()), _OF_MIXED / np.sqrt(np.count_nonzero(seen))
        return (noise, err) if noise > 1 + _CLEAR * err else (1.0, 0.0)

    def zero_points(self, graph: OverlapGraph, delta: FloatArray, shared: FloatArray) -> FloatArray:
        """Factors between the images, as the mesh finds them, with pieces in the place of its blocks.

        ``delta`` (M,): differences of the overlaps; ``shared`` (M,): see `ZeroPoints.of_sums`. Returns (4, N):
        factors, their errors, variances of levels by them, and how far hidden ones may move levels.
        """
        n = graph.n_images
        seen: BoolArray = np.isfinite(self.variance)
        used = seen.any(axis=1)
        nothing = np.repeat([[1.0], [0.0], [0.0], [0.0]], n, axis=1)
        if not used.any():
            return nothing
        unit = float(np.sqrt(np.median(self.pixel[used])))
        weight = unit**2 / self.variance
        a, b = graph.a[used], graph.b[used]
        offset = least_squares_offsets(n, a, b, weight[used].sum(axis=1), delta[used])
        sky = np.where(seen, 0.5 * (self.sum - (offset[graph.a] + offset[graph.b])[:, None]) / unit, 0.0)
        if np.ptp(sky[seen]) < _FLAT:
            return nothing
        from skymatch_cli.compare.mesh.zeropoints import ZeroPoints

        darkest = np.where(seen, sky, np.inf).min(axis=1)
        pull = np.where(seen, weight * (self.difference - delta[:, None]) / unit, 0.0)
        square = np.divide(pull**2, weight, out=np.zeros_like(pull), where=seen)
        terms = (weight * sky, weight * sky**2, sky * pull, square, 1.0 * seen, 1.0 * seen)
        bright = np.stack([term.sum(axis=1) for term in terms])
        sums = weight.sum(axis=1), pull.sum(axis=1)
        found = ZeroPoints.of_sums(sums, bright, darkest, shared, graph).of_bright_scenes()
        return np.stack([found.factor, found.err, found.variance * unit**2, found.hidden * unit])
