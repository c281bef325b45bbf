"""Means of pixels over pieces of the overlaps of one image: see `piecepairs` for what they are good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray, OverlapGraph, PixelArray, SkyStatistics
from skymatch_cli.sky.raster import Spans
from skymatch_cli.sky.tangent import project

ALONG, ACROSS = 6, 2  # pieces of an overlap, along its longest edge and across
PIECES = ALONG * ACROSS
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
