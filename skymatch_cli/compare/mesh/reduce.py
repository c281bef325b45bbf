"""One image reduced to soft cells on the tangent plane: value and weight of each.

A pixel of an image is read once. Sharp outliers are left out, nothing else is: flux that is clipped in
one image and not in another, because the seeing differs, is what spoils pooled comparisons. A mesh
does not depend on other images, so any worker can make it and a store can keep it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.compare.mesh.cells import BLOCK_PIX, COARSE, CellSums, Float32Array, bilinear
from skymatch_cli.compare.mesh.noise import block_noise
from skymatch_cli.compare.mesh.placement import Placement
from skymatch_cli.compare.mesh.sharp import without_sharp
from skymatch_cli.model import BoolArray, FloatArray, IntArray, PixelArray
from skymatch_cli.model.monomials import moved_powers, n_terms

MIN_COVERAGE = 0.3  # share of a cell's window that must be good pixels
_MOST_SUM, _MOST_VALUE = 1e37, 1e34  # of bins and of their pixels: float32 holds sums of both
_ROUNDINGS = 4.0  # of single precision, by which the mean of a cell may err


@dataclass(frozen=True, slots=True, eq=False)
class CellCentroids:
    """Means of powers of the places of good pixels, with the windows of the cells, about the centres of the cells.

    A cell at the border of an image, or beside a mask, has its pixels to one side of its centre. For a constant sky
    that is the same everywhere; for a tilt the mean place counts, for a polynomial the means of the powers.
    """

    pitch_rad: float  # of the grid
    powers: Float32Array  # (t, nj, ni): of u, v, u^2, u v and so on, in cells; 0 where there is no pixel

    @classmethod
    def of_sums(
        cls, pitch_rad: float, sums: CellSums, origin: tuple[int, int], shape: tuple[int, int], degree: int
    ) -> CellCentroids:
        """From sums over cells, of which the second counts pixels and those behind it add up powers of places."""
        (j0, i0), (nj, ni) = (tuple(o - s for o, s in zip(origin, sums.origin, strict=True)), shape)
        _, count, *totals = sums.sums[:, j0 : j0 + nj, i0 : i0 + ni]
        per_count = np.divide(1, count, out=np.zeros_like(count), where=count > 0)
        about_first = [total * per_count for total in (count, *totals)]
        v, u = (-(first + np.arange(n, dtype=float)) for first, n in zip((j0, i0), shape, strict=True))
        return cls(pitch_rad, moved_powers(about_first, u, v[:, None], degree))


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
        value, weight, pixels = blocks_at(np.stack([self.value, self.weight, self.pixels]), self.origin, row, column)
        return value, weight, pixels


def reduce_image(data: PixelArray, good: BoolArray, placement: Placement, *, degree: int = 0) -> CellMesh:
    """Reduce an image to the cells of a grid; TooWideError if it reaches too far from the centre of the plane.

    Parameters
    ----------
    data : (ny, nx) float32 or float64
        Pixels in comparison units.
    good : (ny, nx) bool
        True = use; False where ``data`` is not finite.
    placement : Placement
        Where the pixels lie on the grid, and which are needed.
    degree : int
        Of the model: the powers of the places of pixels up to it are kept.
    """
    sample = data[::16, ::16][good[::16, ::16]]
    level = float(np.median(sample if sample.size else data[good])) if good.any() else 0.0
    sigma = block_noise(data, good, placement.large_rectangles, level)
    clean = without_sharp(data, good, sigma, BLOCK_PIX, placement.rectangles)
    sums, n_good, bins = placement.sums(1 + n_terms(degree)), 0, placement.bins
    for rectangle in placement.rectangles:
        n_good += int(np.count_nonzero(good[rectangle]))
        usable = clean[rectangle]
        with np.errstate(over="ignore", invalid="ignore"):  # of pixels that are not usable
            values = (data[rectangle] - data.dtype.type(level)).astype(np.float32, copy=False)
        values[~usable] = 0
        total = bins.sums(values)
        if not np.abs(total).max(initial=0) < _MOST_SUM:  # values that float32 can't hold are no sky
            usable = usable & (np.abs(values) < _MOST_VALUE)
            total = bins.sums(np.where(usable, values, np.float32(0)))
        shares = placement.shares(rectangle)
        sums.add(shares, [shares.totals(total)])
        placement.add_places(sums, rectangle, usable, degree)
    mesh = _finished(sums, placement, sigma, level=level, n_good=n_good)
    if not degree:
        return mesh
    return replace(mesh, centroids=CellCentroids.of_sums(placement.pitch_rad, sums, mesh.origin, mesh.shape, degree))


def _finished(sums: CellSums, placement: Placement, sigma: Float32Array, *, level: float, n_good: int) -> CellMesh:
    """Sums over cells to values and weights; trimmed to the cells that have pixels."""
    total, count = sums.sums[:2]
    seen = count > 0
    j, i = (np.flatnonzero(seen.any(axis=a)) for a in (1, 0))
    first = (int(j[0]), int(i[0])) if j.size else (0, 0)
    box = np.s_[first[0] : int(j[-1]) + 1, first[1] : int(i[-1]) + 1] if j.size else np.s_[:1, :1]
    origin = (sums.origin[0] + first[0], sums.origin[1] + first[1])
    total, count = total[box], count[box]
    nj, ni = count.shape
    area, in_blocks, typical_area = placement.area_maps(origin, (nj, ni))
    variance = placement.variance_map(sigma, origin, (nj, ni))
    covered = (count > 0) & (count * area >= MIN_COVERAGE)
    n_covered = int(np.count_nonzero(covered))
    value = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    # Sums of single precision err by more than the noise of a block where that is none.
    typical = np.sort(np.abs(value[covered]))[int(0.9 * n_covered)] if n_covered else 0.0
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
        pixel_area=typical_area,
        corners=placement.corners,
        n_good=n_good,
    )


def blocks_at(a: Float32Array, origin: tuple[int, int], row: IntArray, column: IntArray) -> Float32Array:
    """Cells (q, k, 64) of k blocks of the grid, from q maps (q, nj, ni) of a rectangle of cells; 0 beyond it."""
    before = tuple(o % COARSE for o in origin)
    n_blocks = tuple(-(-(b + n) // COARSE) for b, n in zip(before, a.shape[1:], strict=True))
    whole = np.zeros([len(a), *(n * COARSE for n in n_blocks)], a.dtype)
    whole[:, before[0] : before[0] + a.shape[1], before[1] : before[1] + a.shape[2]] = a
    cells = whole.reshape(-1, n_blocks[0], COARSE, n_blocks[1], COARSE).swapaxes(2, 3)
    j, i = row - origin[0] // COARSE, column - origin[1] // COARSE
    inside = (j >= 0) & (j < n_blocks[0]) & (i >= 0) & (i < n_blocks[1])
    if inside.all():
        return cells[:, j, i].reshape(len(a), -1, COARSE**2)
    found = np.zeros((len(a), len(row), COARSE**2), a.dtype)
    found[:, inside] = cells[:, j[inside], i[inside]].reshape(len(a), -1, COARSE**2)
    return found


def between_corners(nodes: Float32Array, origin: tuple[int, int], cells: tuple[int, ...]) -> Float32Array:
    """Values at the cells of a rectangle of the grid, from those at the corners of its blocks."""
    y, x = ((o % COARSE + np.arange(n)) / COARSE for o, n in zip(origin, cells, strict=True))
    return bilinear(nodes.astype(float), y, x).astype(np.float32)
