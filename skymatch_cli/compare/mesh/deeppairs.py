"""Sums over the cells that pairs of many images have in common: products of matrices, for all pairs of a tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.pairs import Moments, pairs_of_graph
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph

_START_DIFFERENCES = 65536  # of cells, in all pairs of a tile: enough for the starting offsets


@dataclass(frozen=True, slots=True, eq=False)
class DeepPairs:
    """Pairs of the k images of a sheet."""

    rows: IntArray  # (p,)
    first: IntArray  # (p,): their images, among the k
    second: IntArray  # (p,)
    leaf: IntArray  # (k, m): the leaf of every image in every block, n where it has none
    # (m * 64,): where the cells of the blocks are in the order of the tiles, and of rows and columns in each
    place: IntArray
    row: IntArray  # (m,): of the blocks
    column: IntArray  # (m,)
    tile: IntArray  # (m,)
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
        """See `LeafPairs`."""
        return np.unique(self.tile[self._seen().any(axis=1)])

    def products(self, x: Float32Array, y: Float32Array) -> FloatArray:
        """See `LeafPairs`."""
        return self.both_products(x, y)[0]

    def both_products(self, x: Float32Array, y: Float32Array) -> tuple[FloatArray, FloatArray]:
        """See `LeafPairs`."""
        of_all = (self._of_images(x) @ self._of_images(y).T).astype(float)
        return of_all[self.first, self.second], of_all[self.second, self.first]

    def in_blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """See `LeafPairs`."""
        block, pair = np.nonzero(self._seen())
        return pair, self.row[block], self.column[block]

    def block_products(self, x: Float32Array, y: Float32Array) -> Float32Array:
        """See `LeafPairs`."""
        shape = len(self.leaf), len(self.row), BLOCK**2
        first, second = (self._of_images(a).reshape(shape).swapaxes(0, 1) for a in (x, y))
        of_all = first @ second.swapaxes(1, 2)
        return np.asarray(of_all[:, self.first, self.second][self._seen()])

    def moments(
        self,
        x: Float32Array,
        y: Float32Array,
        powers: tuple[tuple[int, int], ...],
        both: Callable[..., Any] | None = None,
    ) -> Moments:
        """See `LeafPairs`; a sum for every pair in every tile, about the middle of the tile."""
        exact = np.float64 if max(map(sum, powers)) > 2 else np.float32  # sixth powers need more digits
        shape = len(self.leaf), len(self.row), BLOCK**2
        first, second = (self._of_images(a).astype(exact, copy=False).reshape(shape) for a in (x, y))
        j, i = np.divmod(np.arange(BLOCK**2), BLOCK)
        seen, found = self._seen(), []
        for tile in np.unique(self.tile).tolist():
            mine = np.flatnonzero(self.tile == tile)
            v, u = (BLOCK * line[mine, None] + within for line, within in ((self.row, j), (self.column, i)))
            about = np.array([0.5 * (c.min() + c.max()) for c in (u, v)])
            u, v = ((c - middle).astype(exact) for c, middle in zip((u, v), about, strict=True))
            pairs = np.flatnonzero(seen[mine].any(axis=0))
            value = np.empty((len(pairs), len(powers)))
            one, other = first[:, mine], second[:, mine].reshape(len(self.leaf), -1).T
            for k, (a, b) in enumerate(powers):
                of_all = (one * (u**a * v**b)).reshape(len(self.leaf), -1) @ other
                value[:, k] = of_all[self.first[pairs], self.second[pairs]]
                if both is not None:
                    value[:, k] = both(value[:, k], of_all[self.second[pairs], self.first[pairs]])
            found.append(Moments(pairs, np.tile(about, (len(pairs), 1)), value))
        return Moments(*(np.concatenate([getattr(f, name) for f in found]) for name in Moments.__slots__))

    def _seen(self) -> BoolArray:
        """Whether both images of a pair see a block, (m, p)."""
        there = self.leaf < self.n_leaves
        return np.asarray(there[self.first] & there[self.second]).T

    def _of_images(self, a: Float32Array) -> Float32Array:
        """Values (k, m * 64) of the images, 0 where they have no leaf."""
        padded = np.concatenate([a, np.zeros_like(a[:1])])
        return padded[self.leaf].reshape(len(self.leaf), -1)

    def medians(self, value: Float32Array, seen: BoolArray) -> FloatArray:
        """See `LeafPairs`; some cells stand in for all where there are very many."""
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
