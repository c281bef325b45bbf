"""Statistics of many regions of one image, with the pixels sorted out once.

A stack of N dithers has N - 1 overlaps on every image, and each of them holds most of its pixels. So each
image is cut into tiles of 32 x 32 pixels once, and its values into some 250 bins by size; for every tile
and bin the count, the sum and the sum of squares are kept, and the values of one bin lie together, tile
after tile. A region is then a sum of tables over the tiles that lie wholly inside (runs along a band of
tiles, so differences of running totals) plus its own pixels of the tiles on its border, which are sorted.
Of the values inside, only the few bins that a rank or a clipping bound falls into are ever looked at.
The answers are exact: bins narrow the search down, values decide.

Cost: some 20 ns for each pixel of the image once, and then for each region its border (half of the tiles
that it crosses, 10 ns a pixel) and about 20 bins; clipping iterations cost next to nothing. Regions that
cover their pixels only once or twice (a mosaic's strips) are sorted on their own instead, at 13 ns a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .binning import BINS, Binning
from .cover import SIDE, Cover, cover, n_tiles
from .model import BoolArray, FloatArray, IntArray, PixelArray, SkyStatistic, StatisticSettings
from .raster import Spans
from .sample import SortedSample, SortedValues, moments_of_sums, round_up, two_pass_moments
from .statistics import estimate

_MIN_REGION = 65536  # pixels that are sorted in the time that a region of tiles takes
_BUILD = 1.7  # pixels that are sorted in the time that one is put into tiles


def region_statistics(
    data: PixelArray, good: BoolArray, regions: Sequence[Spans], settings: StatisticSettings
) -> list[SkyStatistic]:
    """Sky level of every region of an image.

    Parameters
    ----------
    data : (ny, nx) float32 or float64
        Pixels; those that are not finite don't count, whatever ``good`` says.
    good : (ny, nx) bool
        True = use.
    regions : sequence of Spans
        Pixels of each region; regions may overlap.
    settings : StatisticSettings

    Returns
    -------
    list of SkyStatistic
        One for each region, equal to ``sky_statistic`` of the region's good pixels.
    """
    large = [spans for spans in regions if spans.n_pixels > _MIN_REGION]
    tiles = None
    if sum(spans.n_pixels - _MIN_REGION for spans in large) > _BUILD * data.size:
        tiles = TiledImage(data, good, large)
    samples = (
        sorted_region(data, good, spans) if tiles is None or spans.n_pixels <= _MIN_REGION else tiles.region(spans)
        for spans in regions
    )
    return [estimate(sample, settings) for sample in samples]


def sorted_region(data: PixelArray, good: BoolArray, spans: Spans) -> SortedSample:
    """Good finite pixels of a region, sorted."""
    runs = [(y, slice(x0, x1)) for y, x0, x1 in zip(*(c.tolist() for c in (spans.y, spans.x0, spans.x1)), strict=True)]
    values = np.concatenate([np.empty(0, dtype=data.dtype), *(data[run] for run in runs)])
    use = np.concatenate([np.empty(0, dtype=bool), *(good[run] for run in runs)])
    return SortedSample(values.compress(use & np.isfinite(values)))


class TiledImage:
    """The pixels of an image by tile and bin; ``region`` gives the ordered sample of any region.

    Parameters
    ----------
    data : (ny, nx) float32 or float64
    good : (ny, nx) bool
        True = use.
    regions : sequence of Spans
        The regions that will be asked for; bands of tiles that none of them touches are left out.
    """

    def __init__(self, data: PixelArray, good: BoolArray, regions: Sequence[Spans]) -> None:
        self.shape: tuple[int, int] = data.shape
        self.binning = Binning.of(data, good)
        bands, columns = n_tiles(self.shape)
        # By tile, to pick the border of a region from; and by bin in every band, to look into bins.
        self._pixels = np.empty((bands, columns, SIDE * SIDE), dtype=data.dtype)
        self._by_bin = np.empty((bands, columns * SIDE * SIDE), dtype=data.dtype)
        self._bin_start = np.zeros((bands, BINS), dtype=np.int64)
        # Running totals along a band of the values in each bin: counts, sums, sums of squares.
        self._counts = np.zeros((bands, columns + 1, BINS), dtype=np.int32)
        self._sums = np.zeros((2, bands, columns + 1, BINS))
        for band in np.unique(np.concatenate([spans.y // SIDE for spans in regions])):
            rows = slice(band * SIDE, (band + 1) * SIDE)
            self._fill_band(band, np.where(good[rows] & np.isfinite(data[rows]), data[rows], np.inf))

    def _fill_band(self, band: int, values: PixelArray) -> None:
        """Sort out one band of tiles; pixels that don't count are infinite."""
        columns = self._pixels.shape[1]
        padded = np.full((SIDE, columns * SIDE), np.inf, dtype=values.dtype)
        padded[: values.shape[0], : values.shape[1]] = values
        self._pixels[band] = padded.reshape(SIDE, columns, SIDE).transpose(1, 0, 2).reshape(columns, -1)
        pixels = self._pixels[band].ravel()
        bins = self.binning.bins(pixels)
        pixels.take(np.argsort(bins, kind="stable"), out=self._by_bin[band])
        cell = (bins.reshape(columns, -1) + np.arange(columns)[:, None] * (BINS + 1)).ravel()
        counts = _by_cell(np.bincount(cell, minlength=columns * (BINS + 1)))
        np.cumsum(counts, axis=0, out=self._counts[band, 1:])
        totals = self._counts[band, -1].astype(np.int64)
        self._bin_start[band] = np.cumsum(totals) - totals
        deviation = pixels - np.float64(self.binning.pivot)
        with np.errstate(over="ignore"):
            for table, weight in zip(self._sums, (deviation, deviation * deviation), strict=True):
                sums = _by_cell(np.bincount(cell, weight, minlength=columns * (BINS + 1)))
                sums[:, [0, -1]] = 0.0  # bins without bounds: an outlier would swallow the running total
                np.cumsum(sums, axis=0, out=table[band, 1:])

    def region(self, spans: Spans) -> TiledSample:
        """The good pixels of a region, as an ordered sample."""
        covered = cover(spans, self.shape)
        border = self._pixels[covered.edge_band, covered.edge_column].ravel().compress(covered.edge_pixels().ravel())
        return TiledSample(self, covered, np.sort(border.compress(border < np.inf)))

    def totals(self, covered: Cover) -> tuple[IntArray, FloatArray]:
        """Counts (bins,), and sums and sums of squares about the pivot (2, bins), of whole tiles."""
        first, last = (covered.band, covered.first), (covered.band, covered.last)
        counts = (self._counts[last] - self._counts[first]).sum(axis=0, dtype=np.int64)
        return counts, np.stack([(table[last] - table[first]).sum(axis=0) for table in self._sums])

    def bin_values(self, covered: Cover, k: int) -> SortedValues:
        """Values of one bin in whole tiles, in no order."""
        start = self._counts[covered.band, covered.first, k].astype(np.int64)
        length = self._counts[covered.band, covered.last, k] - start
        origin = covered.band * self._by_bin.shape[1] + self._bin_start[covered.band, k] + start
        passed = np.cumsum(length)
        index = np.arange(passed[-1] if passed.size else 0) + np.repeat(origin - (passed - length), length)
        values: SortedValues = self._by_bin.ravel().take(index)
        return values


def _by_cell(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(columns, BINS) from a count over cells, without the cells of pixels that don't count."""
    return table.reshape(-1, BINS + 1)[:, :BINS]


class TiledSample:
    """An ordered sample put together from whole tiles and a sorted border.

    Parameters
    ----------
    image : TiledImage
    covered : Cover
        The region.
    border : (n,) float32 or float64
        Good pixels of the region in the tiles that it covers in part, sorted.
    """

    def __init__(self, image: TiledImage, covered: Cover, border: SortedValues) -> None:
        self._image, self._covered, self._border = image, covered, border
        self._cuts = np.searchsorted(image.binning.bins(border), np.arange(BINS + 1))
        counts, self._sums = image.totals(covered)
        self._sums += _border_sums(border, self._cuts, image.binning.pivot)
        self._first = np.concatenate([[0], np.cumsum(counts + np.diff(self._cuts))])
        self._values: dict[int, SortedValues] = {}
        self.n = int(self._first[-1])
        self.eps = float(np.finfo(border.dtype).eps)

    def at(self, ranks: IntArray) -> FloatArray:
        """Values of the given ranks."""
        bins = np.searchsorted(self._first, ranks, side="right") - 1
        values = [self._bin(k)[rank - self._first[k]] for k, rank in zip(bins.tolist(), ranks.tolist(), strict=True)]
        return np.array(values, dtype=np.float64)

    def below(self, edges: FloatArray) -> IntArray:
        """How many values are less than each edge."""
        edges_up = round_up(edges, self._border.dtype)
        bins = self._image.binning.bins_of_edges(edges_up)
        inside = [np.searchsorted(self._bin(k), edge) for k, edge in zip(bins.tolist(), edges_up, strict=True)]
        return self._first[bins] + np.array(inside, dtype=np.int64)

    def moments(self, start: int, stop: int) -> tuple[float, float]:
        """Mean and standard deviation of a run of ranks."""
        first, last = np.searchsorted(self._first, [start, stop - 1], side="right") - 1
        if first == last:
            return two_pass_moments(self._bin(first)[start - self._first[first] : stop - self._first[first]])
        pivot = self._image.binning.pivot
        ends = [self._bin(first)[start - self._first[first] :], self._bin(last)[: stop - self._first[last]]]
        total, square = self._sums[:, first + 1 : last].sum(axis=1)
        with np.errstate(over="ignore"):
            for end in ends:
                deviation = end - np.float64(pivot)
                total, square = total + deviation.sum(), square + (deviation * deviation).sum()
        return moments_of_sums(stop - start, pivot, float(total), float(square))

    def _bin(self, k: int) -> SortedValues:
        """Values of one bin, sorted."""
        if k not in self._values:
            border = self._border[self._cuts[k] : self._cuts[k + 1]]
            self._values[k] = np.sort(np.concatenate([self._image.bin_values(self._covered, k), border]))
        return self._values[k]


def _border_sums(border: SortedValues, cuts: IntArray, pivot: float) -> FloatArray:
    """Sums and sums of squares about the pivot, (2, BINS), of a sorted border that is cut into bins."""
    deviation = np.append(border - np.float64(pivot), 0.0)  # the zero stands in for a cut at the very end
    with np.errstate(over="ignore"):
        sums = [np.add.reduceat(weight, cuts[:-1]) for weight in (deviation, deviation * deviation)]
    return np.where(np.diff(cuts) > 0, sums, 0.0)
