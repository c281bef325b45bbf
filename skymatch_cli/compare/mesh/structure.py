"""What the blocks of overlaps show of structure: sums over the pieces of every overlap.

The difference of two images should be the same all over their overlap. `fields` says what follows where it is not,
`zeropoints` where it grows with the brightness of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.sums import inverse
from skymatch_cli.compare.mesh.tiles import BLOCK
from skymatch_cli.model import FloatArray, IntArray, OverlapGraph

PIECES = 12  # of an overlap
_ALONG, _ACROSS = 6, 2  # pieces of a long overlap
_ROWS, _COLUMNS = 3, 4  # of another
_LONG = 2.0  # length over width


@dataclass(frozen=True, slots=True, eq=False)
class PairStructure:
    """Sums over the blocks of M pairs."""

    low: FloatArray  # (M, 2): box that both meshes of a pair share, in blocks (row, column)
    size: FloatArray  # (M, 2)
    layout: IntArray  # (M, 2): rows and columns of pieces in the box
    # (6, M, 12): with weight q, difference d, its noise e, sky s, row and column of the blocks of a piece: sums of q, q
    # d, q^2 e^2, q s, q row, q column
    pieces: FloatArray
    bright: FloatArray  # (6, M): over all blocks of the pair: sums of q s, q s^2, q s d, q d^2, q e^2, and of one
    darkest: FloatArray  # (M,): sky of the darkest block

    @classmethod
    def empty(cls, graph: OverlapGraph, meshes: Sequence[Sequence[Mesh | None]]) -> PairStructure:
        """No block yet. ``meshes``: for every plane of the graph, for every image."""
        m = len(graph.a)
        low, high = np.zeros((2, m, 2))
        for k, images in enumerate(meshes):
            mine = np.flatnonzero(graph.plane == k)
            box = np.array([_box(mesh) for mesh in images]).reshape(-1, 2, 2)
            low[mine] = np.maximum(box[graph.a[mine], 0], box[graph.b[mine], 0])
            high[mine] = np.minimum(box[graph.a[mine], 1], box[graph.b[mine], 1])
        size = np.maximum(high - low, 1)
        layout = np.tile([_ROWS, _COLUMNS], (m, 1))
        layout[size[:, 0] > _LONG * size[:, 1]] = _ALONG, _ACROSS
        layout[size[:, 1] > _LONG * size[:, 0]] = _ACROSS, _ALONG
        return cls(low, size, layout, np.zeros((6, m, PIECES)), np.zeros((6, m)), np.full(m, np.inf))

    def add(
        self, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array, sky: Float32Array
    ) -> None:
        """Add the blocks of a sheet: weights, residuals and shares (n, 64) of the cells, and their skies (m, 64)."""
        layers = sheet.layers
        per_total = layers.each(np.multiply, share, inverse(layers.total(weight)))
        by_sky = layers.each(np.multiply, share, sky)
        for stack in sheet.pairs.stacks:
            factors = (share, weight), (share * residual, weight), (per_total, weight * weight), (by_sky, weight)
            (q, _), pulls, variances, (bright, _) = (stack.products(x, y) for x, y in factors)
            columns = q, pulls[0] - pulls[1], variances[0] + variances[1], bright
            block, which = np.nonzero((q > 0) & (stack.pair < len(sheet.pairs.rows)))
            leaf, pair = stack.leaf[block, 0], sheet.pairs.rows[stack.pair[block, which]]
            place = np.stack([sheet.leaves.row[leaf], sheet.leaves.column[leaf]]) + 0.5
            self._add(pair, place, [each[block, which].astype(np.float64) for each in columns])

    def _add(self, pair: IntArray, place: FloatArray, columns: Sequence[npt.NDArray[np.floating]]) -> None:
        """Add weights, pulls, variances and brightnesses of r blocks of pairs, at rows and columns (2, r)."""
        (row, column), (q, pull, variance, bright) = place, columns
        inside = (np.stack([row, column], axis=1) - self.low[pair]) / self.size[pair]
        piece = np.clip(self.layout[pair] * inside, 0, self.layout[pair] - 1).astype(np.int64)
        pairs, number = np.unique(pair, return_inverse=True)
        cell = number * PIECES + piece[:, 0] * self.layout[pair, 1] + piece[:, 1]
        for k, value in enumerate((q, pull, variance, bright, q * row, q * column)):
            self.pieces[k, pairs] += np.bincount(cell, value, len(pairs) * PIECES).reshape(-1, PIECES)
        scene = bright / q
        terms = (bright, bright * scene, scene * pull, pull**2 / q, variance / q, np.ones(len(scene)))
        for k, value in enumerate(terms):
            self.bright[k, pairs] += np.bincount(number, value, len(pairs))
        np.minimum.at(self.darkest, pair, scene)

    def join(self, other: PairStructure) -> None:
        """Add the blocks of other sheets."""
        np.add(self.pieces, other.pieces, out=self.pieces)
        np.add(self.bright, other.bright, out=self.bright)
        np.minimum(self.darkest, other.darkest, out=self.darkest)


def _box(mesh: Mesh | None) -> FloatArray:
    """First and last (row, column) of a mesh, in blocks."""
    if mesh is None:
        return np.zeros((2, 2))
    low = np.array(mesh.origin, float) / BLOCK
    return np.stack([low, low + np.array(mesh.shape) / BLOCK])
