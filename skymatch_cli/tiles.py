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
_FEW_EDGES = 8  # edges up to which sorted bins are kept for the next question
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
        for table in (self._counts, *self._sums):
            for column in range(columns):  # a loop, because cumsum walks along the short axis
                table[:, column + 1] += table[:, column]

    def _fill_band(self, band: int, values: PixelArray) -> None:
        """Sort out one band of tiles; pixels that don't count are infinite."""
        columns = self._pixels.shape[1]
        padded = np.full((SIDE, columns * SIDE), np.inf, dtype=values.dtype)
        padded[: values.shape[0], : values.shape[1]] = values
        self._pixels[band] = padded.reshape(SIDE, columns, SIDE).transpose(1, 0, 2).reshape(columns, -1)
        pixels = self._pixels[band].ravel()
        bins = self.binning.bins(pixels)
        pixels.take(np.argsort(bins, kind="stable"), out=self._by_bin[band], mode="clip")
        cell = (bins.reshape(columns, -1) + np.arange(columns)[:, None] * (BINS + 1)).ravel()
        counts = _by_cell(np.bincount(cell, minlength=columns * (BINS + 1)))
        self._counts[band, 1:] = counts
        totals = counts.sum(axis=0)
        self._bin_start[band] = np.cumsum(totals) - totals + self._by_bin.shape[1] * band
        deviation = pixels - np.float64(self.binning.pivot)
        with np.errstate(over="ignore"):
            for table, weight in zip(self._sums, (deviation, deviation * deviation), strict=True):
                # Not the bins without bounds: an outlier would swallow the running total.
                table[band, 1:, 1:-1] = _by_cell(np.bincount(cell, weight, minlength=columns * (BINS + 1)))[:, 1:-1]

    def region(self, spans: Spans) -> TiledSample:
        """The good pixels of a region, as an ordered sample."""
        covered = cover(spans, self.shape)
        border = self._pixels[covered.edge_band, covered.edge_column].reshape(-1)
        border = border.compress(covered.edge_pixels().reshape(-1) & (border < np.inf))
        return TiledSample(self, covered, np.sort(border))

    def runs(self, covered: Cover) -> tuple[IntArray, IntArray, FloatArray]:
        """What runs of whole tiles hold.

        Where each bin starts in each run and how many values it has there, (runs, BINS) both, and their
        sums and sums of squares about the pivot, (2, BINS).
        """
        first, last = (covered.band, covered.first), (covered.band, covered.last)
        before = self._counts[first]
        sums = [(table[last] - table[first]).sum(axis=0) for table in self._sums]
        return self._bin_start[covered.band] + before, self._counts[last] - before, np.array(sums)

    def values(self, start: IntArray, length: IntArray) -> SortedValues:
        """Values of pieces of bins, (length.sum(),), one after the other."""
        stop = np.cumsum(length)
        index = np.arange(stop[-1] if stop.size else 0)
        index += np.repeat(start - stop + length, length)
        values: SortedValues = self._by_bin.reshape(-1).take(index, mode="clip")
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
        self._image, self._border = image, border
        self._edges, self._pivot = image.binning.edges, np.float64(image.binning.pivot)
        self._starts, self._lengths, self._sums = image.runs(covered)
        self._cuts = np.concatenate([[0], np.searchsorted(border, self._edges), [border.size]])
        self._sums += _border_sums(border, self._cuts, self._pivot)
        counts = self._lengths.sum(axis=0) + np.diff(self._cuts)
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._values: dict[int, SortedValues] = {}
        self.n = int(self._first[-1])
        self.eps = float(np.finfo(border.dtype).eps)

    def at(self, ranks: IntArray) -> FloatArray:
        """Values of the given ranks."""
        bins = np.searchsorted(self._first, ranks, side="right") - 1
        within = ranks - self._first[bins]
        return np.array([self._bin(k)[i] for k, i in zip(bins.tolist(), within.tolist(), strict=True)], np.float64)

    def below(self, edges: FloatArray) -> IntArray:
        """How many values are less than each edge."""
        exact = round_up(edges, self._border.dtype)
        bins = np.searchsorted(self._edges, exact, side="right")
        if bins.size > _FEW_EDGES:
            return self._first[bins] + self._below_in_bins(exact, bins)
        inside = [self._bin(k).searchsorted(edge) for k, edge in zip(bins.tolist(), exact, strict=True)]
        return self._first[bins] + np.array(inside, dtype=np.int64)

    def _below_in_bins(self, edges: SortedValues, bins: IntArray) -> IntArray:
        """How many values of its bin are less than each of many edges; nothing is sorted for it."""
        lengths = self._lengths[:, bins].T
        values = self._image.values(self._starts[:, bins].T.reshape(-1), lengths.reshape(-1))
        ends = np.cumsum(lengths.sum(axis=1))
        less = np.concatenate([[0], np.cumsum(values < np.repeat(edges, np.diff(ends, prepend=0)))])
        below: IntArray = np.diff(less[ends], prepend=0) + self._border.searchsorted(edges) - self._cuts[bins]
        return below

    def moments(self, start: int, stop: int) -> tuple[float, float]:
        """Mean and standard deviation of a run of ranks."""
        first, last = (np.searchsorted(self._first, [start, stop - 1], side="right") - 1).tolist()
        if first == last:
            return two_pass_moments(self._bin(first)[start - self._first[first] : stop - self._first[first]])
        total, square = self._sums[:, first + 1 : last].sum(axis=1)
        for end in (self._bin(first)[start - self._first[first] :], self._bin(last)[: stop - self._first[last]]):
            deviation = end - self._pivot
            with np.errstate(over="ignore"):
                total, square = total + deviation.sum(), square + np.einsum("i,i->", deviation, deviation)
        return moments_of_sums(stop - start, float(self._pivot), float(total), float(square))

    def _bin(self, k: int) -> SortedValues:
        """Values of one bin, sorted."""
        if k not in self._values:
            border = self._border[self._cuts[k] : self._cuts[k + 1]]
            whole = self._image.values(self._starts[:, k], self._lengths[:, k])
            self._values[k] = np.sort(np.concatenate([whole, border]))
        return self._values[k]


def _border_sums(border: SortedValues, cuts: IntArray, pivot: np.float64) -> FloatArray:
    """Sums and sums of squares about the pivot, (2, BINS), of a sorted border that is cut into bins."""
    deviation = np.append(border - pivot, 0.0)  # the zero stands in for a cut at the very end
    with np.errstate(over="ignore"):
        sums = [np.add.reduceat(weight, cuts[:-1]) for weight in (deviation, deviation * deviation)]
    return np.where(np.diff(cuts) > 0, sums, 0.0)
