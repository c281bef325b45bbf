"""Sums over the cells that pairs of images have in common, for all pairs of a sheet at once.

Where few images see a block, each pair of its leaves is gone through: the cost grows with the common cells. Where
many do (`deeppairs`), the images of a tile are multiplied as matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

MIDDLE = (BLOCK - 1) / 2
"""Of a block, in cells from its first one."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over common cells times u^i v^j, with the places (u, v) of the cells about a place of each sum."""

    pair: IntArray  # (r,): which of the p pairs each sum is part of
    about: FloatArray  # (r, 2): in cells
    value: FloatArray  # (r, t): for each of t powers


def pairs_of_graph(a: IntArray, b: IntArray, graph: OverlapGraph, plane: int) -> IntArray:
    """Index into the graph of the pairs of images (a, b), a < b, in a plane; -1 where there is none."""
    keys = graph.a * graph.n_images + graph.b
    wanted = a * graph.n_images + b
    pair = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = (keys[pair] == wanted) & (graph.plane[pair] == plane)
    return np.where(known, pair, -1).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class LeafPairs:
    """The pairs of images that share cells in a sheet, by pairs of the leaves of every block."""

    rows: IntArray  # (p,): indices into the graph
    sides: tuple[tuple[slice, slice], ...]  # the same blocks in one layer and in a later one
    column: IntArray  # (q,): which of the p pairs those are, end to end; p where they are none
    known: BoolArray  # (q,): where they are some
    blocks: Leaves  # (r,): blocks of these, with the leaf of their first image

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
        known = pair >= 0
        rows = np.unique(pair[known])
        blocks = leaves.part(_ends(np.arange(len(leaves)), sides, 0)[known])
        return cls(rows, sides, np.where(known, np.searchsorted(rows, pair), len(rows)), known, blocks)

    @property
    def tiles(self) -> IntArray:
        """The tiles that have such pairs."""
        return np.unique(self.blocks.tile)

    def products(self, x: Float32Array, y: Float32Array) -> FloatArray:
        """(p,) sums over the cells of ``x`` of the first image times ``y`` of the second, of (n, 64) of the leaves."""
        found = [np.einsum("bc,bc->b", x[one], y[other]) for one, other in self.sides]
        found.append(np.empty(0, x.dtype))
        return np.asarray(np.bincount(self.column, np.concatenate(found), len(self.rows) + 1)[:-1])

    def both_products(self, x: Float32Array, y: Float32Array) -> tuple[FloatArray, FloatArray]:
        """``products(x, y)`` and ``products(y, x)``."""
        return self.products(x, y), self.products(y, x)

    def in_blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """Every pair in every block that both its images see: which of the p pairs, row and column of the block."""
        return self.column[self.known], self.blocks.row, self.blocks.column

    def block_products(self, x: Float32Array, y: Float32Array) -> Float32Array:
        """As ``products``, block by block, in the order of ``in_blocks``."""
        found = [np.einsum("bc,bc->b", x[one], y[other]) for one, other in self.sides]
        return np.concatenate([np.empty(0, np.float32), *found])[self.known]

    def moments(
        self,
        x: Float32Array,
        y: Float32Array,
        powers: tuple[tuple[int, int], ...],
        both: Callable[..., Any] | None = None,
    ) -> Moments:
        """As ``products``, times powers of the places of the cells; ``both`` makes one of both products.

        A sum for every block, about its middle.
        """
        product = self._of_cells(x, y)
        if both is not None:
            both(product, self._of_cells(y, x), out=product)
        about = np.stack([self.blocks.column, self.blocks.row], axis=1).astype(np.float64) * BLOCK + MIDDLE
        value = product.astype(float) @ _powers_in_block(powers)
        return Moments(self.column[self.known], about, value[self.known])

    def _of_cells(self, x: Float32Array, y: Float32Array) -> Float32Array:
        """Products (q, 64) of the cells of all sides."""
        product, first = np.empty((len(self.column), BLOCK**2), np.float32), 0
        for one, other in self.sides:
            last = first + other.stop - other.start
            np.multiply(x[one], y[other], out=product[first:last])
            first = last
        return product

    def medians(self, value: Float32Array, seen: BoolArray) -> FloatArray:
        """(2, p): over how many cells a pair has differences, and that times their median, summed over tiles."""
        out = np.zeros((2, len(self.rows)))
        if not self.sides:
            return out
        both = np.concatenate([seen[one] & seen[other] for one, other in self.sides])
        difference = np.concatenate([value[one] - value[other] for one, other in self.sides])
        of_pair, known = self.column[self.known], np.flatnonzero(self.known)
        by_tile = self.blocks.tile * len(self.rows) + of_pair
        sorting = np.argsort(by_tile, kind="stable")
        order = known[sorting]
        some, first = difference[order][both[order]], np.flatnonzero(np.diff(by_tile[sorting], prepend=-1))
        n = np.add.reduceat(both[order].sum(axis=1), first) if len(order) else np.empty(0, np.int64)
        end = np.cumsum(n)
        for k, stop, size in zip(self.column[order[first]].tolist(), end.tolist(), n.tolist(), strict=True):
            if size:
                out[:, k] += size, size * np.partition(some[stop - size : stop], (size - 1) // 2)[(size - 1) // 2]
        return out


@cache
def _powers_in_block(powers: tuple[tuple[int, int], ...]) -> FloatArray:
    """Powers (64, t) of the places of the cells of a block, about its middle."""
    v, u = np.divmod(np.arange(BLOCK**2), BLOCK) - np.array(MIDDLE)
    return np.stack([u**i * v**j for i, j in powers], axis=1)


def _ends(of_leaf: IntArray, sides: tuple[tuple[slice, slice], ...], k: int) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *(of_leaf[side[k]] for side in sides)])
