"""Sums over the cells that pairs of images have in common, for all pairs of a sheet at once.

The images of a block are multiplied as matrices, in one call for all blocks that as many images see: the cost grows
with the common cells, and hardly with the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Layers
from skymatch_cli.compare.mesh.tiles import BLOCK, MIDDLE, Leaves
from skymatch_cli.model import BoolArray, FloatArray, IntArray, OverlapGraph
from skymatch_cli.model.monomials import carried, n_terms, powers_of

Join = Callable[..., Any] | None
Factors = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], Join, int]
"""Values x and y of the leaves (n, 64), what makes one of x y and y x (only x y without), and a degree."""

_MOST_PRODUCTS = 2**16  # of leaves that are worked on together: memory
_FEW = 3  # images of a block whose pairs are multiplied one by one
_START_DIFFERENCES = 2**16  # of cells: enough for the starting offsets


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The leaves of b blocks that k images see, and the k (k - 1) / 2 pairs of these images."""

    leaf: IntArray  # (b, k): those of each image follow one another
    pair: IntArray  # (b, pairs): which of the p pairs of the sheet, p where the graph has none
    run: IntArray  # (b, pairs): which of the r pairs in a tile

    def products(self, x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Sums (b, pairs) over the cells of ``x`` of the first image times ``y`` of the second, and the other way."""
        first, second = _sides(self.leaf.shape[1])
        if self.leaf.shape[1] <= _FEW:  # half of what matrices multiply is not needed, and nothing is copied
            parts = [slice(start, start + len(self.leaf)) for start in self.leaf[0].tolist()]
            one, other = (
                np.stack([np.einsum("bc,bc->b", x[parts[i]], y[parts[j]]) for i, j in zip(*ends, strict=True)], axis=1)
                for ends in ((first, second), (second, first))
            )
            return one, other
        of_images = x[self.leaf] @ y[self.leaf].swapaxes(1, 2)
        return of_images[:, first, second], of_images[:, second, first]

    def in_cells(self, x: Float32Array, y: Float32Array, join: Join) -> Float32Array:
        """Such products of all cells, (b, pairs, 64); ``join`` makes one of both."""
        first, second = (self.leaf[:, side] for side in _sides(self.leaf.shape[1]))
        product = x[first] * y[second]
        if join is not None:
            join(product, y[first] * x[second], out=product)
        return product


@dataclass(frozen=True, slots=True, eq=False)
class CellPairs:
    """The p pairs of images of the graph that share cells in a sheet. In each tile a pair is a run of its own."""

    leaves: Leaves
    rows: IntArray  # (p,): indices into the graph
    stacks: tuple[Stack, ...]
    run_pair: IntArray  # (r,): which of the p pairs, p where the graph has none
    run_tile: IntArray  # (r,)

    @classmethod
    def among(cls, leaves: Leaves, layers: Layers, graph: OverlapGraph, plane: int) -> CellPairs:
        """Pairs of the graph in a plane."""
        of_stacks = list(_blocks_alike(layers))
        ends = [(leaf[:, i].ravel(), leaf[:, j].ravel()) for leaf in of_stacks for i, j in [_sides(leaf.shape[1])]]
        first, second = (np.concatenate(end) for end in zip(*ends, strict=True))
        images, number = np.unique(leaves.image, return_inverse=True)
        row = _pairs_of_graph(images[:, None], images, graph, plane)[number[first], number[second]]
        rows = np.unique(row[row >= 0])
        pair = np.where(row >= 0, np.searchsorted(rows, row), len(rows))
        runs, run = np.unique(leaves.tile[first] * (len(rows) + 1) + pair, return_inverse=True)
        cuts = np.cumsum([len(one) for one, _ in ends])[:-1]
        each = zip(of_stacks, np.split(pair, cuts), np.split(run, cuts), strict=True)
        stacks = (Stack(leaf, *(which.reshape(len(leaf), -1) for which in more)) for leaf, *more in each)
        tile, run_pair = np.divmod(runs, len(rows) + 1)
        return cls(leaves, rows, tuple(stacks), run_pair, tile)

    def add_products(self, x: Float32Array, y: Float32Array, *totals: FloatArray) -> None:
        """Add sums over common cells of ``x`` of the first image times ``y`` of the second, (n, 64) of the leaves.

        To the first of the totals, (M,) each; those of the second image times the first to the second total, if any.
        """
        p = len(self.rows)
        for stack in self.stacks:
            for total, found in zip(totals, stack.products(x, y), strict=False):
                total[self.rows] += np.bincount(stack.pair.ravel(), found.ravel(), p + 1)[:p]

    def middles(self) -> FloatArray:
        """A place (u, v) in each tile, in cells, (tiles, 2)."""
        n = np.maximum(np.bincount(self.leaves.tile), 1)
        lines = (np.bincount(self.leaves.tile, line) / n for line in (self.leaves.column, self.leaves.row))
        return np.stack([BLOCK * line + MIDDLE for line in lines], axis=1)

    def moments(self, degree: int, factors: Sequence[Factors]) -> list[FloatArray]:
        """Such sums (r, t) of the runs, times powers of the places of the cells about the middle of their tile.

        For each of some factors, whose degrees are ``degree`` at most.
        """
        leaves, middle = self.leaves, self.middles()
        found = [np.zeros((n_terms(of_these), len(self.run_pair))) for *_, of_these in factors]
        for stack in self.stacks:
            block, run = stack.leaf[:, 0], stack.run.ravel()
            about = BLOCK * np.stack([leaves.column[block], leaves.row[block]], axis=1) + MIDDLE
            to_tile = carried(about - middle[leaves.tile[block]], degree)
            for total, (x, y, join, _) in zip(found, factors, strict=True):
                t = len(total)
                moved = (stack.in_cells(x, y, join) @ _powers_in_block(degree)[:, :t]) @ to_tile[:, :t, :t]
                for k in range(t):
                    total[k] += np.bincount(run, moved[:, :, k].ravel(), len(self.run_pair))
        return [total.T for total in found]

    def medians(self, value: Float32Array, seen: BoolArray) -> FloatArray:
        """(2, r): over how many cells a run has differences, and their median; some stand in for very many cells."""
        run = np.concatenate([stack.run.ravel() for stack in self.stacks])
        some = np.s_[:: 64 * len(run) // _START_DIFFERENCES | 1]
        value = np.where(seen, value, np.float32(np.nan))[:, some]
        each = []
        for stack in self.stacks:
            i, j = _sides(stack.leaf.shape[1])
            each.append((value[stack.leaf[:, i]] - value[stack.leaf[:, j]]).reshape(-1, value.shape[1]))
        order = np.argsort(run, kind="stable")
        difference = np.concatenate(each)[order]
        known, out = np.isfinite(difference), np.zeros((2, len(self.run_pair)))
        n = np.add.reduceat(np.count_nonzero(known, axis=1), np.searchsorted(run[order], np.arange(out.shape[1])))
        for k, of_run in enumerate(np.split(difference[known], np.cumsum(n)[:-1])):
            if len(of_run):
                out[:, k] = len(of_run), np.partition(of_run, (len(of_run) - 1) // 2)[(len(of_run) - 1) // 2]
        return out


def _blocks_alike(layers: Layers) -> Iterator[IntArray]:
    """The leaves (b, k) of blocks that k images see, two or more, not too many at a time."""
    sizes = (*layers.sizes, 0)
    for k in range(2, len(sizes)):
        most = max(1, _MOST_PRODUCTS // k**2)
        for first in range(sizes[k], sizes[k - 1], most):
            blocks = np.arange(first, min(first + most, sizes[k - 1]))
            yield blocks[:, None] + np.array(layers.starts[:k])


@cache
def _powers_in_block(degree: int) -> Float32Array:
    """Powers (64, t) of the places of the cells of a block, about its middle."""
    v, u = np.divmod(np.arange(BLOCK**2), BLOCK) - np.array(MIDDLE)
    return np.stack([np.ones_like(u), *powers_of(u, v, degree)], axis=1).astype(np.float32)


@cache
def _sides(k: int) -> tuple[IntArray, IntArray]:
    """First and second image of every pair of k images."""
    return np.triu_indices(k, 1)


def _pairs_of_graph(a: IntArray, b: IntArray, graph: OverlapGraph, plane: int) -> IntArray:
    """Index into the graph of the pairs of images (a, b), a < b, in a plane; -1 where there is none."""
    keys = graph.a * graph.n_images + graph.b
    wanted = a * graph.n_images + b
    pair = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = (keys[pair] == wanted) & (graph.plane[pair] == plane)
    return np.where(known, pair, -1).astype(np.int64)
