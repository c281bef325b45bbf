"""One image reduced to soft cells on the tangent plane: value and weight of each.

A pixel of an image is read once. Sharp outliers are left out, nothing else is: flux that is clipped in
one image and not in another, because the seeing differs, is what spoils pooled comparisons. A mesh
does not depend on other images, so any worker can make it and a store can keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Bins, CellSums, Float32Array, MeshGrid, PixelMap, between, pixel_map
from skymatch_cli.compare.mesh.centroids import CellCentroids, place_sums
from skymatch_cli.compare.mesh.sharp import sharp_outliers
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray, PixelArray
from skymatch_cli.model.monomials import n_terms

BLOCK_PIX = 64  # side of the blocks in which noise is measured and pixels are worked on
_MOST_SCATTERED = 65536  # pixels from which the scatter of an image is taken
MIN_COVERAGE = 0.3  # share of a cell's window that must be good pixels
COARSE = 8  # cells a side, for what varies slowly: noise, pixel area, background
_BATCH_BINS = 2**14  # shared out among cells at a time: what fits the cache
_MOST_SUM, _MOST_VALUE = 1e37, 1e34  # of bins and of their pixels: float32 holds sums of both
_LEAST_MOST_CELLS, _MOST_CELLS_PER_PIXEL = 2**20, 1  # far more than pixels fill: near the horizon of a plane
_NOISE_ROWS = 4  # every fourth row is enough for the noise
_FEW_STEPS = 50  # of neighbours that differ at all, in a block
_MIN_NOISE_SAMPLES = 16
_PIECE = 16  # values that are added up at a time; divides half a block
_CLIP = 5.0  # rms of the differences beyond which one is an edge or a star
_ROUNDINGS = 4.0  # of single precision, by which the mean of a cell may err
_LEAST_NOISE = 1e-30  # keeps ratios of noises within float32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellMesh:
    """The cells of one image on one grid, in a rectangle of the grid."""

    origin: tuple[int, int]  # (j0, i0): cell of the first element, on the grid
    level: float  # a typical value of the image; ``value`` is relative to it
    noise: float  # typical noise of a pixel
    # (nj, ni): mean of the good pixels with the cell's window, minus ``level``; 0 where there is none
    value: Float32Array
    # (nj, ni): good pixels (window sum) over the variance of a pixel in units of ``noise**2``; 0 where less than three
    # tenths of the window are good. Summed over cells this is the information of the pixels.
    weight: Float32Array
    pixels: Float32Array  # (nj, ni): good pixels (window sum)
    # (bj + 1, bi + 1): weight of a good pixel at the corners of the blocks of 8 x 8 cells of the grid that the mesh
    # touches; what it is at a cell lies between them
    per_pixel: Float32Array
    area: Float32Array  # (bj, bi): area of a pixel in these blocks, in units of the area between cell centres
    pixel_area: float  # typical area of a pixel, in the same units
    # (3, 2): place (u, v), in cells, of the first corner of the frame and of the ends of its first row and column
    corners: FloatArray
    n_good: int  # good pixels that were seen
    centroids: CellCentroids | None = None  # for models beyond a constant
    halvings: int = 0  # how often the pitch of the plane's coarsest grid was halved

    @property
    def shape(self) -> tuple[int, int]:
        """Of the rectangle of cells, (nj, ni)."""
        nj, ni = self.value.shape
        return nj, ni

    def blocks(self) -> tuple[IntArray, IntArray]:
        """Row and column of every block of 8 x 8 cells in which the image has a cell of some weight."""
        seen = self.weight > 0
        for axis in (0, 1):
            first = COARSE - self.origin[axis] % COARSE
            seen = np.logical_or.reduceat(seen, np.append(0, np.arange(first, seen.shape[axis], COARSE)), axis=axis)
        row, column = np.nonzero(seen)
        return row + self.origin[0] // COARSE, column + self.origin[1] // COARSE

    def cells(self, row: IntArray, column: IntArray) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Value, weight and good pixels of the cells of k blocks, (k, 64) each; 0 beyond the rectangle."""
        value, weight, pixels = (blocks_at(a, self.origin, row, column) for a in (self.value, self.weight, self.pixels))
        return value, weight, pixels


def reduce_image(
    data: PixelArray,
    good: BoolArray,
    wcs: CelestialWcs,
    grid: MeshGrid,
    blocks: BoolArray | None = None,
    *,
    degree: int = 0,
) -> CellMesh:
    """Reduce an image to the cells of a grid; TooWideError if it reaches too far from the centre of the plane.

    Parameters
    ----------
    data : (ny, nx) float32 or float64
        Pixels in comparison units.
    good : (ny, nx) bool
        True = use; False where ``data`` is not finite.
    blocks : (ceil(ny / 64), ceil(nx / 64)) bool, optional
        Blocks of pixels that are needed: those that other images may cover. All by default.
    degree : int
        Of the model: the powers of the places of pixels up to it are kept.
    """
    positions = pixel_map(wcs, grid)
    if blocks is None:
        blocks = np.ones([-(-n // BLOCK_PIX) for n in data.shape], bool)
    sample = data[::16, ::16][good[::16, ::16]]
    level = float(np.median(sample if sample.size else data[good])) if good.any() else 0.0
    sigma = block_noise(data, good, blocks, level)
    areas = positions.area()
    on_plane = areas[np.isfinite(areas) & (areas > 0)]
    bins = Bins.for_pitch(1.0 / np.sqrt(np.median(on_plane)) if on_plane.size else 1.0)
    used = _used_nodes(blocks, positions, bins.stride)
    u, v = (np.where(used, c, np.nan) for c in (positions.u, positions.v))
    sums = CellSums.around(u, v, 1 + n_terms(degree), _LEAST_MOST_CELLS + _MOST_CELLS_PER_PIXEL * data.size)
    n_good = 0
    runs = list(_runs(blocks, data.shape))
    clean = good.copy()
    clean.reshape(-1)[sharp_outliers(data, good, sigma, BLOCK_PIX, runs)] = False
    batch = _Batch(sums)
    for rows, columns in runs:
        n_good += int(np.count_nonzero(good[rows, columns]))
        usable = clean[rows, columns]
        values = np.where(usable, data[rows, columns], data.dtype.type(level))
        values -= data.dtype.type(level)  # in place: a third array would not fit the cache
        values = values.astype(np.float32, copy=False)
        total = bins.sums(values)
        if not np.abs(total).max(initial=0) < _MOST_SUM:  # values that float32 can't hold are no sky
            usable = usable & (np.abs(values) < _MOST_VALUE)
            total = bins.sums(np.where(usable, values, np.float32(0)))
        count = bins.counts(usable)
        summed: tuple[Float32Array | FloatArray, ...] = total, count
        if degree:
            summed = *summed, *place_sums(positions, bins, usable, (rows, columns), sums.origin, degree)
        u, v = positions.at(*(s.start + bins.centres(s.stop - s.start) for s in (columns, rows)))
        batch.add(u, v, summed)
    batch.flush()
    mesh = _finished(sums, positions, sigma, data.shape, level=level, n_good=n_good)
    if not degree:
        return mesh
    return replace(mesh, centroids=CellCentroids.of_sums(grid.pitch_rad, sums, mesh.origin, mesh.shape, degree))


def _used_nodes(blocks: BoolArray, positions: PixelMap, stride: int) -> BoolArray:
    """The nodes of a map that lie in needed blocks or so near that bins of these do."""
    used = np.zeros(positions.u.shape, bool)
    per_block = BLOCK_PIX // positions.step
    margin = -(-stride // positions.step) + 1
    for rows, columns in _runs(blocks, tuple(n * BLOCK_PIX for n in blocks.shape)):
        (j0, j1), (i0, i1) = ((s.start // BLOCK_PIX, s.stop // BLOCK_PIX) for s in (rows, columns))
        inside = (slice(max(0, a * per_block - margin), b * per_block + margin) for a, b in ((j0, j1), (i0, i1)))
        used[tuple(inside)] = True
    return used


class _Batch:
    """Collects bins and adds them to the cells in batches that fit the cache."""

    def __init__(self, sums: CellSums) -> None:
        self._sums = sums
        self._bins: list[list[Float32Array | FloatArray]] = []
        self._size = 0

    def add(self, u: FloatArray, v: FloatArray, values: Sequence[Float32Array | FloatArray]) -> None:
        """Bins at (u, v); those off the plane are left out."""
        on_plane = np.isfinite(u + v)
        columns = [u, v, *values]
        self._bins.append([c.reshape(-1) for c in columns] if on_plane.all() else [c[on_plane] for c in columns])
        self._size += u.size
        if self._size >= _BATCH_BINS:
            self.flush()

    def flush(self) -> None:
        """Add the collected bins."""
        if self._size:
            u, v, *values = (np.concatenate(c) for c in zip(*self._bins, strict=True))
            self._sums.add(u, v, values)
        self._bins, self._size = [], 0


def _runs(blocks: BoolArray, shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Rectangles of pixels: runs of needed blocks, one block high."""
    line, edge = np.nonzero(np.diff(np.pad(blocks, ((0, 0), (1, 1)))))
    for j, start, stop in zip(line[::2].tolist(), edge[::2].tolist(), edge[1::2].tolist(), strict=True):
        rows = slice(j * BLOCK_PIX, min((j + 1) * BLOCK_PIX, shape[0]))
        yield rows, slice(start * BLOCK_PIX, min(stop * BLOCK_PIX, shape[1]))


def block_noise(data: PixelArray, good: BoolArray, blocks: BoolArray, level: float) -> Float32Array:
    """Noise of a pixel in blocks of 64 x 64 pixels, (my, mx), from differences of neighbours in a row.

    The rms of the differences, clipped from above until nothing more is clipped: stars and gradients hardly count,
    and, other than a median, it is right where most neighbours are equal (sparse counts, integers, rebinned plates).
    The smallest step that occurs is never clipped: single photons are the noise. Blocks with so few steps that these
    are chance have one noise together: else those without a photon would weigh most. Blocks with too few good pixels,
    and those not asked for, have the median of the others; never below rounding of ``level``.
    """
    half = BLOCK_PIX // 2
    sigma, steps = np.full(blocks.shape, np.nan, np.float32), []
    for rows, columns in _runs(blocks, data.shape):
        lines, usable = data[rows, columns][::_NOISE_ROWS], good[rows, columns][::_NOISE_ROWS]
        pairs = lines.shape[1] // 2
        n_blocks = -(-lines.shape[1] // BLOCK_PIX)
        each = np.full((BLOCK_PIX // _NOISE_ROWS, n_blocks * half), np.inf, np.float32)
        both = usable[:, 1 : 2 * pairs : 2] & usable[:, 0 : 2 * pairs : 2]
        difference = lines[:, 1 : 2 * pairs : 2] - lines[:, 0 : 2 * pairs : 2]
        np.abs(difference, out=each[: len(lines), :pairs], where=both, casting="same_kind")
        steps.append(each.reshape(-1, n_blocks, half).swapaxes(0, 1).reshape(n_blocks, -1))
    if steps:
        ordered = np.sort(np.concatenate(steps), axis=1)
        found = _clipped_rms(ordered) / np.sqrt(2.0)
        sparse = np.isfinite(found) & (np.count_nonzero((ordered > 0) & (ordered < np.inf), axis=1) < _FEW_STEPS)
        found[sparse] = np.sqrt(np.mean(found[sparse] ** 2)) if sparse.any() else 0.0
        sigma[blocks] = found
    known = sigma[np.isfinite(sigma)]
    sigma[~np.isfinite(sigma)] = np.median(known) if known.size else _scatter(data, good)
    # Noise-free pixels get the rounding of their values; images of zeros get a token.
    rounding = max(abs(level) * float(np.finfo(np.float32).eps), float(sigma.max()) * 1e-3) or 1e-12
    return np.maximum(sigma, np.float32(max(rounding, _LEAST_NOISE)))


def _scatter(data: PixelArray, good: BoolArray) -> float:
    """Clipped scatter of an image none of whose good pixels are neighbours: structure counts, so never too small."""
    values = data[good].astype(float)
    values = values[:: max(1, len(values) // _MOST_SCATTERED)]
    while len(values) > 1:
        away = np.abs(values - np.median(values))
        kept = away <= _CLIP * np.std(values)
        if kept.all():
            return float(np.std(values, ddof=1))
        values = values[kept]
    return 0.0


def _clipped_rms(steps: Float32Array) -> FloatArray:
    """Rms of each row of ascending steps >= 0 (infinite: none) without the largest; NaN where there are few."""
    count, zeros = np.count_nonzero(steps < np.inf, axis=1), np.count_nonzero(steps == 0, axis=1)
    enough, least = count >= _MIN_NOISE_SAMPLES, np.minimum(np.maximum(count // 2, 1), count)
    smallest = np.take_along_axis(steps, np.minimum(zeros, steps.shape[1] - 1)[:, None], 1)[:, 0]
    floor = np.where(np.isfinite(smallest), 1.5 * smallest, 0)
    squares = _RunningSquares(np.where(steps < np.inf, steps, np.float32(0)))
    rms, row = np.zeros(len(steps)), np.arange(len(steps))
    while row.size:
        rms[row] = np.sqrt(squares.of_first(count[row], row) / np.maximum(count[row], 1))
        limit = np.maximum(_CLIP * rms[row], floor[row]).astype(np.float32)
        kept = np.count_nonzero(steps[row] <= limit[:, None], axis=1)
        kept = np.minimum(np.maximum(kept, least[row]), count[row])
        fewer = kept < count[row]
        count[row] = kept
        row = row[fewer]
    return np.where(enough, rms, np.nan)


class _RunningSquares:
    """Sums of the squares of the first values of rows (m, k): a running total would go through them one by one."""

    def __init__(self, values: Float32Array) -> None:
        self._pieces = values.astype(float).reshape(len(values), -1, _PIECE)
        self._before = np.zeros((len(values), self._pieces.shape[1] + 1))
        np.cumsum(np.einsum("rpi,rpi->rp", self._pieces, self._pieces), axis=1, out=self._before[:, 1:])

    def of_first(self, n: IntArray, row: IntArray) -> FloatArray:
        """Sum over the first ``n`` of each of some rows."""
        whole, rest = np.divmod(n, _PIECE)
        piece = self._pieces[row, np.minimum(whole, self._pieces.shape[1] - 1)]
        piece = np.where(np.arange(_PIECE) < rest[:, None], piece, 0)
        return np.asarray(self._before[row, whole] + np.einsum("ri,ri->r", piece, piece))


def _finished(
    sums: CellSums, positions: PixelMap, sigma: Float32Array, shape: tuple[int, ...], *, level: float, n_good: int
) -> CellMesh:
    """Sums over cells to values and weights; trimmed to the cells that have pixels."""
    total, count = sums.sums[:2]
    seen = count > 0
    j, i = (np.flatnonzero(seen.any(axis=a)) for a in (1, 0))
    first = (int(j[0]), int(i[0])) if j.size else (0, 0)
    box = np.s_[first[0] : int(j[-1]) + 1, first[1] : int(i[-1]) + 1] if j.size else np.s_[:1, :1]
    origin = (sums.origin[0] + first[0], sums.origin[1] + first[1])
    total, count = total[box], count[box]
    area, variance, in_blocks = _slow_maps(positions, sigma, shape, origin, count.shape)
    covered = (count > 0) & (count * area >= MIN_COVERAGE)
    value = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    # Sums of single precision err by more than the noise of a block where that is none.
    typical = np.quantile(np.abs(value[covered]), 0.9) if covered.any() else 0.0
    rounding = _ROUNDINGS * float(np.finfo(np.float32).eps) * (abs(level) + float(typical))
    noise = max(float(np.median(sigma)), rounding)
    variance = np.maximum(variance, rounding * rounding)  # infinite where `**` would raise
    per_pixel = (noise * noise / variance).astype(np.float32)
    pixels = np.where(covered, count, 0).astype(np.float32)
    return CellMesh(
        origin=origin,
        level=level,
        noise=noise,
        value=value.astype(np.float32),
        weight=pixels * between_corners(per_pixel, origin, count.shape),
        pixels=pixels,
        per_pixel=per_pixel,
        area=in_blocks.astype(np.float32),
        pixel_area=float(np.median(area)),
        corners=_corners(positions, shape),
        n_good=n_good,
    )


def _corners(positions: PixelMap, shape: tuple[int, ...]) -> FloatArray:
    """First corner of the frame and the ends of its first row and column, (3, 2), in cells."""
    ny, nx = shape
    corners = np.stack(positions.at(np.array([-0.5, nx - 0.5]), np.array([-0.5, ny - 0.5])), axis=-1)
    return np.asarray(corners[[0, 0, 1], [0, 1, 0]], float)


def _slow_maps(
    positions: PixelMap, sigma: Float32Array, shape: tuple[int, ...], origin: tuple[int, int], cells: tuple[int, ...]
) -> tuple[FloatArray, ...]:
    """Area of a pixel at every cell, its variance at the corners of blocks of 8 x 8 cells, and the area in each block.

    Means of samples of the frame on a coarse grid.
    """
    blocks = tuple((o + n - 1) // COARSE - o // COARSE + 1 for o, n in zip(origin, cells, strict=True))
    y, x = (np.arange(min(8, n // 2), n, 16, dtype=float) for n in shape)
    u, v = positions.at(x, y)
    area = positions.area()
    rows, columns = (
        np.minimum(a.astype(int) // positions.step, n - 1) for a, n in zip((y, x), area.shape, strict=True)
    )
    areas = area[np.ix_(rows, columns)]
    variances = sigma[np.ix_(y.astype(int) // BLOCK_PIX, x.astype(int) // BLOCK_PIX)].astype(float) ** 2
    on_plane = np.isfinite(u) & np.isfinite(v) & np.isfinite(areas)
    if not on_plane.any():
        return np.ones(cells), np.ones([n + 1 for n in blocks]), np.ones(blocks)
    u, v, areas, variances = (c[on_plane] for c in (u, v, areas, variances))
    u, v = u / COARSE, v / COARSE
    coarse = CellSums.around(np.append(u, origin[1] / COARSE), np.append(v, origin[0] / COARSE), 3)
    coarse = CellSums(
        coarse.origin, np.zeros((3, *(n + m // COARSE + 3 for n, m in zip(coarse.sums.shape[1:], cells, strict=True))))
    )
    coarse.add(u, v, (np.ones_like(u), areas, variances))
    at = tuple((o + np.arange(n)) / COARSE - c for o, n, c in zip(origin, cells, coarse.origin, strict=True))
    corners = tuple(o // COARSE + np.arange(n + 1.0) - c for o, n, c in zip(origin, blocks, coarse.origin, strict=True))
    in_blocks = tuple(line[:-1] + 0.5 - 0.5 / COARSE for line in corners)
    _, area, variance = coarse.sums
    means = ((area, areas, at), (variance, variances, corners), (area, areas, in_blocks))
    return tuple(_mean_at(coarse.sums[0], total, float(each.mean()), *where) for total, each, where in means)


def _mean_at(count: FloatArray, total: FloatArray, fill: float, y: FloatArray, x: FloatArray) -> FloatArray:
    """Means of a coarse grid between its nodes, ``fill`` where nothing was counted."""
    n = _bilinear(count, y, x)
    return np.asarray(np.divide(_bilinear(total, y, x), n, out=np.full(n.shape, fill), where=n > 0))


def blocks_at(a: npt.NDArray[Any], origin: tuple[int, int], row: IntArray, column: IntArray) -> npt.NDArray[Any]:
    """Cells (k, 64) of k blocks of the grid, from a rectangle (nj, ni) of cells; 0 beyond it."""
    before = tuple(o % COARSE for o in origin)
    n_blocks = tuple(-(-(b + n) // COARSE) for b, n in zip(before, a.shape, strict=True))
    whole = np.zeros([n * COARSE for n in n_blocks], a.dtype)
    whole[before[0] : before[0] + a.shape[0], before[1] : before[1] + a.shape[1]] = a
    cells = whole.reshape(n_blocks[0], COARSE, n_blocks[1], COARSE).swapaxes(1, 2)
    j, i = row - origin[0] // COARSE, column - origin[1] // COARSE
    inside = (j >= 0) & (j < n_blocks[0]) & (i >= 0) & (i < n_blocks[1])
    found = np.zeros((len(row), COARSE**2), a.dtype)
    found[inside] = cells[j[inside], i[inside]].reshape(-1, COARSE**2)
    return found


def between_corners(nodes: Float32Array, origin: tuple[int, int], cells: tuple[int, ...]) -> Float32Array:
    """Values at the cells of a rectangle of the grid, from those at the corners of its blocks."""
    y, x = ((o % COARSE + np.arange(n)) / COARSE for o, n in zip(origin, cells, strict=True))
    return _bilinear(nodes.astype(float), y, x).astype(np.float32)


def _bilinear(nodes: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
    """Values between the nodes of a lattice, on a lattice of rows ``y`` and columns ``x``."""
    return between(between(nodes, y, 0), x, 1)
