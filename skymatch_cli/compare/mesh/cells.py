"""Soft cells on a tangent plane: how pixels are added to them.

A cell is a window on the sky, one at its centre and falling to zero at the centres of its neighbours,
along both axes of the plane; at every position the windows add up to one. Because they have no edge,
the light of a star is shared out alike in images of different seeing, sampling and rotation.

Pixels are first added to soft bins on their own lattice, which costs a few shifted sums; the bins are
then shared out among four cells each. The windows that result are the cells' own ones, interpolated
between the centres of the bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray, TangentPlane
from skymatch_cli.sky.tangent import project

BLOCK_PIX = 64  # side of the blocks in which noise is measured and pixels are needed or not
COARSE = 8  # cells a side, for what varies slowly: noise, pixel area, background
NODE_STEP_PIX = 32  # pixel lattice on which the WCS is evaluated
_BOX_OF_BYTES = 3  # (4 * 3)**2 < 256: what a bin may count to
Float32Array = npt.NDArray[np.float32]
_Number = TypeVar("_Number", np.float32, np.float64, np.uint8)
_Float = TypeVar("_Float", np.float32, np.float64)


class TooWideError(ValueError):
    """An image is too wide for a grid on its plane."""


@dataclass(frozen=True, slots=True)
class MeshGrid:
    """The grid of cells: cell (j, i) is centred at ``(i, j) * pitch_rad`` on the plane."""

    plane: TangentPlane
    pitch_rad: float

    def halved(self, times: int) -> MeshGrid:
        """The grid whose pitch is halved so many times: it has a cell at the centre of every cell of this one."""
        return MeshGrid(self.plane, self.pitch_rad / 2**times)


@dataclass(frozen=True, slots=True, eq=False)
class PixelMap:
    """Pixels of one image to positions on the grid, in units of cells: nodes every ``step`` pixels."""

    step: int
    nodes: FloatArray  # (2, my, mx): positions (u, v) of pixels (step * i, step * j)

    @property
    def u(self) -> FloatArray:
        """Positions of the nodes along the first axis of the plane, (my, mx)."""
        return np.asarray(self.nodes[0])

    @property
    def v(self) -> FloatArray:
        """The same along the second axis."""
        return np.asarray(self.nodes[1])

    def at(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions of the pixels of a lattice of columns ``x`` and rows ``y`` (ascending): two (ny, nx)."""
        u, v = between(between(self.nodes, y / self.step, 1), x / self.step, 2)
        return u, v

    def of_pixels(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions of single pixels (n,), as those of a lattice."""
        j, i = (
            np.clip((place / self.step).astype(np.intp), 0, n - 2)
            for place, n in zip((y, x), self.nodes.shape[1:], strict=True)
        )
        down, right = y / self.step - j, x / self.step - i
        first, second = (
            self.nodes[:, j, k] + (self.nodes[:, j + 1, k] - self.nodes[:, j, k]) * down for k in (i, i + 1)
        )
        u, v = first + (second - first) * right
        return u, v

    def area(self) -> FloatArray:
        """Area of a pixel in units of cells, between the nodes, (my - 1, mx - 1)."""
        ux, uy = _slopes(self.u)
        vx, vy = _slopes(self.v)
        return np.asarray(np.abs(ux * vy - uy * vx) / self.step**2)


def between(nodes: FloatArray, position: FloatArray, axis: int) -> FloatArray:
    """Linear interpolation between nodes along one axis, at positions in ascending order."""
    low = np.floor(position).astype(np.intp)
    np.maximum(low, 0, out=low)
    np.minimum(low, nodes.shape[axis] - 2, out=low)
    share = (position - low).reshape(-1, *(1,) * (nodes.ndim - 1 - axis))
    before, after = nodes.take(low, axis), nodes.take(low + 1, axis)
    after -= before
    after *= share
    after += before
    return after


def _slopes(nodes: FloatArray) -> tuple[FloatArray, FloatArray]:
    along_x, along_y = np.diff(nodes, axis=1), np.diff(nodes, axis=0)
    return 0.5 * (along_x[1:] + along_x[:-1]), 0.5 * (along_y[:, 1:] + along_y[:, :-1])


def pixel_map(wcs: CelestialWcs, grid: MeshGrid, max_error_pix: float = 0.02) -> PixelMap:
    """Evaluate the WCS on a lattice that is fine enough to interpolate to ``max_error_pix``.

    The nodes reach beyond the frame. Where a pixel is off the plane its position is NaN.
    """
    step = NODE_STEP_PIX
    while True:
        nodes = _nodes(wcs, grid, step)
        if step <= 2 or _bend(nodes) <= max_error_pix * np.sqrt(np.nanmedian(nodes.area())):
            return nodes
        step //= 2


def _nodes(wcs: CelestialWcs, grid: MeshGrid, step: int) -> PixelMap:
    ny, nx = wcs.shape
    x, y = np.meshgrid(*(np.arange(-(-n // step) + 2, dtype=float) * step for n in (nx, ny)))
    plane = project(grid.plane, wcs.to_sky(x.ravel(), y.ravel())) / grid.pitch_rad
    return PixelMap(step, np.ascontiguousarray(plane.T).reshape(2, *x.shape))


def _bend(nodes: PixelMap) -> float:
    """Largest error of linear interpolation between the nodes, from second differences, in cells."""
    bends = [np.abs(np.diff(c, 2, axis=a)) for c in (nodes.u, nodes.v) for a in (0, 1) if c.shape[a] > 2]
    return max((float(np.nanmax(b, initial=0.0)) for b in bends if b.size), default=0.0) / 8.0 * 2.0


@dataclass(frozen=True, slots=True)
class Bins:
    """Soft bins of a lattice of pixels: box means of ``box`` pixels, then triangles two boxes wide each side.

    ``box`` = 0 stands for the pixels themselves.
    """

    box: int

    @classmethod
    def for_pitch(cls, pitch_pix: float) -> Bins:
        """Bins two to a cell, three at most: the cells' windows keep their form."""
        return cls(max(0, int(pitch_pix / 4.0 + 0.01)))

    @property
    def stride(self) -> int:
        """Pixels between the centres of bins."""
        return max(1, 2 * self.box)

    def centres(self, n_pix: int) -> FloatArray:
        """Pixel coordinates of the centres of the bins that hold ``n_pix`` pixels from 0 on."""
        if self.box == 0:
            return np.arange(n_pix, dtype=float)
        return np.arange(self._count(n_pix), dtype=np.float64) * self.stride + 0.5 * (self.box - 1)

    def _count(self, n_pix: int) -> int:
        return -(-n_pix // self.box) // 2 + 1

    def sums(self, values: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
        """Sums over the bins, (by, bx), of (ny, nx) values; every value is shared out in full."""
        if self.box == 0:
            return values
        rows = self._triangles(values, axis=0)
        return self._triangles(rows, axis=1) * values.dtype.type(0.25)

    def shares(self, y: IntArray, x: IntArray, shape: tuple[int, ...]) -> tuple[IntArray, FloatArray]:
        """Bins, as indices into all of them, that pixels (n,) of a lattice are part of, and their shares, (4, n)."""
        if self.box == 0:
            return (y * shape[1] + x)[None], np.ones((1, len(y)))
        boxes = [line // self.box for line in (y, x)]
        low = [box // 2 for box in boxes]
        high = [0.5 * (box % 2) for box in boxes]
        n = self._count(shape[1])
        # A box that is not the middle of a bin is half of the two beside it.
        number = [(low[0] + j) * n + low[1] + i for j in (0, boxes[0] % 2) for i in (0, boxes[1] % 2)]
        part = [a * b for a in (1 - high[0], high[0]) for b in (1 - high[1], high[1])]
        return np.array(number), np.array(part)

    def counts(self, flags: BoolArray) -> Float32Array:
        """Sums over the bins of True: the same as `sums` of zeros and ones, in bytes where these can hold them."""
        if not 0 < self.box <= _BOX_OF_BYTES:
            return self.sums(flags.astype(np.float32))
        rows = self._triangles(flags.view(np.uint8), axis=0)
        return np.asarray(self._triangles(rows, axis=1) * np.float32(0.25))

    def _triangles(self, values: npt.NDArray[_Number], axis: int) -> npt.NDArray[_Number]:
        """Twice the sums along one axis: box k of every pair in full, half of the boxes beside it."""
        n, box, count = values.shape[axis], self.box, self._count(values.shape[axis])
        shape = list(values.shape)
        shape[axis] = 2 * count + 1
        boxes, whole = np.empty(shape, values.dtype), n // box
        _part(boxes, axis, 0, 1)[...] = 0
        _part(boxes, axis, 1 + whole, None)[...] = 0
        lines = [_part(values, axis, k, whole * box, box) for k in range(box)]
        target = _part(boxes, axis, 1, 1 + whole)
        np.add(lines[0], lines[1] if box > 1 else 0, out=target)
        for line in lines[2:]:
            target += line
        if n % box:
            rest = _part(values, axis, whole * box, None)
            _part(boxes, axis, 1 + whole, 2 + whole)[...] = rest.sum(axis=axis, dtype=values.dtype, keepdims=True)
        out: npt.NDArray[_Number] = _part(boxes, axis, 1, None, 2) * values.dtype.type(2)
        out += _part(boxes, axis, 0, -1, 2)
        out += _part(boxes, axis, 2, None, 2)
        return out


def _part(a: npt.NDArray[_Number], axis: int, start: int, stop: int | None, step: int = 1) -> npt.NDArray[_Number]:
    return a[(slice(None),) * axis + (slice(start, stop, step),)]


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How values at n positions are shared out among the four cells around each."""

    first: tuple[int, int]  # (j, i): the lowest cell of the rectangle of cells that get something
    shape: tuple[int, int]  # (nj, ni) of this rectangle
    on_plane: BoolArray | None  # (m,): which of m positions these are; None for all
    cell: npt.NDArray[np.intp]  # (n,): number in the rectangle of the first of the four cells
    parts: FloatArray  # (4, n): shares of that cell, of the next in its row, and of those two of the next row

    @classmethod
    def at(cls, u: FloatArray, v: FloatArray) -> Shares:
        """Positions in cells; NaN where there is none."""
        u, v, on_plane = u.reshape(-1), v.reshape(-1), None
        if not np.isfinite(ends := _ends(u, v)).all():
            on_plane = np.isfinite(u + v)
            u, v = u[on_plane], v[on_plane]
            ends = _ends(u, v)
        (j0, j1), (i0, i1) = np.floor(ends).astype(int).tolist()
        shape = (j1 - j0 + 2, i1 - i0 + 2)
        parts = np.empty((4, u.size))
        neither, along, down, both = parts
        i, j = np.floor(u, out=neither), np.floor(v, out=both)  # in place: fresh memory costs more than arithmetic
        np.subtract(u, i, out=along)
        np.subtract(v, j, out=down)
        j *= shape[1]
        j += i
        j -= j0 * shape[1] + i0
        cell = j.astype(np.intp)
        np.multiply(along, down, out=both)
        along -= both
        down -= both
        np.subtract(1.0, along, out=neither)
        neither -= down
        neither -= both
        return cls((j0, i0), shape, on_plane, cell, parts)

    def totals(self, value: Float32Array | FloatArray) -> FloatArray:
        """Sums over the cells of the rectangle of the values at the m positions."""
        value, width = value.reshape(-1), self.shape[1]
        value = (value if self.on_plane is None else value[self.on_plane]).astype(np.float64, copy=False)
        total, weights = np.zeros(self.shape[0] * width), np.empty(self.cell.size)
        for part, step in zip(self.parts, (0, 1, width, width + 1), strict=True):
            np.multiply(part, value, out=weights)
            found = np.bincount(self.cell, weights)
            total[step : step + len(found)] += found
        return total.reshape(self.shape)

    def totals_of(self, of_bins: tuple[IntArray, FloatArray], values: Sequence[FloatArray]) -> list[FloatArray]:
        """The same of single values (n,), with the positions and shares ``of_bins``, if all are on the plane."""
        number, part = of_bins
        width, size = self.shape[1], self.shape[0] * self.shape[1]
        cell = self.cell[number] + np.array([0, 1, width, width + 1])[:, None, None]
        cell, weight = cell.reshape(-1), self.parts[:, number] * part
        found = (np.bincount(cell, (weight * value).reshape(-1), size) for value in values)
        return [each.astype(float, copy=False).reshape(self.shape) for each in found]


def _ends(u: FloatArray, v: FloatArray) -> FloatArray:
    """Least and largest of v, then of u, (2, 2); NaN where one is, zeros where there are none."""
    return np.array([[c.min(), c.max()] for c in (v, u)]) if u.size else np.zeros((2, 2))


@dataclass(frozen=True, slots=True, eq=False)
class CellSums:
    """Sums over cells in a rectangle of the grid; filled by `add`."""

    origin: tuple[int, int]  # (j0, i0): cell of the first element
    sums: FloatArray  # (k, nj, ni)

    def add(self, shares: Shares, totals: Sequence[FloatArray], first: int = 0) -> None:
        """Add totals over the rectangle of some shares to the sums from the ``first`` on."""
        rows, columns = (
            slice(low - o, low - o + n) for low, o, n in zip(shares.first, self.origin, shares.shape, strict=True)
        )
        for k, total in enumerate(totals, first):
            self.sums[k, rows, columns] += total


def window_around(u: FloatArray, v: FloatArray, most: int = 2**26) -> tuple[tuple[int, int], tuple[int, int]]:
    """First cell and shape of a rectangle of all cells that touch the positions; TooWideError beyond ``most`` cells."""
    if not np.isfinite(u + v).any():  # no pixel is on the plane: an empty window
        u, v = np.zeros(1), np.zeros(1)
    i0, j0 = int(np.floor(np.nanmin(u))) - 1, int(np.floor(np.nanmin(v))) - 1
    i1, j1 = int(np.ceil(np.nanmax(u))) + 2, int(np.ceil(np.nanmax(v))) + 2
    if (i1 - i0) * (j1 - j0) > most:
        raise TooWideError
    return (j0, i0), (j1 - j0, i1 - i0)


def bilinear(nodes: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
    """Values between the nodes of a lattice, on a lattice of rows ``y`` and columns ``x``."""
    return between(between(nodes, y, 0), x, 1)
