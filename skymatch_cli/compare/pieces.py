"""Pieces of overlaps in both of their images: structure within images, noise that pixels share, factors.

The difference of two images should be the same all over their overlap. Its pieces differ by their noise; gradients,
bowls, steps and factors make them differ by more, and move the level of an overlap by as much. Differences of
differences, along and across, are free of most such structure: they show noise that pixels have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.connected import connected, least_squares_offsets
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray, OverlapGraph, PixelArray, SkyStatistics
from skymatch_cli.sky.raster import Spans
from skymatch_cli.sky.tangent import project

ALONG, ACROSS = 6, 2  # pieces of an overlap, along its longest edge and across
PIECES = ALONG * ACROSS
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
_BURST = 8  # rows and columns that are used together, so that noise of neighbours counts
_SAMPLE = 2**16  # pixels of an image
_OF_SKEWNESS = 6.0  # skewness of a distribution, in its standard deviation, over mean less median
_CLIP = 3.0  # standard deviations of a pixel


@dataclass(frozen=True, slots=True, eq=False)
class PieceMeans:
    """Clipped means over the pieces of R overlaps.

    ``value``, ``n`` (R, 12): means and numbers of pixels; ``variance`` (R,): of a pixel about the mean of its piece.
    """

    value: FloatArray
    n: IntArray
    variance: FloatArray

    @classmethod
    def none(cls, n_regions: int) -> PieceMeans:
        """Of an image that could not be read."""
        return cls(np.zeros((n_regions, PIECES)), np.zeros((n_regions, PIECES), np.int64), np.zeros(n_regions))

    @classmethod
    def joined(cls, parts: Sequence[PieceMeans]) -> PieceMeans:
        """Several one after another."""
        parts = (cls.none(0), *parts)
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("value", "n", "variance")))

    def scaled(self, factor: FloatArray) -> PieceMeans:
        """The same in another unit; ``factor`` (R,)."""
        return PieceMeans(self.value * factor[:, None], self.n, self.variance * factor**2)

    def part(self, rows: IntArray) -> PieceMeans:
        """Some of them, in the order of ``rows``."""
        return PieceMeans(self.value[rows], self.n[rows], self.variance[rows])


def piece_means(
    data: PixelArray, good: BoolArray, regions: Sequence[Spans], skies: SkyStatistics, maps: Sequence[FloatArray]
) -> tuple[PieceMeans, FloatArray]:
    """Means over the pieces of overlaps of an image, of a sample of its good pixels near the sky.

    Also mean less median (R,) of the pixels within a piece, by their skewness: a scene that varies from piece to piece
    has none. ``regions`` and ``skies`` are those of the overlaps, ``maps`` what `piece_maps` finds for them.
    """
    n_regions = len(regions)
    total = sum(spans.n_pixels for spans in regions)
    wanted = total / (_SAMPLE if total < 2 * data.size else _SAMPLE // 2)  # many overlaps see the same noise again
    row_step = max(int(np.ceil(np.sqrt(wanted))), 1)
    step = max(int(np.ceil(wanted / row_step)), 1) * _BURST
    every = np.flatnonzero(np.arange(max((len(spans.y) for spans in regions), default=0)) // _BURST % row_step == 0)
    some = [every[: np.searchsorted(every, len(spans.y))] for spans in regions]
    y, x0, x1 = (
        np.concatenate([getattr(spans, name)[rows] for spans, rows in zip(regions, some, strict=True)])
        for name in ("y", "x0", "x1")
    )
    many = -(-(x1 - x0) // step)
    run = np.repeat(np.arange(len(y)), many)
    region = np.repeat(np.arange(n_regions), [len(rows) for rows in some])[run]
    x, y = x0[run] + step * (np.arange(len(run)) - (np.cumsum(many) - many)[run]), y[run]
    n_here = np.minimum(x1[run] - x, _BURST)
    place = np.minimum((y * data.shape[1] + x)[:, None] + np.arange(_BURST), data.size - 1)
    value = data.reshape(-1).take(place) - skies.value[region].astype(data.dtype)[:, None]
    limit = (_CLIP * skies.err * np.sqrt(skies.n))[region].astype(data.dtype)
    with np.errstate(invalid="ignore"):
        use = np.abs(value) <= limit[:, None]
    use &= good.reshape(-1).take(place)
    use &= np.arange(_BURST) < n_here[:, None]
    value[~use] = 0
    middle = x + 0.5 * (n_here - 1)
    along, across = (
        np.clip(f[region, 0] * middle + f[region, 1] * y + f[region, 2], 0, most - 1).astype(np.int64)
        for f, most in zip(maps, (ALONG, ACROSS), strict=True)
    )
    cell, cells = (region * ALONG + along) * ACROSS + across, n_regions * PIECES
    n = np.bincount(cell, np.count_nonzero(use, axis=1), cells).reshape(-1, PIECES).astype(np.int64)
    value = value.astype(float)  # whose powers hold any unit
    terms = value.sum(axis=1), np.einsum("ij,ij->i", value, value), np.einsum("ij,ij,ij->i", value, value, value)
    first, second, third = (np.bincount(cell, term, cells).reshape(-1, PIECES) for term in terms)
    mean = first / np.maximum(n, 1)
    square = np.maximum((second - first * mean).sum(axis=1), 0)
    cube = (third - 3 * mean * second + 2 * mean**2 * first).sum(axis=1)
    variance = square / np.maximum(n.sum(axis=1) - PIECES, 1)
    asymmetry = np.divide(cube, _OF_SKEWNESS * square, out=np.zeros(n_regions), where=square > 0)
    return PieceMeans(mean + np.nan_to_num(skies.value)[:, None], n, variance), asymmetry


def piece_maps(overlaps: OverlapGraph, regions: Sequence[Spans], wcs: CelestialWcs) -> list[FloatArray]:
    """Coefficients (R, 3) of (x, y, 1) of the pixels, for the number of a piece along each overlap, and across."""
    box = np.array([[s.x0.min(), s.y[0], s.x1.max() - 1, s.y[-1]] if len(s.y) else [0] * 4 for s in regions])
    x0, y0, x1, y1 = box.T.astype(float)
    x1, y1 = np.maximum(x1, x0 + 1), np.maximum(y1, y0 + 1)
    corner = wcs.to_sky(np.concatenate([x0, x1, x0]), np.concatenate([y0, y0, y1])).reshape(3, -1, 3)
    on_plane = np.zeros((3, len(regions), 2))
    for k, plane in enumerate(overlaps.planes):
        mine = overlaps.plane == k
        on_plane[:, mine] = project(plane, corner[:, mine].reshape(-1, 3)).reshape(3, -1, 2)
    per_pixel = (on_plane[1:] - on_plane[0]) / np.stack([x1 - x0, y1 - y0])[..., None]
    axes, low, extent = _boxes(overlaps)
    maps = []
    for k, pieces in enumerate((ALONG, ACROSS)):
        scale = pieces / np.maximum(extent[:, k], 1e-300)
        slope = np.einsum("eri,ri->re", per_pixel, axes[:, k]) * scale[:, None]
        start = (np.einsum("ri,ri->r", on_plane[0], axes[:, k]) - low[:, k]) * scale
        maps.append(np.nan_to_num(np.column_stack([slope, start - slope[:, 0] * x0 - slope[:, 1] * y0])))
    return maps


def _boxes(overlaps: OverlapGraph) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Boxes of overlaps on their planes: axes (M, 2, 2), the first along the longest edge, least place and extent."""
    polygon = overlaps.polygon.part(np.arange(len(overlaps.a)))
    ring = polygon.ring_of_vertex()
    row, inside = polygon.row_of_ring()[ring], ring[1:] == ring[:-1]
    edge, of_edge = np.diff(polygon.xy, axis=0)[inside], row[1:][inside]
    order = np.lexsort((-np.hypot(*edge.T), of_edge))
    rows, first = np.unique(of_edge[order], return_index=True)
    longest = np.tile([1.0, 0.0], (len(polygon), 1))
    longest[rows] = edge[order[first]]
    longest /= np.hypot(*longest.T)[:, None]
    axes = np.stack([longest, np.stack([-longest[:, 1], longest[:, 0]], axis=1)], axis=1)
    place = np.einsum("vij,vj->vi", axes[row], polygon.xy)
    low, high = np.full((2, len(polygon), 2), [[[np.inf]], [[-np.inf]]])
    np.minimum.at(low, row, place)
    np.maximum.at(high, row, place)
    return axes, low, high - low


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
