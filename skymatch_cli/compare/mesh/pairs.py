"""Sums over the cells that pairs of images have in common, for all pairs of a sheet at once.

Where few images see a block, each pair of its leaves is gone through: the cost grows with the common cells. Where
many do, the images of a tile are multiplied as matrices: far less than one by one for the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves, SheetPlan
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_START_DIFFERENCES = 65536  # of cells, in all pairs of a tile: enough for the starting offsets


class Pairs(Protocol):
    """The pairs of images that share cells in a sheet."""

    @property
    def rows(self) -> IntArray:
        """(p,) int64, the pairs: indices into the graph."""
        ...

    @property
    def tiles(self) -> IntArray:
        """The tiles that have such pairs."""
        ...

    def products(self, x: Float32Array, y: Float32Array) -> FloatArray:
        """(p,) sums over the cells of ``x`` of the first image times ``y`` of the second, of (n, 64) of the leaves."""
        ...

    def both_products(self, x: Float32Array, y: Float32Array) -> tuple[FloatArray, FloatArray]:
        """``products(x, y)`` and ``products(y, x)``."""
        ...

    def in_blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """Every pair in every block that both its images see: which of the p pairs, row and column of the block."""
        ...

    def block_products(self, x: Float32Array, y: Float32Array) -> Float32Array:
        """As ``products``, block by block, in the order of ``in_blocks``."""
        ...

    def medians(self, value: Float32Array, seen: BoolArray) -> FloatArray:
        """(2, p): over how many cells a pair has differences, and that times their median, summed over tiles.

        Some cells stand in for all where there are very many.
        """
        ...


def pairs_of_graph(a: IntArray, b: IntArray, graph: OverlapGraph, plane: int) -> IntArray:
    """Index into the graph of the pairs of images (a, b), a < b, in a plane; -1 where there is none."""
    keys = graph.a * graph.n_images + graph.b
    wanted = a * graph.n_images + b
    pair = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = (keys[pair] == wanted) & (graph.plane[pair] == plane)
    return np.where(known, pair, -1).astype(np.int64)


def pairs_of(plan: SheetPlan, leaves: Leaves, layers: Layers, graph: OverlapGraph) -> Pairs:
    """The pairs of a sheet, whose leaves are in the order of its layers."""
    return (DeepPairs if plan.deep else LeafPairs).among(leaves, layers, graph, plan.plane)


@dataclass(frozen=True, slots=True, eq=False)
class LeafPairs:
    """Pairs of the leaves of every block.

    Attributes
    ----------
    rows : (p,) int64
    sides : tuple of (slice, slice)
        The same blocks in one layer and in a later one.
    column : (q,) int64
        Which of the p pairs those are, end to end; p where they are none.
    leaves : Leaves
    """

    rows: IntArray
    sides: tuple[tuple[slice, slice], ...]
    column: IntArray
    leaves: Leaves

    @classmethod
    def among(cls, leaves: Leaves, layers: Layers, graph: OverlapGraph, plane: int) -> LeafPairs:
        """Pairs of the graph."""
        each = list(layers.slices())
        sides = tuple(
            (slice(one.start, one.start + other.stop - other.start), other)
            for k, other in enumerate(each)
            for one in each[:k]
        )
        a, b = (_ends(leaves.image, sides, k) for k in (0, 1))
        pair = pairs_of_graph(a, b, graph, plane)
        rows = np.unique(pair[pair >= 0])
        return cls(rows, sides, np.where(pair >= 0, np.searchsorted(rows, pair), len(rows)), leaves)

    @property
    def tiles(self) -> IntArray:
        """See `Pairs`."""
        return np.unique(_ends(self.leaves.tile, self.sides, 0)[self.column < len(self.rows)])

    def products(self, x: Float32Array, y: Float32Array) -> FloatArray:
        """See `Pairs`."""
        found = [np.einsum("bc,bc->b", x[one], y[other]) for one, other in self.sides]
        found.append(np.empty(0, x.dtype))
        return np.asarray(np.bincount(self.column, np.concatenate(found), len(self.rows) + 1)[:-1])

    def both_products(self, x: Float32Array, y: Float32Array) -> tuple[FloatArray, FloatArray]:
        """See `Pairs`."""
        return self.products(x, y), self.products(y, x)

    def in_blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """See `Pairs`."""
        known = self.column < len(self.rows)
        row, column = (_ends(line, self.sides, 0)[known] for line in (self.leaves.row, self.leaves.column))
        return self.column[known], row, column

    def block_products(self, x: Float32Array, y: Float32Array) -> Float32Array:
        """See `Pairs`."""
        found = [np.einsum("bc,bc->b", x[one], y[other]) for one, other in self.sides]
        return np.concatenate([np.empty(0, np.float32), *found])[self.column < len(self.rows)]

    def medians(self, value: Float32Array, seen: BoolArray) -> FloatArray:
        """See `Pairs`."""
        out = np.zeros((2, len(self.rows)))
        if not self.sides:
            return out
        both = np.concatenate([seen[one] & seen[other] for one, other in self.sides])
        difference = np.concatenate([value[one] - value[other] for one, other in self.sides])
        by_tile = _ends(self.leaves.tile, self.sides, 0) * (len(self.rows) + 1) + self.column
        order = np.argsort(by_tile, kind="stable")
        order = order[self.column[order] < len(self.rows)]
        some, first = difference[order][both[order]], np.flatnonzero(np.diff(by_tile[order], prepend=-1))
        n = np.add.reduceat(both[order].sum(axis=1), first) if len(order) else np.empty(0, np.int64)
        end = np.cumsum(n)
        for k, stop, size in zip(self.column[order[first]].tolist(), end.tolist(), n.tolist(), strict=True):
            if size:
                out[:, k] += size, size * np.partition(some[stop - size : stop], (size - 1) // 2)[(size - 1) // 2]
        return out


def _ends(of_leaf: IntArray, sides: tuple[tuple[slice, slice], ...], k: int) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *(of_leaf[side[k]] for side in sides)])


@dataclass(frozen=True, slots=True, eq=False)
class DeepPairs:
    """Pairs of the k images of a sheet.

    Attributes
    ----------
    rows : (p,) int64
    first, second : (p,) int64
        Their images, among the k.
    leaf : (k, m) int64
        The leaf of every image in every block, n where it has none.
    place : (m * 64,) int64
        Where the cells of the blocks are in the order of the tiles, and of rows and columns in each.
    row, column, tile : (m,) int64
        Of the blocks.
    n_leaves : int
        n.
    """

    rows: IntArray
    first: IntArray
    second: IntArray
    leaf: IntArray
    place: IntArray
    row: IntArray
    column: IntArray
    tile: IntArray
    n_leaves: int

    @classmethod
    def among(cls, leaves: Leaves, layers: Layers, graph: OverlapGraph, plane: int) -> DeepPairs:
        """Pairs of the graph."""
        ids = np.unique(leaves.image)
        one, other = np.triu_indices(len(ids), 1)
        pair = pairs_of_graph(ids[one], ids[other], graph, plane)
        known = pair >= 0
        leaf = np.full((len(ids), layers.sizes[0]), len(leaves), np.int64)
        block = np.concatenate([np.arange(size) for size in layers.sizes])
        leaf[np.searchsorted(ids, leaves.image), block] = np.arange(len(leaves))
        row, column, tile = (line[: layers.sizes[0]] for line in (leaves.row, leaves.column, leaves.tile))
        j, i = (
            line[:, None] * BLOCK + within
            for line, within in zip((row, column), np.divmod(np.arange(BLOCK**2), BLOCK), strict=True)
        )
        place = np.lexsort((i.reshape(-1), j.reshape(-1), np.repeat(tile, BLOCK**2)))
        return cls(pair[known], one[known], other[known], leaf, place, row, column, tile, len(leaves))

    @property
    def tiles(self) -> IntArray:
        """See `Pairs`."""
        return np.unique(self.tile[self._seen().any(axis=1)])

    def products(self, x: Float32Array, y: Float32Array) -> FloatArray:
        """See `Pairs`."""
        return self.both_products(x, y)[0]

    def both_products(self, x: Float32Array, y: Float32Array) -> tuple[FloatArray, FloatArray]:
        """See `Pairs`."""
        of_all = (self._of_images(x) @ self._of_images(y).T).astype(float)
        return of_all[self.first, self.second], of_all[self.second, self.first]

    def in_blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """See `Pairs`."""
        block, pair = np.nonzero(self._seen())
        return pair, self.row[block], self.column[block]

    def block_products(self, x: Float32Array, y: Float32Array) -> Float32Array:
        """See `Pairs`."""
        shape = len(self.leaf), len(self.row), BLOCK**2
        first, second = (self._of_images(a).reshape(shape).swapaxes(0, 1) for a in (x, y))
        of_all = first @ second.swapaxes(1, 2)
        return np.asarray(of_all[:, self.first, self.second][self._seen()])

    def _seen(self) -> BoolArray:
        """Whether both images of a pair see a block, (m, p)."""
        there = self.leaf < self.n_leaves
        return np.asarray(there[self.first] & there[self.second]).T

    def _of_images(self, a: Float32Array) -> Float32Array:
        """Values (k, m * 64) of the images, 0 where they have no leaf."""
        padded = np.concatenate([a, np.zeros_like(a[:1])])
        return padded[self.leaf].reshape(len(self.leaf), -1)

    def medians(self, value: Float32Array, seen: BoolArray) -> FloatArray:
        """See `Pairs`."""
        each = self._of_images(np.where(seen, value, np.float32(np.nan)))
        known = self._of_images(seen.astype(np.float32)) > 0
        each[~known] = np.nan
        shared = self.place[np.count_nonzero(known, axis=0)[self.place] > 1]
        of_tile = self.tile[shared // BLOCK**2]
        out = np.zeros((2, len(self.rows)))
        for tile in np.unique(of_tile).tolist():
            there = np.any(self.leaf[:, self.tile == tile] < self.n_leaves, axis=1)
            pairs = np.flatnonzero(there[self.first] & there[self.second])
            cells = shared[of_tile == tile]
            some = each[:, cells[:: max(1, len(cells) * len(pairs) // _START_DIFFERENCES)]]
            differences = np.sort(some[self.first[pairs]] - some[self.second[pairs]], axis=1)  # NaN last
            n = np.isfinite(differences).sum(axis=1)
            median = np.take_along_axis(differences, np.maximum(n - 1, 0)[:, None] // 2, 1)[:, 0]
            out[:, pairs] += n, np.where(n > 0, median * n, 0.0)
        return out
