"""Store the cells of one image as scaled integers: in memory, between processes and on disk.

Only blocks of 8 x 8 cells that have pixels are kept. In each, values are 16-bit integers between the lowest and the
highest (an error of 1e-5 of that range, when the noise of a cell is a tenth of a pixel's), good pixels are 8-bit
fractions of the largest number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import COARSE, Float32Array
from skymatch_cli.compare.mesh.reduce import CellCentroids, CellMesh
from skymatch_cli.model import FloatArray, IntArray

_LEVELS = 2**15 - 1  # of values on either side of the middle of a block
_COUNTS = 2**8 - 1
_STEP = np.arange(COARSE) / COARSE
_SHARES = np.stack([np.multiply.outer(v, u).reshape(-1) for v in (1 - _STEP, _STEP) for u in (1 - _STEP, _STEP)])
_SHARES = _SHARES.astype(np.float32)  # of the corners of a block in its cells, (4, 64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outline:
    """All of a mesh but its cells."""

    origin: tuple[int, int]  # see `CellMesh`
    shape: tuple[int, int]  # (nj, ni): of the rectangle of cells
    level: float
    noise: float
    area: Float32Array
    pixel_area: float
    corners: FloatArray
    n_good: int
    halvings: int
    row: npt.NDArray[np.int32]  # (b,): blocks of the grid in which the image has a cell of some weight, in their order
    column: npt.NDArray[np.int32]  # (b,)

    def blocks(self) -> tuple[IntArray, IntArray]:
        """Row and column of every block in which the image has a cell of some weight."""
        return self.row.astype(np.int64), self.column.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedMesh(Outline):
    """A mesh with its cells as scaled integers."""

    value: npt.NDArray[np.int16]  # (b, 64): in units of ``step``, from ``middle``
    middle: Float32Array  # (b,)
    step: Float32Array  # (b,)
    pixels: npt.NDArray[np.uint8]  # (b, 64): good pixels in units of ``most / 255``
    most: Float32Array  # (b,)
    per_pixel: Float32Array  # see `CellMesh`
    centroids: CellCentroids | None = None

    @classmethod
    def of_mesh(cls, mesh: CellMesh) -> PackedMesh:
        """Pack the cells of a mesh."""
        row, column = mesh.blocks()
        value, weight, pixels = mesh.cells(row, column)
        seen = weight > 0
        low = np.where(seen, value, np.inf).min(axis=1).astype(np.float64)
        high = np.where(seen, value, -np.inf).max(axis=1).astype(np.float64)
        middle, step = (0.5 * (low + high)).astype(np.float32), ((high - low) / (2 * _LEVELS)).astype(np.float32)
        from_middle = np.where(seen, value.astype(float) - middle[:, None], 0.0)
        levels = np.rint(from_middle / np.where(step > 0, step, 1)[:, None])
        most = np.where(seen, pixels, 0).max(axis=1)
        counts = np.maximum(np.rint(pixels * (_COUNTS / most[:, None])), 1)
        return cls(
            **{f.name: getattr(mesh, f.name) for f in fields(Outline) if f.name not in {"row", "column"}},
            row=row.astype(np.int32),
            column=column.astype(np.int32),
            value=np.clip(levels, -_LEVELS, _LEVELS).astype(np.int16),
            middle=middle,
            step=step,
            pixels=np.where(seen, counts, 0).astype(np.uint8),
            most=most.astype(np.float32),
            per_pixel=mesh.per_pixel,
            centroids=mesh.centroids,
        )

    def cells(self, row: IntArray, column: IntArray) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Value, weight and good pixels of the cells of k blocks, (k, 64) each; 0 where there is no pixel."""
        n_rows, n_columns = self.area.shape
        j, i = row - self.origin[0] // COARSE, column - self.origin[1] // COARSE
        number = np.full((n_rows + 2, n_columns + 2), len(self.row), np.int64)  # with a margin for what is outside
        number[self.row - self.origin[0] // COARSE + 1, self.column - self.origin[1] // COARSE + 1] = np.arange(
            len(self.row)
        )
        block = number[np.clip(j, -1, n_rows) + 1, np.clip(i, -1, n_columns) + 1]
        mine = np.flatnonzero(block < len(self.row))
        block, corners = block[mine], self.per_pixel[j[mine, None] + [0, 0, 1, 1], i[mine, None] + [0, 1, 0, 1]]
        value, weight, pixels = np.zeros((3, len(row), COARSE**2), np.float32)
        counts = self.pixels[block]
        pixels[mine] = counts * (self.most[block] / np.float32(_COUNTS))[:, None]
        weight[mine] = pixels[mine] * (corners @ _SHARES)
        levels = self.middle[block, None] + self.step[block, None] * self.value[block]
        value[mine] = np.where(counts > 0, levels, np.float32(0))
        return value, weight, pixels

    def outline(self, load: Callable[[], Mesh]) -> MeshOnDisk:
        """The mesh without its cells, which are loaded when they are asked for."""
        own = {f.name: getattr(self, f.name) for f in fields(Outline)}
        # Arrays from a store are views of all that was read with them.
        own |= {name: own[name].copy() for name in ("area", "corners", "row", "column")}
        return MeshOnDisk(**own, load=load)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeshOnDisk(Outline):
    """A mesh whose cells are read from a store when they are needed."""

    load: Callable[[], Mesh]

    @property
    def centroids(self) -> CellCentroids | None:
        """Return the places of the pixels, or None."""
        return self.load().centroids

    def cells(self, row: IntArray, column: IntArray) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Value, weight and good pixels of the cells of k blocks, (k, 64) each."""
        return self.load().cells(row, column)


Mesh = CellMesh | PackedMesh | MeshOnDisk
"""A mesh in any of its forms: with its cells, packed, or on disk."""
