"""Find where meshes share cells: blocks of the common grid, and the tiles in which images are compared.

A block is 8 x 8 cells. What several images cover of it is a *leaf* for each of them: the leaves are all that a
comparison works on, so its cost grows with the cells that images share, whatever the mosaic looks like. Tiles are
larger: windows of cells do not reach from one into the next, so any of them make a sheet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.model import BoolArray, IntArray

BLOCK = 8
"""Cells a side of a block; sums over blocks have the scatter that gives the noise."""

MIDDLE = (BLOCK - 1) / 2
"""Of a block, in cells from its first one."""

TILE = 8
"""Blocks a side of a square; a tile is a square, or several of them."""

_ROUNDINGS = 32.0  # of single precision, by which differences of levels may err: small in the mean of a window too
_MOST_SQUARES = 8  # of all images of a tile
Square = tuple[range, range, tuple[int, ...]]
"""Rows and columns of squares that are one tile, and the images that see some cell there."""
_LEAVES = 1536  # of the tiles of a sheet: many for the cost of a call, few beside the cache


def run_noise(meshes: Sequence[Sequence[Mesh | None]]) -> tuple[float, float]:
    """Unit of values, the median of the images' pixel noise; and the noise that rounding has at least."""
    each = [(m.noise, abs(m.level)) for plane in meshes for m in plane if m is not None] or [(1.0, 0.0)]
    noise, level = np.array(each).T
    least = float(_ROUNDINGS * np.finfo(np.float32).eps * level.max())
    return max(float(np.median(noise)), least), least


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Blocks of images, one by one."""

    image: IntArray  # (n,)
    row: IntArray  # (n,): of the block, on the grid of blocks
    column: IntArray  # (n,)
    tile: IntArray  # (n,): number of the tile

    def __len__(self) -> int:
        return len(self.image)

    def part(self, which: IntArray | BoolArray | slice) -> Leaves:
        """These of the leaves."""
        return Leaves(self.image[which], self.row[which], self.column[which], self.tile[which])


@dataclass(frozen=True, slots=True, eq=False)
class SheetPlan:
    """Leaves of the tiles of a plane that are worked on together."""

    plane: int
    leaves: Leaves


def sheet_plans(meshes: Sequence[Sequence[Mesh | None]]) -> Iterator[SheetPlan]:
    """Plan sheets where several images may share cells, in the order of planes, rows and columns of the tiles."""
    for plane, images in enumerate(meshes):
        leaves, first = _shared_leaves(images), 0
        ends = np.flatnonzero(np.diff(leaves.tile, append=-1)) + 1
        while first < len(leaves):
            fit, least = np.searchsorted(ends, [first + _LEAVES, first], side="right")
            last = int(ends[max(fit - 1, least)])
            mine = leaves.part(slice(first, last))
            yield SheetPlan(plane, replace(mine, tile=mine.tile - mine.tile[0]))
            first = last


def _shared_leaves(images: Sequence[Mesh | None]) -> Leaves:
    """The leaves of blocks in which several images of a plane have a cell of some weight, tile by tile."""
    covered = [(i, *mesh.blocks()) for i, mesh in enumerate(images) if mesh is not None]
    if not covered:
        return Leaves(*np.empty((4, 0), np.int64))
    image = np.repeat([i for i, _, _ in covered], [len(row) for _, row, _ in covered])
    row, column = (np.concatenate([each[k] for each in covered]) for k in (1, 2))
    _, block, count = np.unique(_number(row, column), return_inverse=True, return_counts=True)
    tile, shared = _tile_numbers(image, row // TILE, column // TILE), count[block] > 1
    order = np.flatnonzero(shared)[np.argsort(tile[shared], kind="stable")]
    return Leaves(image[order], row[order], column[order], tile[order])


def _number(row: IntArray, column: IntArray) -> IntArray:
    """A number for every place, by rows and then by columns."""
    return (row << 32) + column


def _tile_numbers(image: IntArray, row: IntArray, column: IntArray) -> IntArray:
    """The tile of each of many squares of images, in the order of rows and columns; -1 where one image sees it alone.

    Squares side by side that the same images see are one tile, then rows of them: windows reach farther.
    """
    _, first, square = np.unique(_number(row, column), return_index=True, return_inverse=True)
    n = int(image.max(initial=0)) + 1
    places = list(zip(row[first].tolist(), column[first].tolist(), strict=True))
    images: list[list[int]] = [[] for _ in places]
    for k, i in zip(*map(np.ndarray.tolist, np.divmod(np.unique(square * n + image), n)), strict=True):
        images[k].append(i)
    squares = [
        (range(j, j + 1), range(i, i + 1), tuple(m)) for (j, i), m in zip(places, images, strict=True) if len(m) > 1
    ]
    turned = [(columns, rows, mine) for rows, columns, mine in _side_by_side(squares)]
    tiles = sorted((rows.start, columns.start, rows, columns) for columns, rows, _ in _side_by_side(turned))
    number = {place: k for k, (*_, rows, columns) in enumerate(tiles) for place in product(rows, columns)}
    return np.array([number.get(place, -1) for place in places], np.int64)[square]


def _side_by_side(places: Iterable[Square]) -> list[Square]:
    """Places in the same rows that the same images see, as one where they meet and are not too large together."""
    joined: list[Square] = []
    for rows, columns, images in sorted(places, key=lambda p: (p[2], p[0].start, p[0].stop, p[1].start)):
        before = joined[-1] if joined else (rows, columns, ())
        together = range(before[1].start, columns.stop)
        alike = before[2] == images and before[0] == rows and before[1].stop == columns.start
        if alike and len(rows) * len(together) * len(images) <= _MOST_SQUARES:
            joined[-1] = rows, together, images
        else:
            joined.append((rows, columns, images))
    return joined
