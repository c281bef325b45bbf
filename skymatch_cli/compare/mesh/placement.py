"""Where the pixels of an image lie among the cells of a grid: the same for all planes of a cube."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skymatch_cli.compare.mesh.cells import (
    BLOCK_PIX,
    COARSE,
    Bins,
    CellSums,
    Float32Array,
    MeshGrid,
    PixelMap,
    Shares,
    bilinear,
    pixel_map,
    window_around,
)
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray
from skymatch_cli.model.monomials import powers_of

_MOST_BLOCKS = 32  # of a rectangle of several rows: their pixels fit the cache
_LEAST_MOST_CELLS, _MOST_CELLS_PER_PIXEL = 2**20, 1  # far more than pixels fill: near the horizon of a plane
_FEW_OF = 32  # bad pixels are subtracted from the sums of all where they are fewer than one in this many
_ROUNDING = 1e-9  # pixels: a smaller sum is the rounding error of a subtraction
_SAMPLE_PIX = 16  # between the samples of what varies slowly

Rectangle = tuple[slice, slice]
"""Rows and columns of pixels."""


class Placement:
    """Where the pixels of an image lie among the cells of a grid; TooWideError if that is too far from its centre.

    Parameters
    ----------
    wcs : CelestialWcs
    grid : MeshGrid
    blocks : (ceil(ny / 64), ceil(nx / 64)) bool, optional
        Blocks of pixels that are needed: those that other images may cover. All by default.
    several : bool
        Remember what several images in this place have in common.
    """

    def __init__(
        self, wcs: CelestialWcs, grid: MeshGrid, blocks: BoolArray | None = None, *, several: bool = False
    ) -> None:
        self.shape, self.pitch_rad = wcs.shape, grid.pitch_rad
        blocks = np.ones([-(-n // BLOCK_PIX) for n in self.shape], np.bool_) if blocks is None else blocks
        self._positions = pixel_map(wcs, grid)
        self._area = self._positions.area()
        on_plane = self._area[np.isfinite(self._area) & (self._area > 0)]
        self.bins = Bins.for_pitch(1.0 / np.sqrt(np.median(on_plane)) if on_plane.size else 1.0)
        # Bins are counted from the first row of a rectangle: those of rows of blocks below it must be the same.
        self.rectangles = rectangles(blocks, self.shape, 1 if BLOCK_PIX % self.bins.stride else _MOST_BLOCKS)
        self.large_rectangles = rectangles(blocks, self.shape, blocks.size)
        used = _used_nodes(blocks, self._positions, self.bins.stride)
        u, v = (np.where(used, c, np.nan) for c in (self._positions.u, self._positions.v))
        most = _LEAST_MOST_CELLS + _MOST_CELLS_PER_PIXEL * self.shape[0] * self.shape[1]
        self.origin, self._cells = window_around(u, v, most)
        self._several = several
        self._shares: dict[object, Shares] = {}
        self._area_maps: dict[object, tuple[FloatArray, FloatArray, float]] = {}
        self._near_corners: dict[object, FloatArray] = {}
        self._places: dict[object, list[FloatArray]] = {}

    def sums(self, k: int) -> CellSums:
        """Room for ``k`` sums over all cells that pixels touch."""
        return CellSums(self.origin, np.zeros((k, *self._cells)))

    def shares(self, rectangle: Rectangle) -> Shares:
        """How the bins of a rectangle of pixels are shared out among cells."""
        key = self._key(rectangle)
        if key not in self._shares:
            y, x = (each.start + self.bins.centres(each.stop - each.start) for each in rectangle)
            if not self._several:
                self._shares.clear()  # memory: only the last one
            self._shares[key] = Shares.at(*self._positions.at(x, y))
        return self._shares[key]

    @staticmethod
    def _key(rectangle: Rectangle) -> object:
        return tuple((each.start, each.stop) for each in rectangle)

    def add_places(self, sums: CellSums, rectangle: Rectangle, usable: BoolArray, degree: int) -> None:
        """Add the usable pixels of a rectangle, and the powers of their places up to ``degree``, to the later sums.

        Planes of a cube differ in few pixels: what all pixels add is kept, and the few that are not usable are taken
        off.
        """
        shares = self.shares(rectangle)
        n_lost = usable.size - int(np.count_nonzero(usable))
        if not self._several or shares.on_plane is not None or n_lost > usable.size // _FEW_OF:
            sums.add(shares, self._place_totals(rectangle, usable, degree), first=1)
            return
        key = self._key(rectangle)
        if key not in self._places:
            self._places[key] = self._place_totals(rectangle, np.ones_like(usable), degree)
        kept = self._places[key]
        if n_lost:
            y, x = np.divmod(np.flatnonzero(~usable), usable.shape[1])
            u, v = self._positions.of_pixels(x + float(rectangle[1].start), y + float(rectangle[0].start))
            powers = powers_of(u - self.origin[1], v - self.origin[0], degree)
            lost = shares.totals_of(self.bins.shares(y, x, usable.shape), [np.ones(len(y)), *powers])
            kept = [total - less for total, less in zip(kept, lost, strict=True)]
            none = kept[0] < _ROUNDING
            for total in kept if none.any() else ():
                total[none] = 0
        sums.add(shares, kept, first=1)

    def _place_totals(self, rectangle: Rectangle, usable: BoolArray, degree: int) -> list[FloatArray]:
        """Sums over cells of the usable pixels of a rectangle, and of the powers of their places."""
        totals = self.shares(rectangle).totals
        found = [totals(self.bins.counts(usable))]
        if degree:
            y, x = (np.arange(each.start, each.stop, dtype=float) for each in rectangle)
            u, v = self._positions.at(x, y)
            u -= self.origin[1]
            v -= self.origin[0]
            for place in (u, v):
                place[~usable | np.isnan(place)] = 0
            found += [totals(self.bins.sums(power)) for power in powers_of(u, v, degree)]
        return found

    @cached_property
    def corners(self) -> FloatArray:
        """First corner of the frame and the ends of its first row and column, (3, 2), in cells."""
        ny, nx = self.shape
        ends = self._positions.at(np.array([-0.5, nx - 0.5]), np.array([-0.5, ny - 0.5]))
        return np.asarray(np.stack(ends, axis=-1)[[0, 0, 1], [0, 1, 0]], float)

    def area_maps(self, origin: tuple[int, int], cells: tuple[int, int]) -> tuple[FloatArray, FloatArray, float]:
        """Area of a pixel at each of the ``cells`` from ``origin`` on, in each block of 8 x 8, and typically."""
        if (origin, cells) not in self._area_maps:
            y, x = (o + np.arange(n) for o, n in zip(origin, cells, strict=True))
            corners = _corners_of_blocks(origin, cells)
            j, i = (np.asarray(COARSE * line[:-1] + 0.5 * (COARSE - 1), float) for line in corners)
            means, areas = self._samples.means, self._samples.areas
            area = means(areas, y, x)
            self._area_maps[origin, cells] = area, means(areas, j, i), float(np.median(area))
        return self._area_maps[origin, cells]

    def variance_map(self, sigma: Float32Array, origin: tuple[int, int], cells: tuple[int, int]) -> FloatArray:
        """Variance of a pixel at the corners of the blocks, from its noise in blocks of 64 x 64 pixels."""
        y, x = (COARSE * line for line in _corners_of_blocks(origin, cells))
        if (origin, cells) not in self._near_corners:
            self._near_corners[origin, cells] = self._samples.near(y, x)
        return self._samples.means(self._samples.of_blocks(sigma) ** 2, y, x, self._near_corners[origin, cells])

    @cached_property
    def _samples(self) -> _Samples:
        return _Samples.of_frame(self._positions, self._area, self.shape, self.origin, self._cells)


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """Samples of the frame every 16 pixels, for means of what varies slowly on a lattice 8 cells wide."""

    y: IntArray  # (ny, 1): rows of the samples
    x: IntArray  # (1, nx)
    on_plane: BoolArray  # (ny, nx): those that have a place
    areas: FloatArray  # (n,): areas of the pixels of those
    lattice: CellSums  # how many of them are near
    shares: Shares

    @classmethod
    def of_frame(
        cls,
        positions: PixelMap,
        area: FloatArray,
        shape: tuple[int, int],
        origin: tuple[int, int],
        cells: tuple[int, int],
    ) -> _Samples:
        """Samples of a frame whose cells are ``cells`` from ``origin`` on; ``area``: between the nodes of the map."""
        y, x = np.ix_(*(np.arange(min(_SAMPLE_PIX // 2, n // 2), n, _SAMPLE_PIX) for n in shape))
        u, v = positions.at(x[0].astype(float), y[:, 0].astype(float))
        rows, columns = (np.minimum(a // positions.step, n - 1) for a, n in zip((y, x), area.shape, strict=True))
        areas = area[rows, columns]
        on_plane = np.isfinite(u) & np.isfinite(v) & np.isfinite(areas)
        (j0, i0), (j1, i1) = np.array([origin, np.add(origin, cells)]) / COARSE + [[0], [1]]
        u, v = u[on_plane] / COARSE, v[on_plane] / COARSE
        first, size = window_around(np.append(u, [i0, i1]), np.append(v, [j0, j1]))
        shares, lattice = Shares.at(u, v), CellSums(first, np.zeros((1, *size)))
        lattice.add(shares, [shares.totals(np.ones(len(shares.cell)))])
        return cls(y, x, on_plane, areas[on_plane], lattice, shares)

    def of_blocks(self, sigma: Float32Array) -> FloatArray:
        """Values of blocks of 64 x 64 pixels at the samples."""
        return sigma[self.y // BLOCK_PIX, self.x // BLOCK_PIX][self.on_plane].astype(float)

    def means(
        self, values: FloatArray, y: IntArray | FloatArray, x: IntArray | FloatArray, near: FloatArray | None = None
    ) -> FloatArray:
        """Means at the cells (rows ``y``, columns ``x``), the mean of all where no sample is ``near``; else 1."""
        if not values.size:
            return np.ones((len(y), len(x)))
        near = self.near(y, x) if near is None else near
        total = CellSums(self.lattice.origin, np.zeros_like(self.lattice.sums))
        total.add(self.shares, [self.shares.totals(values)])
        fill = np.full(near.shape, float(values.mean()))
        return np.asarray(np.divide(bilinear(total.sums[0], *self._at(y, x)), near, out=fill, where=near > 0))

    def near(self, y: IntArray | FloatArray, x: IntArray | FloatArray) -> FloatArray:
        """How many samples are near cells."""
        return bilinear(self.lattice.sums[0], *self._at(y, x))

    def _at(self, y: IntArray | FloatArray, x: IntArray | FloatArray) -> tuple[FloatArray, FloatArray]:
        return y / COARSE - self.lattice.origin[0], x / COARSE - self.lattice.origin[1]


def _corners_of_blocks(origin: tuple[int, int], cells: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """Rows and columns, in blocks of 8 x 8 cells of the grid, of the corners of those that a rectangle touches."""
    y, x = (np.arange(o // COARSE, (o + n - 1) // COARSE + 2) for o, n in zip(origin, cells, strict=True))
    return y, x


def rectangles(blocks: BoolArray, shape: tuple[int, ...], most: int = 1) -> list[Rectangle]:
    """Rectangles of pixels: runs of needed blocks, and equal ones below each other up to ``most`` blocks."""
    line, edge = np.nonzero(np.diff(np.pad(blocks, ((0, 0), (1, 1)))))
    found: list[list[int]] = []
    last: dict[tuple[int, int], list[int]] = {}
    for j, *ends in zip(line[::2].tolist(), edge[::2].tolist(), edge[1::2].tolist(), strict=True):
        above = last.get((ends[0], ends[1]))
        if above is not None and above[1] == j and (j + 1 - above[0]) * (ends[1] - ends[0]) <= most:
            above[1] = j + 1
        else:
            last[ends[0], ends[1]] = [j, j + 1, *ends]
            found.append(last[ends[0], ends[1]])
    ny, nx = shape
    return [
        (slice(j0 * BLOCK_PIX, min(j1 * BLOCK_PIX, ny)), slice(i0 * BLOCK_PIX, min(i1 * BLOCK_PIX, nx)))
        for j0, j1, i0, i1 in found
    ]


def _used_nodes(blocks: BoolArray, positions: PixelMap, stride: int) -> BoolArray:
    """The nodes of a map that lie in needed blocks or so near that bins of these do."""
    used = np.zeros(positions.nodes.shape[1:], bool)
    per_block = BLOCK_PIX // positions.step
    margin = -(-stride // positions.step) + 1
    for rectangle in rectangles(blocks, tuple(n * BLOCK_PIX for n in blocks.shape), blocks.size):
        ends = ((s.start // BLOCK_PIX, s.stop // BLOCK_PIX) for s in rectangle)
        inside = (slice(max(0, a * per_block - margin), b * per_block + margin) for a, b in ends)
        used[tuple(inside)] = True
    return used
