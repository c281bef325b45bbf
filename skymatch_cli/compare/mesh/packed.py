"""Cells of one image in a fifth of the memory: what is kept of an image, sent between processes and written to a store.

Only blocks of 8 x 8 cells that have pixels are kept. In each, values are 16-bit integers between the lowest and the
highest (an error of 1e-5 of that range, when the noise of a cell is a tenth of a pixel's), good pixels are 8-bit
fractions of the largest number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.centroids import CellCentroids
from skymatch_cli.compare.mesh.reduce import COARSE, CellMesh, between_corners
from skymatch_cli.model import IntArray

_LEVELS = 2**15 - 1  # of values on either side of the middle of a block
_COUNTS = 2**8 - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outline:
    """All of a mesh but its cells.

    Attributes
    ----------
    origin, level, noise, area, pixel_area, n_good, halvings
        See `CellMesh`.
    shape : (nj, ni)
        Of the rectangle of cells.
    row, column : (b,) int32
        Blocks of the grid in which the image has a cell of some weight, in their order.
    """

    origin: tuple[int, int]
    shape: tuple[int, int]
    level: float
    noise: float
    area: Float32Array
    pixel_area: float
    n_good: int
    halvings: int
    row: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]

    def blocks(self) -> tuple[IntArray, IntArray]:
        """Row and column of every block in which the image has a cell of some weight."""
        return self.row.astype(np.int64), self.column.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedMesh(Outline):
    """A mesh with its cells as scaled integers.

    Attributes
    ----------
    value : (b, 64) int16
        In units of ``step``, from ``middle``.
    middle, step : (b,) float32
    pixels : (b, 64) uint8
        Good pixels in units of ``most / 255``.
    most : (b,) float32
    per_pixel, centroids
        See `CellMesh`.
    """

    value: npt.NDArray[np.int16]
    middle: Float32Array
    step: Float32Array
    pixels: npt.NDArray[np.uint8]
    most: Float32Array
    per_pixel: Float32Array
    centroids: CellCentroids | None = None

    @classmethod
    def of_mesh(cls, mesh: CellMesh) -> PackedMesh:
        """Pack the cells of a mesh."""
        row, column = mesh.blocks()
        place = row - mesh.origin[0] // COARSE, column - mesh.origin[1] // COARSE
        value, pixels, seen = (_in_blocks(a, mesh.origin)[place] for a in (mesh.value, mesh.pixels, mesh.weight > 0))
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

    def unpacked(self) -> CellMesh:
        """The mesh with its cells, in the rectangle that it had."""
        seen = self.pixels > 0
        value = np.where(seen, self.middle[:, None] + self.step[:, None] * self.value, np.float32(0))
        pixels = self.pixels * (self.most / np.float32(_COUNTS))[:, None]
        value, pixels = self._rectangle(value), self._rectangle(pixels)
        return CellMesh(
            origin=self.origin,
            level=self.level,
            noise=self.noise,
            value=value,
            weight=pixels * between_corners(self.per_pixel, self.origin, self.shape),
            pixels=pixels,
            per_pixel=self.per_pixel,
            area=self.area,
            pixel_area=self.pixel_area,
            n_good=self.n_good,
            centroids=self.centroids,
            halvings=self.halvings,
        )

    def _rectangle(self, cells: Float32Array) -> Float32Array:
        (rows, down), (columns, right) = (_n_blocks(o, n) for o, n in zip(self.origin, self.shape, strict=True))
        blocks = np.zeros((rows, COARSE, columns, COARSE), np.float32)
        place = self.row - self.origin[0] // COARSE, slice(None), self.column - self.origin[1] // COARSE
        blocks[place] = cells.reshape(-1, COARSE, COARSE)
        whole = blocks.reshape(rows * COARSE, columns * COARSE)
        return whole[down : down + self.shape[0], right : right + self.shape[1]]

    def outline(self, load: Callable[[], Mesh]) -> MeshOnDisk:
        """The mesh without its cells, which are loaded when they are asked for."""
        return MeshOnDisk(**{f.name: getattr(self, f.name) for f in fields(Outline)}, load=load)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeshOnDisk(Outline):
    """A mesh whose cells are somewhere else."""

    load: Callable[[], Mesh]
    centroids: CellCentroids | None = None

    def unpacked(self) -> CellMesh:
        """The mesh with its cells."""
        return self.load().unpacked()


class Mesh(Protocol):
    """A mesh in any of its forms: with its cells, packed, or on disk; the attributes are those of `CellMesh`."""

    @property
    def origin(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def level(self) -> float: ...  # noqa: D102
    @property
    def noise(self) -> float: ...  # noqa: D102
    @property
    def area(self) -> Float32Array: ...  # noqa: D102
    @property
    def pixel_area(self) -> float: ...  # noqa: D102
    @property
    def n_good(self) -> int: ...  # noqa: D102
    @property
    def halvings(self) -> int: ...  # noqa: D102
    @property
    def centroids(self) -> CellCentroids | None: ...  # noqa: D102

    def blocks(self) -> tuple[IntArray, IntArray]:
        """Row and column of every block in which the image has a cell of some weight."""
        ...

    def unpacked(self) -> CellMesh:
        """The mesh with its cells."""
        ...


def _n_blocks(origin: int, n: int) -> tuple[int, int]:
    """Blocks that n cells from an origin touch, and cells of the first one before the origin."""
    before = origin % COARSE
    return -(-(before + n) // COARSE), before


def _in_blocks(a: npt.NDArray[Any], origin: tuple[int, int]) -> npt.NDArray[Any]:
    """Cells (nj, ni) of a rectangle as those of the blocks that it touches, (bj, bi, 64)."""
    (rows, down), (columns, right) = (_n_blocks(o, n) for o, n in zip(origin, a.shape, strict=True))
    whole = np.zeros((rows * COARSE, columns * COARSE), a.dtype)
    whole[down : down + a.shape[0], right : right + a.shape[1]] = a
    return whole.reshape(rows, COARSE, columns, COARSE).swapaxes(1, 2).reshape(rows, columns, COARSE**2)
