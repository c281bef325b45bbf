"""Order leaves so that sums over the images of a cell need no index.

A row of an array is a leaf with its 64 cells. The first images of all blocks come first (layer 0), then the second
ones, and so on; blocks that more images see come before those that fewer see. So layer r holds the first blocks of
layer 0, in their order, and a sum over the images of every cell is a few sums of slices that lie together in memory.

Images are compared over windows of cells, a few seeing discs wide. Arrays for these are (64, n + 1), cells first: a
mean over windows is then a few sums of long rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.tiles import BLOCK, Leaves
from skymatch_cli.model import IntArray

_CACHED = 128  # leaves whose cells are turned at a time: more of them push each other out of the cache
MOST_DOUBLINGS = 4
"""Doublings of a window that reaches into the next leaf and not beyond."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Slices of the leaves, layer by layer; layer 0 has all the blocks."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def arranged(cls, leaves: Leaves) -> tuple[Layers, Leaves]:
        """The layers, and the leaves in their order; the images of a block are in the order of their numbers."""
        by_block = np.lexsort((leaves.image, leaves.column, leaves.row))
        row, column = leaves.row[by_block], leaves.column[by_block]
        first = np.flatnonzero(np.append(True, (np.diff(row) != 0) | (np.diff(column) != 0)))
        count = np.diff(np.append(first, len(row)))
        layer = np.arange(len(row)) - np.repeat(first, count)
        more = np.repeat(count, count)
        order = by_block[np.lexsort((np.arange(len(row)), -more, layer))]
        sizes = np.bincount(layer)
        starts = np.cumsum(sizes) - sizes
        return cls(tuple(starts.tolist()), tuple(sizes.tolist())), leaves.part(order)

    def slices(self) -> Iterator[slice]:
        """The leaves of every layer."""
        return (slice(start, start + size) for start, size in zip(self.starts, self.sizes, strict=True))

    def total(self, a: Float32Array) -> Float32Array:
        """Sum over the images of every cell: (m, 64) of (n, 64)."""
        first, *others = self.slices()
        out = a[first].copy()
        for layer in others:
            out[: layer.stop - layer.start] += a[layer]
        return out

    def least(self, a: Float32Array) -> Float32Array:
        """Least of the images of every cell: (m, 64) of (n, 64)."""
        first, *others = self.slices()
        out = a[first].copy()
        for layer in others:
            of_these = out[: layer.stop - layer.start]
            np.minimum(of_these, a[layer], out=of_these)
        return out

    def each(
        self, function: Callable[..., Any], a: Float32Array, per_cell: Float32Array, out: Float32Array | None = None
    ) -> Float32Array:
        """A ufunc of values (n, 64) of images and those (m, 64) of their cells."""
        out = np.empty_like(a) if out is None else out
        for layer in self.slices():
            function(a[layer], per_cell[: layer.stop - layer.start], out=out[layer])
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Neighbours of every leaf in the same image and tile, n where there is none; the last leaf stands for none."""

    above: IntArray  # (n + 1,)
    below: IntArray  # (n + 1,)
    left: IntArray  # (n + 1,)
    right: IntArray  # (n + 1,)

    @classmethod
    def of(cls, leaves: Leaves) -> Beside:
        """Find the neighbours by a table for every image of every tile, with a margin of a block around it."""
        each, image = np.unique(leaves.tile * (leaves.image.max() + 1) + leaves.image, return_inverse=True)
        top, left = (np.full(len(each), np.iinfo(np.int64).max) for _ in (0, 1))
        bottom, right = (np.full(len(each), np.iinfo(np.int64).min) for _ in (0, 1))
        for least, most, line in ((top, bottom, leaves.row), (left, right, leaves.column)):
            np.minimum.at(least, image, line)
            np.maximum.at(most, image, line)
        width, height = right - left + 3, bottom - top + 3
        start, below = np.cumsum(width * height) - width * height, width[image]
        place = start[image] + (leaves.row - top[image] + 1) * below + leaves.column - left[image] + 1
        leaf_at = np.full(int((width * height).sum()), len(leaves), np.int64)  # the tables, one after the other
        leaf_at[place] = np.arange(len(leaves))
        return cls(*(np.append(leaf_at[place + step], len(leaves)) for step in (-below, below, -1, 1)))

    def smoothed(self, a: Float32Array, doublings: int, done: int = 0) -> Float32Array:
        """Means of cells of the same image with a soft window, whose variance is (4^k - 1) / 6 cells^2.

        ``a`` and the means are (64, n + 1), see `cells_first`: leaves last, so that all leaves are worked on in one
        stretch of memory. ``done`` doublings are in ``a`` already.

        Each doubling spreads a cell by 1/4, 1/2, 1/4 along both axes, over twice the distance of the one before
        (à trous: Holschneider et al. 1989), which makes the next window of a nested family of B-splines. What lies
        across the corner of a leaf goes by one of its sides, if the image has cells there.
        """
        cells = a.reshape(BLOCK, BLOCK, -1)
        for k in range(done, doublings):
            within, step = _WITHIN_LEAF[k], 2**k
            out = (within @ cells.reshape(BLOCK, -1)).reshape(cells.shape)
            _add_beside(out, cells, step, self.above, self.below)
            cells = within @ out
            _add_beside(cells.swapaxes(0, 1), out.swapaxes(0, 1), step, self.left, self.right)
        return cells.reshape(a.shape)

    def highest(self, a: Float32Array) -> Float32Array:
        """Highest of each cell and the eight around it, of the same image: arrays (64, n + 1), 0 or more."""
        cells = a.reshape(BLOCK, BLOCK, -1)
        for before, after in ((self.above, self.below), (self.left, self.right)):
            out = cells.copy()
            np.maximum(out[1:], cells[:-1], out=out[1:])
            np.maximum(out[:-1], cells[1:], out=out[:-1])
            for line, edge, which in ((out[0], cells[-1], before), (out[-1], cells[0], after)):
                np.maximum(line, edge.take(which, axis=1, mode="clip"), out=line)
            cells = out.swapaxes(0, 1)
        return cells.reshape(a.shape)


def cells_first(a: Float32Array) -> Float32Array:
    """Cells (n, 64) of leaves as (64, n + 1); the last leaf, which stands for none, has 0."""
    out = np.zeros((a.shape[1], len(a) + 1), np.float32)
    for k in range(0, len(a), _CACHED):
        out[:, k : min(k + _CACHED, len(a))] = a[k : k + _CACHED].T
    return out


def _within_leaf(step: int) -> Float32Array:
    """Matrix that spreads 8 cells by 1/4, 1/2, 1/4 over others ``step`` cells away."""
    beside = np.eye(BLOCK, k=step, dtype=np.float32)
    return np.float32(0.25) * (beside + beside.T) + np.float32(0.5) * np.eye(BLOCK, dtype=np.float32)


_WITHIN_LEAF = [_within_leaf(2**k) for k in range(MOST_DOUBLINGS)]


def _add_beside(out: Float32Array, cells: Float32Array, step: int, before: IntArray, after: IntArray) -> None:
    """Add what lines of cells (8, 8, n) spread into the leaves after and before theirs."""
    for lines, edge, which in ((out[:step], cells[-step:], before), (out[-step:], cells[:step], after)):
        spread = edge.take(which, axis=2, mode="clip")  # quicker: indices are not checked
        spread *= np.float32(0.25)
        np.add(lines, spread, out=lines)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of two widths about every cell of a sheet; means over empty ones are 0 (their divisors infinite)."""

    beside: Beside
    finest: int  # doublings of the smaller window; the other has one more
    weight: Float32Array  # (64, n + 1): information of the pixels
    # (64, n + 1) each: standard deviation of the sums of weighted residuals over each window, and expected sum of their
    # weighted squares over the smaller one
    noise: tuple[Float32Array, ...]
    seen: tuple[Float32Array, ...]  # (64, n + 1) each: share of each window that has cells

    @classmethod
    def of_weights(cls, beside: Beside, finest: int, weight: Float32Array, own: Float32Array) -> Windows:
        """From the weights (n, 64) of cells and the shares of their variance that remain in residuals."""
        weight, own = cells_first(weight), cells_first(own)
        seen = (weight > 0).astype(np.float32)
        noise = [
            np.sqrt(np.float32(_energy(finest + k)) * sums)
            for k, sums in enumerate(_both(beside, weight * own, finest))
        ]
        return cls(
            beside=beside,
            finest=finest,
            weight=weight,
            noise=tuple(map(_divisor, (*noise, beside.smoothed(own * seen, finest)))),
            seen=tuple(map(_divisor, _both(beside, seen, finest))),
        )

    def both(self, a: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Means over the smaller and the larger windows."""
        return _both(self.beside, a, self.finest)


def _both(beside: Beside, a: Float32Array, finest: int) -> tuple[Float32Array, Float32Array]:
    smaller = beside.smoothed(a, finest)
    return smaller, beside.smoothed(smaller, finest + 1, done=finest)


def _divisor(a: Float32Array) -> Float32Array:
    return np.where(a > 0, a, np.float32(np.inf))


@cache
def _energy(doublings: int) -> float:
    """Variance of the mean over a window of cells of unit variance, along both axes."""
    window = np.ones(1)
    for k in range(doublings):
        step = np.zeros(2 ** (k + 1) + 1)
        step[[0, -1]], step[2**k] = 0.25, 0.5
        window = np.convolve(window, step)
    return float((window**2).sum() ** 2)
