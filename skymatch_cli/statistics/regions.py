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

import math
from collections.abc import Sequence
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
_ADDED = 2**16  # pixels that are added up together, while they are in the cache
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
    """The pixels of an image, for ordered samples of regions: by tile and bin, in the bands that these touch.

    The pixels of tiles that all of the regions cover are sorted together instead, in a fifth of the time.
    """

    def __init__(self, data: PixelArray, good: BoolArray, regions: Sequence[Spans]) -> None:
        self.shape: tuple[int, int] = data.shape
        bands, columns = (-(-n // SIDE) for n in self.shape)
        self.binning = Binning.of(data, good)
        # Running totals along a band of the values in each bin: sums, sums of squares, counts. Pixels are infinite
        # where they are ignored; a second copy is by band, bin and tile, with those that all regions share at its end.
        self._sums, self._counts, self._pixels, self._by_bin = _in_one_block(
            ((bands, columns + 1, 2, BINS), np.float64),
            ((bands, columns + 1, BINS), np.int32),
            ((bands * SIDE, columns * SIDE), data.dtype),
            ((bands * columns * SIDE * SIDE,), data.dtype),
        )
        self._sums[...], self._counts[...] = 0, 0
        self._bin_start = np.zeros((bands, BINS), dtype=np.int64)
        self._lowest, self._highest = self.binning.lowest.copy(), np.full(BINS, -np.inf, dtype=data.dtype)
        self._extremes = [(self._lowest, np.minimum), (self._highest, np.maximum)][: 1 + self.binning.ties]
        inside = whole_tiles(regions, self.shape)
        shared = np.stack([inside[:, 0].max(axis=0), inside[:, 1].min(axis=0)], axis=1)
        filled, core = 0, self._by_bin.size
        for band in np.unique(np.concatenate([spans.y for spans in regions]) // SIDE).tolist():
            self._copy_band(band, data, good)
            tiles = self._pixels[band * SIDE : (band + 1) * SIDE].reshape(SIDE, columns, SIDE).swapaxes(0, 1)
            first, last = shared[band].tolist()
            last = max(first, last)
            core -= tiles[first:last].size
            self._by_bin[core:][: tiles[first:last].size].reshape(-1, SIDE, SIDE)[...] = tiles[first:last]
            self._fill_band(band, np.concatenate([tiles[:first], tiles[last:]]), first, filled)
            filled += tiles.size - tiles[first:last].size
        for table in (self._counts, self._sums):
            for column in range(columns):  # a loop, because cumsum walks along the short axis
                table[:, column + 1] += table[:, column]
        # Bin ``k`` holds ``edges[k - 1] <= value < edges[k]``.
        self.edges = np.minimum.accumulate(self._lowest[::-1])[-2::-1]
        self.core = SortedPixels(self._by_bin[core:], self.edges)
        if self.binning.ties:
            held, cuts = np.diff(self.core.cuts) > 0, self.core.cuts
            self._lowest[held] = np.minimum(self._lowest[held], self.core.values[cuts[:-1][held]])
            self._highest[held] = np.maximum(self._highest[held], self.core.values[cuts[1:][held] - 1])

    def _copy_band(self, band: int, data: PixelArray, good: BoolArray) -> None:
        rows = slice(band * SIDE, (band + 1) * SIDE)
        ny, nx = data[rows].shape
        pixels, use = self._pixels[rows], np.isfinite(data[rows])
        use &= good[rows]
        pixels[ny:], pixels[:, nx:] = np.inf, np.inf
        pixels[:ny, :nx] = data[rows]
        pixels[:ny, :nx][~use] = np.inf

    def _fill_band(self, band: int, tiles: PixelArray, first: int, filled: int) -> None:
        """Add tiles (n, SIDE, SIDE) of a band to the tables: the ``first`` ones, and the last ones."""
        n, pixels = len(tiles), tiles.reshape(-1)
        if not n:
            return
        before, behind = slice(1, first + 1), slice(len(self._counts[0]) - n + first, None)
        bins = self.binning.bins(pixels)
        by_bin = self._by_bin[filled : filled + pixels.size]
        pixels.take(np.argsort(bins, kind="stable"), out=by_bin, mode="clip")
        short = np.min_scalar_type(n * (BINS + 1))  # added up in half the time
        cell = bins.reshape(n, -1) + np.arange(n, dtype=short)[:, None] * (BINS + 1)
        cell = cell.reshape(-1).astype(np.intp)
        counts = _by_cell(np.bincount(cell, minlength=n * (BINS + 1)))
        self._counts[band, before], self._counts[band, behind] = counts[:first], counts[first:]
        totals = counts.sum(axis=0)
        start = np.cumsum(totals) - totals
        self._bin_start[band] = start + filled
        held = np.flatnonzero(totals)
        for extreme, find in self._extremes:
            extreme[held] = find(extreme[held], find.reduceat(by_bin, start[held]))
        weight = np.subtract(pixels, self.binning.pivot, dtype=np.float64)
        for power in (0, 1):
            if power:
                with np.errstate(over="ignore"):
                    weight *= weight
            # Without the unbounded bins: an outlier would swamp the running total.
            total = _by_cell(np.bincount(cell, weight, minlength=n * (BINS + 1)))[:, 1:-1]
            sums = self._sums[band, :, power, 1:-1]
            sums[before], sums[behind] = total[:first], total[first:]

    def regions(self, regions: Sequence[Spans]) -> TiledSamples:
        """Return the good pixels of regions, as ordered samples."""
        inside = whole_tiles(regions, self.shape)
        borders = [self._border(spans, *tiles) for spans, tiles in zip(regions, inside * SIDE, strict=True)]
        return TiledSamples(self, inside, borders)

    def _border(self, spans: Spans, first: IntArray, last: IntArray) -> SortedPixels:
        """Return the pixels of a region outside the columns (bands,) of its whole tiles."""
        band, row = spans.y // SIDE, spans.y * self._pixels.shape[1]
        left, right = np.minimum(first[band], spans.x1), np.maximum(last[band], spans.x0)
        length = np.maximum(np.concatenate([left - spans.x0, spans.x1 - right]), 0)
        pixels = self._pixels.reshape(-1).take(_ranges(np.concatenate([row + spans.x0, row + right]), length))
        return SortedPixels(pixels, self.edges)

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
        return self._by_bin.take(_ranges(start.reshape(-1), length.reshape(-1))), length.sum(axis=1)

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


def _in_one_block(*arrays: tuple[tuple[int, ...], npt.DTypeLike]) -> list[npt.NDArray[Any]]:
    """Return empty arrays. The C library keeps freed memory for the next image, up to twice its largest block."""
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays]
    parts = np.split(np.empty(sum(sizes), np.uint8), np.cumsum(sizes)[:-1])
    return [part.view(dtype).reshape(shape) for part, (shape, dtype) in zip(parts, arrays, strict=True)]


def _by_cell(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Reshape a count over cells to (columns, BINS), without the cells of ignored pixels."""
    return table.reshape(-1, BINS + 1)[:, :BINS]


class SortedPixels:
    """Pixels in order, cut into the bins between edges; those that are infinite are ignored."""

    def __init__(self, pixels: SortedValues, edges: SortedValues) -> None:
        pixels.sort()  # in place, while they are in the cache
        self.cuts = np.zeros(BINS + 1, dtype=np.int64)
        self.cuts[1:] = pixels.searchsorted(np.append(edges, edges.dtype.type(np.inf)))
        self.values = pixels[: self.cuts[-1]]

    def bin(self, k: int) -> SortedValues:
        """Return the pixels in one bin."""
        return self.values[self.cuts[k] : self.cuts[k + 1]]

    def sums(self, pivot: np.float64) -> FloatArray:
        """Return sums and sums of squares about the pivot, (2, BINS); 0 in the unbounded bins."""
        found = np.zeros((2, BINS))  # an outlier would swamp the running total
        held = 1 + np.flatnonzero(self.cuts[2:-1] > self.cuts[1:-2])
        for bins in np.array_split(held, 1 + self.values.size // _ADDED):
            if bins.size:
                start = self.cuts[bins]
                weight = np.subtract(self.values[start[0] : self.cuts[bins[-1] + 1]], pivot, dtype=np.float64)
                with np.errstate(over="ignore"):
                    powers = weight, weight * weight
                found[:, bins] = [np.add.reduceat(power, start - start[0]) for power in powers]
        return found


class TiledSamples:
    """Ordered samples made of the whole tiles of regions (R, 2, bands), their other pixels, and those of the core."""

    def __init__(self, image: TiledImage, inside: IntArray, borders: Sequence[SortedPixels]) -> None:
        self._image, self._inside, self._borders = image, inside, borders
        self._edges, self._pivot, n_regions = image.edges, np.float64(image.binning.pivot), len(inside)
        counts = np.tile(np.diff(image.core.cuts), (n_regions, 1))
        sums = np.tile(image.core.sums(self._pivot), (n_regions, 1, 1))
        for k, border in enumerate(borders):
            of_tiles, sums_of_tiles = image.totals(*inside[k])
            counts[k] += of_tiles + np.diff(border.cuts)
            sums[k] += border.sums(self._pivot) + sums_of_tiles
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
            parts: list[SortedValues] = []  # for each cell: values in whole tiles, those of the border, and of the core
            start = 0
            for k, i, stop in zip(region.tolist(), at.tolist(), np.cumsum(lengths).tolist(), strict=True):
                parts += pieces[start:stop], self._borders[k].bin(i), self._image.core.bin(i)
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
            counts[i] += sum(part.bin(at).searchsorted(edges[i]) for part in (self._borders[k], self._image.core))
        return counts
