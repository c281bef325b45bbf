"""Find where meshes share cells: blocks of the common grid, and the tiles in which images are compared.

A block is 8 x 8 cells. What several images cover of it is a *leaf* for each of them: the leaves are all that a
comparison works on, so its cost grows with the cells that images share, whatever the mosaic looks like. Tiles are
larger: in each of them the scale of disagreement is found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class TilePlace:
    """A tile: rows and columns of its squares, and the images that see some cell of it."""

    rows: range
    columns: range
    images: tuple[int, ...]

    def turned(self) -> TilePlace:
        """The place with its rows as columns."""
        return TilePlace(self.columns, self.rows, self.images)

    @property
    def n_squares(self) -> int:
        """Squares of all of its images."""
        return len(self.rows) * len(self.columns) * len(self.images)


def sheet_plans(meshes: Sequence[Sequence[Mesh | None]]) -> Iterator[SheetPlan]:
    """Plan sheets where several images may share cells, in the order of planes, rows and columns of the tiles."""
    return (plan for plane, images in enumerate(meshes) for plan in _plans_of_plane(plane, images))


def _plans_of_plane(plane: int, images: Sequence[Mesh | None]) -> Iterator[SheetPlan]:
    tiles, leaves = _shared_leaves(*_covered_blocks(images))
    ends = np.searchsorted(leaves.tile, np.arange(len(tiles)), side="right")
    starts = np.append(0, ends[:-1])
    first = 0
    for k in range(len(tiles)):
        last = k + 1 == len(tiles)
        if last or ends[k + 1] - starts[first] > _LEAVES:
            mine = leaves.part(slice(starts[first], ends[k]))
            if len(mine):
                mine = replace(mine, tile=mine.tile - first)
                yield SheetPlan(plane, mine)
            first = k + 1


def _shared_leaves(image: IntArray, row: IntArray, column: IntArray) -> tuple[list[TilePlace], Leaves]:
    """The tiles of a plane, and the leaves that images share in them, tile by tile."""
    tiles = _tiles(image, row // TILE, column // TILE) if image.size else []
    if not tiles:
        return tiles, Leaves(*np.empty((4, 0), np.int64))
    low, width = int(column.min()), int(np.ptp(column)) + 1
    _, block, count = np.unique(row * width + column - low, return_inverse=True, return_counts=True)
    tile = _tile_numbers(tiles, row // TILE, column // TILE)
    shared = (count[block] > 1) & (tile >= 0)
    order = np.flatnonzero(shared)[np.argsort(tile[shared], kind="stable")]
    return tiles, Leaves(image[order], row[order], column[order], tile[order])


def _covered_blocks(images: Sequence[Mesh | None]) -> tuple[IntArray, IntArray, IntArray]:
    """Image, row and column of every block in which an image has a cell of some weight."""
    found = []
    for i, mesh in enumerate(images):
        if mesh is not None:
            row, column = mesh.blocks()
            found.append((np.full(len(row), i), row, column))
    if not found:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    image, row, column = (np.concatenate(c) for c in zip(*found, strict=True))
    return image, row, column


def _tiles(image: IntArray, row: IntArray, column: IntArray) -> list[TilePlace]:
    """The tiles of a plane, from the images and the squares of their blocks, in the order of rows and columns."""
    n, top, left, width = int(image.max()) + 1, int(row.min()), int(column.min()), int(np.ptp(column)) + 1
    square, i = np.divmod(np.unique(((row - top) * width + column - left) * n + image), n)
    j, k = np.divmod(square, width)
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in zip((j + top).tolist(), (k + left).tolist(), i.tolist(), strict=True):
        seen[place[:2]].append(place[2])
    squares = [TilePlace(range(j, j + 1), range(i, i + 1), tuple(m)) for (j, i), m in seen.items() if len(m) > 1]
    return sorted(_joined(squares), key=lambda place: (place.rows.start, place.columns.start))


def _tile_numbers(tiles: Sequence[TilePlace], row: IntArray, column: IntArray) -> IntArray:
    """The tile of each of many squares, -1 for those in none."""
    left, width = int(column.min()), int(np.ptp(column)) + 1
    squares = [(j * width + i - left, k) for k, t in enumerate(tiles) for j in t.rows for i in t.columns]
    key, number = np.array(sorted(squares), np.int64).T
    wanted = row * width + column - left
    at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where(key[at] == wanted, number[at], -1)


def _joined(squares: Sequence[TilePlace]) -> list[TilePlace]:
    """Squares side by side, then rows of them, that the same images see, as one: more cells give a better scale."""
    rows = _side_by_side(squares)
    return [place.turned() for place in _side_by_side([place.turned() for place in rows])]


def _side_by_side(places: Sequence[TilePlace]) -> list[TilePlace]:
    """Places in the same rows that the same images see, as one where they meet and are not too large together."""
    joined: list[TilePlace] = []
    for place in sorted(places, key=lambda p: (p.images, p.rows.start, p.rows.stop, p.columns.start)):
        last = joined[-1] if joined else place
        alike = last.images == place.images and last.rows == place.rows and last.columns.stop == place.columns.start
        if alike and last.n_squares + place.n_squares <= _MOST_SQUARES:
            joined[-1] = replace(last, columns=range(last.columns.start, place.columns.stop))
        else:
            joined.append(place)
    return joined
