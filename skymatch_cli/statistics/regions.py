"""Statistics of many regions of one image, whose pixels are sorted into bins once.

In a stack of N dithers every image has N - 1 overlaps, each with most of its pixels. So each image is cut once into
tiles of 32 x 32 pixels and its values into some 250 bins; the count, sum and sum of squares of each bin of each tile
are kept, and the values of a bin are stored together, tile after tile. A region is then the sum of these tables over
the tiles wholly inside it (runs along a band of tiles, so differences of running totals) plus the pixels of the tiles
on its border, which are sorted. Of the values inside, only the few bins that contain a rank or a clipping bound are
read. The answers are exact: bins narrow the search, values decide.

Cost: about 30 ns per pixel of the image, once; then per region its border (half of the tiles that it crosses, 15 ns
per pixel) and about ten bins. Clipping iterations cost almost nothing. Regions that cover their pixels only once or
twice (the strips of a mosaic) are sorted one by one instead, at 20 ns per pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, FloatArray, IntArray, PixelArray, SkyStatistic, StatisticSettings
from skymatch_cli.sky.raster import Spans
from skymatch_cli.statistics.binning import BINS, Binning
from skymatch_cli.statistics.estimate import estimate
from skymatch_cli.statistics.sample import SortedSample, SortedValues, moments_of_sums, round_up, two_pass_moments

SIDE = 32
"""Rows and columns of a tile."""

_MIN_REGION = 65536  # pixels that can be sorted in the time that one region of tiles takes
_BATCH = 2**27  # pixels (of the frame, times regions) that are handled together
_FEW_EDGES = 8  # edges per call up to which sorted bins are kept
_BUILD = 1.7  # pixels that can be sorted in the time that one is put into tiles


def region_statistics(
    data: PixelArray, good: BoolArray, regions: Sequence[Spans], settings: StatisticSettings
) -> list[SkyStatistic]:
    """Estimate the sky level of every region of an image, each equal to `estimate` of its good pixels.

    Pixels that are not finite are ignored, also where ``good`` is True; regions may overlap.
    """
    n_pixels = [spans.n_pixels for spans in regions]
    large = [k for k, n in enumerate(n_pixels) if n > _MIN_REGION]
    if sum(n_pixels[k] - _MIN_REGION for k in large) <= _BUILD * data.size:
        large = []
    found: dict[int, SkyStatistic] = {}
    if large:
        tiles = TiledImage(data, good, [regions[k] for k in large])
        together = max(1, _BATCH // data.size)
        for i in range(0, len(large), together):
            batch = large[i : i + together]
            found.update(zip(batch, estimate(tiles.regions([regions[k] for k in batch]), settings), strict=True))
    for k, spans in enumerate(regions):
        if k not in found:
            found[k] = estimate(sorted_region(data, good, spans), settings)[0]
    return [found[k] for k in range(len(regions))]


def sorted_region(data: PixelArray, good: BoolArray, spans: Spans) -> SortedSample:
    """Return the good finite pixels of a region, sorted."""
    ends = ((spans.y * data.shape[1] + x).tolist() for x in (spans.x0, spans.x1))
    runs = list(map(slice, *ends))
    values, use = (np.concatenate([flat[:0], *map(flat.__getitem__, runs)]) for flat in (data.ravel(), good.ravel()))
    return SortedSample(values[use])


class TiledImage:
    """The pixels of an image by tile and bin, in bands that the regions touch: for ordered samples of them."""

    def __init__(self, data: PixelArray, good: BoolArray, regions: Sequence[Spans]) -> None:
        self.shape: tuple[int, int] = data.shape
        bands, columns = (-(-n // SIDE) for n in self.shape)
        self.binning = Binning.of(data, good)
        self._pixels = np.full((bands * SIDE, columns * SIDE), np.inf, dtype=data.dtype)  # infinite where ignored
        # Values by bin in every band, and in each bin by tile.
        self._by_bin = np.empty((bands, columns * SIDE * SIDE), dtype=data.dtype)
        self._bin_start = np.zeros((bands, BINS), dtype=np.int64)
        # Running totals along a band of the values in each bin: counts, sums, sums of squares.
        self._counts = np.zeros((bands, columns + 1, BINS), dtype=np.int32)
        self._sums = np.zeros((bands, columns + 1, 2, BINS))
        self._lowest, self._highest = (np.full(BINS, end, dtype=data.dtype) for end in (np.inf, -np.inf))
        for band in np.unique(np.concatenate([spans.y for spans in regions]) // SIDE).tolist():
            rows = slice(band * SIDE, (band + 1) * SIDE)
            values = self._pixels[rows]
            use = good[rows] & np.isfinite(data[rows])
            np.copyto(values[: len(use), : data.shape[1]], data[rows], where=use)
            self._fill_band(band, values)
        for table in (self._counts, self._sums):
            for column in range(columns):  # a loop, because cumsum walks along the short axis
                table[:, column + 1] += table[:, column]
        # Bin ``k`` holds ``edges[k - 1] <= value < edges[k]``.
        self.edges = np.minimum.accumulate(self._lowest[::-1])[-2::-1]

    def _fill_band(self, band: int, values: PixelArray) -> None:
        columns = self._counts.shape[1] - 1
        pixels = values.reshape(SIDE, columns, SIDE).swapaxes(0, 1).reshape(-1)
        bins = self.binning.bins(pixels)
        pixels.take(np.argsort(bins, kind="stable"), out=self._by_bin[band], mode="clip")
        short = np.min_scalar_type(columns * (BINS + 1))  # added up in half the time
        cell = bins.reshape(columns, -1) + np.arange(columns, dtype=short)[:, None] * (BINS + 1)
        cell = cell.reshape(-1).astype(np.intp)
        counts = _by_cell(np.bincount(cell, minlength=columns * (BINS + 1)))
        self._counts[band, 1:] = counts
        totals = counts.sum(axis=0)
        start = np.cumsum(totals) - totals
        self._bin_start[band] = start + self._by_bin.shape[1] * band
        held = np.flatnonzero(totals)
        for extreme, find in ((self._lowest, np.minimum), (self._highest, np.maximum)):
            extreme[held] = find(extreme[held], find.reduceat(self._by_bin[band], start[held]))
        weight = np.subtract(pixels, self.binning.pivot, dtype=np.float64)
        for power in (0, 1):
            if power:
                with np.errstate(over="ignore"):
                    weight *= weight
            # Without the unbounded bins: an outlier would swamp the running total.
            total = _by_cell(np.bincount(cell, weight, minlength=columns * (BINS + 1)))
            self._sums[band, 1:, power, 1:-1] = total[:, 1:-1]

    def regions(self, regions: Sequence[Spans]) -> TiledSamples:
        """Return the good pixels of regions, as ordered samples."""
        inside = whole_tiles(regions, self.shape)
        borders = (self._border(spans, *tiles) for spans, tiles in zip(regions, inside * SIDE, strict=True))
        return TiledSamples(self, inside, borders)

    def _border(self, spans: Spans, first: IntArray, last: IntArray) -> SortedValues:
        """Return the pixels of a region outside the columns (bands,) of its whole tiles; infinite where ignored."""
        band, row = spans.y // SIDE, spans.y * self._pixels.shape[1]
        left, right = np.minimum(first[band], spans.x1), np.maximum(last[band], spans.x0)
        length = np.maximum(np.concatenate([left - spans.x0, spans.x1 - right]), 0)
        return self._pixels.reshape(-1).take(_ranges(np.concatenate([row + spans.x0, row + right]), length))

    def totals(self, first: IntArray, last: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the counts of values of whole tiles per bin, (BINS,), and sums and squares, (2, BINS)."""
        band = np.flatnonzero(last > first)
        last, first = last[band], first[band]
        counts, sums = ((t[band, last] - t[band, first]).sum(axis=0) for t in (self._counts, self._sums))
        return counts, sums

    def values(self, inside: IntArray, bins: IntArray) -> tuple[SortedValues, IntArray]:
        """Return the values of whole tiles (c, 2, bands) in one bin each, (c,), end to end, and their numbers (c,)."""
        bands, bins = np.arange(inside.shape[2]), bins[:, None]
        before, after = (self._counts[bands, inside[:, end], bins].astype(np.int64) for end in (0, 1))
        start, length = self._bin_start[bands, bins] + before, after - before
        return self._by_bin.reshape(-1).take(_ranges(start.reshape(-1), length.reshape(-1))), length.sum(axis=1)

    def only_value(self, k: int) -> float | None:
        """Return the value that all pixels of a bin have; None where they differ."""
        return float(self._lowest[k]) if self._lowest[k] == self._highest[k] else None


def whole_tiles(regions: Sequence[Spans], shape: tuple[int, int]) -> IntArray:
    """Return the tiles of every band that regions cover, (R, 2, bands): ``first <= column < last``.

    They lie between the starts and the ends of its rows; bands in which a row is missing or has gaps have none.
    """
    bands, columns = (-(-n // SIDE) for n in shape)
    found = np.zeros((2, len(regions) * bands), dtype=np.int64)
    y, x0, x1 = (np.concatenate([getattr(spans, name) for spans in regions]) for name in ("y", "x0", "x1"))
    y += np.repeat(np.arange(len(regions)) * (bands * SIDE), [len(spans.y) for spans in regions])
    start = np.flatnonzero(np.diff(y // SIDE, prepend=-1))
    if start.size:
        band, is_row = y[start] // SIDE, np.diff(y, prepend=-1) > 0
        n_runs, n_rows = np.diff(start, append=y.size), np.add.reduceat(is_row, start, dtype=np.int64)
        first = np.maximum.reduceat(-(-x0 // SIDE), start)
        last = np.minimum.reduceat(np.where(x1 == shape[1], columns, x1 // SIDE), start)
        all_rows = n_rows == np.minimum(SIDE, shape[0] - band % bands * SIDE)
        use = (n_runs == n_rows) & all_rows & (first < last)
        found[:, band[use]] = first[use], last[use]
    return found.reshape(2, len(regions), bands).swapaxes(0, 1)


def _ranges(start: IntArray, length: IntArray) -> IntArray:
    """Return ranges of integers, one after the other."""
    stop = np.cumsum(length)
    index = np.arange(stop[-1] if stop.size else 0)
    index += np.repeat(start - stop + length, length)
    return index


def _by_cell(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Reshape a count over cells to (columns, BINS), without the cells of ignored pixels."""
    return table.reshape(-1, BINS + 1)[:, :BINS]


class TiledSamples:
    """Ordered samples made of the whole tiles of regions (R, 2, bands) and their other pixels, infinite where ignored.

    The latter are sorted in place, each while it is in the cache.
    """

    def __init__(self, image: TiledImage, inside: IntArray, borders: Iterable[SortedValues]) -> None:
        self._image, self._inside = image, inside
        self._borders: list[SortedValues] = []
        self._edges, self._pivot, n_regions = image.edges, np.float64(image.binning.pivot), len(inside)
        self._cuts = np.zeros((n_regions, BINS + 1), dtype=np.int64)
        counts = np.empty((n_regions, BINS), dtype=np.int64)
        of_tiles, sums = np.empty((2, n_regions, 2, BINS))
        ends = np.append(self._edges, self._edges.dtype.type(np.inf))
        for k, pixels in enumerate(borders):
            pixels.sort()
            self._cuts[k, 1:] = pixels.searchsorted(ends)
            self._borders.append(pixels[: self._cuts[k, -1]])
            _border_sums(self._borders[k], self._cuts[k, :-1], self._pivot, out=sums[k])
            counts[k], of_tiles[k] = image.totals(*inside[k])
        of_borders = np.diff(self._cuts, axis=1)
        counts += of_borders
        sums[:, :, [0, -1]] = 0.0  # unbounded bins: an outlier would swamp the running total
        np.copyto(sums, 0.0, where=(of_borders == 0)[:, None])
        sums += of_tiles
        self._sums = np.zeros((n_regions, 2, BINS + 1))  # running totals, like the counts
        np.cumsum(sums, axis=2, out=self._sums[:, :, 1:])
        # Counts run on from region to region, so one search finds the bins of ranks in all of them.
        self._passed = np.concatenate([[0], np.cumsum(counts)])
        self._values: dict[int, SortedValues] = {}
        self.n = counts.sum(axis=1)
        self.eps = float(np.finfo(self._edges.dtype).eps)

    def at(self, which: IntArray, ranks: IntArray) -> FloatArray:
        """Return the values of the given ranks."""
        cells = self._cells(which, ranks)
        within = ranks + self._passed[which * BINS] - self._passed[cells]
        values = self._sorted_cells(cells)
        return np.array([cell[i] for cell, i in zip(values, within.tolist(), strict=True)], dtype=np.float64)

    def below(self, which: IntArray, edges: FloatArray) -> IntArray:
        """Count the values that are less than each edge."""
        exact = round_up(edges, self._edges.dtype)
        cells = np.searchsorted(self._edges, exact, side="right") + which * BINS
        passed: IntArray = self._passed[cells] - self._passed[which * BINS]
        if cells.size > _FEW_EDGES * np.unique(which).size:
            return passed + self._below_in_cells(cells, exact)
        values = self._sorted_cells(cells)
        return passed + np.array([v.searchsorted(edge) for v, edge in zip(values, exact, strict=True)], dtype=np.int64)

    def moments(self, which: IntArray, start: IntArray, stop: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return means and standard deviations of runs of ranks."""
        passed = self._passed[which * BINS]
        first, last = self._cells(which, start), self._cells(which, stop - 1)
        low, high = start + passed - self._passed[first], stop + passed - self._passed[last]
        between = self._sums[which, :, last % BINS] - self._sums[which, :, np.minimum(first % BINS + 1, last % BINS)]
        cells = self._sorted_cells(np.concatenate([first, last]))
        sums = np.zeros((which.size, 2))
        with np.errstate(over="ignore"):
            for i in np.flatnonzero(first != last).tolist():
                ends_of_run = cells[i][low[i] :], cells[which.size + i][: high[i]]
                deviation = np.concatenate(ends_of_run, dtype=np.float64)
                deviation -= self._pivot
                sums[i] = np.add.reduce(deviation), np.einsum("i,i->", deviation, deviation)
            sums += between
        mean, std = moments_of_sums(stop - start, self._pivot, *sums.T)
        for i in np.flatnonzero(first == last).tolist():
            mean[i], std[i] = two_pass_moments(cells[i][low[i] : high[i]])
        return mean, std

    def _cells(self, which: IntArray, ranks: IntArray) -> IntArray:
        """Return the cells, ``which * BINS + bin``, that contain the given ranks."""
        cells: IntArray = np.searchsorted(self._passed, ranks + self._passed[which * BINS], side="right") - 1
        return cells

    def _sorted_cells(self, cells: IntArray) -> list[SortedValues]:
        """Return the values of each cell, sorted; they are kept, since clipping returns to the same cells."""
        keys = cells.tolist()
        fresh = []
        for cell in dict.fromkeys(keys).keys() - self._values.keys():
            value = self._image.only_value(cell % BINS)
            if value is None:
                fresh.append(cell)
            else:
                count = int(self._passed[cell + 1] - self._passed[cell])
                self._values[cell] = np.full(count, value, dtype=self._edges.dtype)
        if fresh:
            cells_of_fresh = np.array(fresh)
            region, at = np.divmod(cells_of_fresh, BINS)
            pieces, lengths = self._image.values(self._inside[region], at)
            cuts = zip(self._cuts[region, at].tolist(), self._cuts[region, at + 1].tolist(), strict=True)
            parts: list[SortedValues] = []  # for each cell: values in whole tiles, then those of the border
            start = 0
            for k, stop, (low, high) in zip(region.tolist(), np.cumsum(lengths).tolist(), cuts, strict=True):
                parts += pieces[start:stop], self._borders[k][low:high]
                start = stop
            together = np.concatenate(parts)
            start = 0
            counts = self._passed[cells_of_fresh + 1] - self._passed[cells_of_fresh]
            for cell, count in zip(fresh, counts.tolist(), strict=True):
                self._values[cell] = values = together[start : start + count]
                values.sort()
                start += count
        return [self._values[cell] for cell in keys]

    def _below_in_cells(self, cells: IntArray, edges: SortedValues) -> IntArray:
        """Count the values of a cell below each of many edges, without sorting."""
        region, bins = np.divmod(cells, BINS)
        values, lengths = self._image.values(self._inside[region], bins)
        less = np.concatenate([[0], np.cumsum(values < np.repeat(edges, lengths))])
        counts = np.diff(less[np.cumsum(lengths)], prepend=0)
        for i, (k, at) in enumerate(zip(region.tolist(), bins.tolist(), strict=True)):
            counts[i] += self._borders[k].searchsorted(edges[i]) - self._cuts[k, at]
        return counts


def _border_sums(border: SortedValues, cuts: IntArray, pivot: np.float64, out: FloatArray) -> None:
    """Return sums and sums of squares about the pivot, (2, BINS), of a sorted border; wrong for empty bins."""
    weight = np.empty(border.size + 1)
    weight[:-1] = border
    weight[-1] = pivot  # a zero for a cut at the very end
    weight -= pivot
    np.add.reduceat(weight, cuts, out=out[0])
    with np.errstate(over="ignore"):
        weight *= weight
    np.add.reduceat(weight, cuts, out=out[1])
