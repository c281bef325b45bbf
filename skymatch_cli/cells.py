"""Soft cells on a tangent plane: how pixels are added to them.

A cell is a window on the sky, one at its centre and falling to zero at the centres of its neighbours,
along both axes of the plane; at every position the windows add up to one. Because they have no edge,
the light of a star is shared out alike in images of different seeing, sampling and rotation.

Pixels are first added to soft bins on their own lattice, which costs a few shifted sums; the bins are
then shared out among four cells each. The windows that result are the cells' own ones, interpolated
between the centres of the bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import CelestialWcs, FloatArray, TangentPlane
from skymatch_cli.plane import project

NODE_STEP_PIX = 32  # pixel lattice on which the WCS is evaluated
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MeshGrid:
    """The grid of cells: cell (j, i) is centred at ``(i, j) * pitch_rad`` on the plane."""

    plane: TangentPlane
    pitch_rad: float


@dataclass(frozen=True, slots=True, eq=False)
class PixelMap:
    """Pixels of one image to positions on the grid, in units of cells: nodes every ``step`` pixels.

    Attributes
    ----------
    step : int
    u, v : (my, mx) float64
        Position of pixel (step * i, step * j).
    """

    step: int
    u: FloatArray
    v: FloatArray

    def at(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions of the pixels of a lattice of columns ``x`` (sorted) and rows ``y``: two (ny, nx)."""
        return self._interpolated(self.u, x, y), self._interpolated(self.v, x, y)

    def _interpolated(self, nodes: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
        rows, in_rows = _split(y / self.step, nodes.shape[0])
        lines = nodes[rows] * (1.0 - in_rows)[:, None] + nodes[rows + 1] * in_rows[:, None]
        columns, in_columns = _split(x / self.step, nodes.shape[1])
        slopes = np.diff(lines, axis=1)
        out: FloatArray = np.take(slopes, columns, axis=1)
        out *= in_columns
        out += np.take(lines, columns, axis=1)
        return out

    def area(self) -> FloatArray:
        """Area of a pixel in units of cells, between the nodes, (my - 1, mx - 1)."""
        ux, uy = _slopes(self.u)
        vx, vy = _slopes(self.v)
        return np.asarray(np.abs(ux * vy - uy * vx) / self.step**2)


def _split(position: FloatArray, n: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    index = np.clip(np.floor(position).astype(np.int64), 0, n - 2)
    return index, position - index


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
    u, v = (plane[:, k].reshape(x.shape) for k in (0, 1))
    return PixelMap(step, u, v)


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

    def sums(self, values: Float32Array) -> Float32Array:
        """Sums over the bins, (by, bx), of (ny, nx) values; every value is shared out in full."""
        if self.box == 0:
            return values
        return self._along_columns(self._along_columns(values).T).T

    def _along_columns(self, values: Float32Array) -> Float32Array:
        n = values.shape[0]
        count = self._count(n)
        boxes = np.zeros((2 * count + 1, values.shape[1]), np.float32)  # box k is row k + 1
        whole = n // self.box
        inner = boxes[1 : whole + 1]
        for k in range(self.box):
            inner += values[k : whole * self.box : self.box]
        if whole * self.box < n:
            boxes[whole + 1] = values[whole * self.box :].sum(axis=0)
        out = boxes[0:-1:2] + boxes[2::2]
        out *= np.float32(0.5)
        out += boxes[1::2]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class CellSums:
    """Sums over cells in a window of the grid; filled by `add`.

    Attributes
    ----------
    origin : (j0, i0)
        Cell of the first element.
    sums : (k, nj, ni) float64
    """

    origin: tuple[int, int]
    sums: FloatArray

    @classmethod
    def around(cls, u: FloatArray, v: FloatArray, k: int) -> CellSums:
        """Room for ``k`` sums over all cells that touch the positions (cells)."""
        i0, j0 = int(np.floor(np.nanmin(u))) - 1, int(np.floor(np.nanmin(v))) - 1
        i1, j1 = int(np.ceil(np.nanmax(u))) + 2, int(np.ceil(np.nanmax(v))) + 2
        return cls((j0, i0), np.zeros((k, j1 - j0, i1 - i0)))

    def add(self, u: FloatArray, v: FloatArray, values: tuple[Float32Array | FloatArray, ...]) -> None:
        """Share values at positions (u, v) out among the four cells around each."""
        i, j = np.floor(u), np.floor(v)
        i_low, j_low = int(i.min()), int(j.min())
        width, height = int(i.max()) - i_low + 2, int(j.max()) - j_low + 2
        in_u, in_v = u - i, v - j
        cell = ((j - j_low) * width + (i - i_low)).astype(np.intp).ravel()
        window = self.sums[:, j_low - self.origin[0] :, i_low - self.origin[1] :][:, :height, :width]
        upper_right = in_u * in_v
        shares = (1.0 - in_u - in_v + upper_right, in_u - upper_right, in_v - upper_right, upper_right)
        for share, shift in zip(shares, (0, 1, width, width + 1), strict=True):
            for k, value in enumerate(values):
                weights = (share * value).ravel()
                size = height * width - shift
                flat = np.zeros(height * width)
                flat[shift:] = np.bincount(cell, weights, minlength=size)[:size]
                window[k] += flat.reshape(height, width)
