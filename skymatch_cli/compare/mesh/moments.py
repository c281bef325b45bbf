"""Moments of the places at which pairs of images are compared, and of their differences there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.packed import Mesh
from skymatch_cli.compare.mesh.pairs import Factors
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.compare.mesh.sums import inverse
from skymatch_cli.model import FloatArray, OverlapGraph
from skymatch_cli.model.monomials import carried, degree_of, exponents, n_terms


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMoments:
    """Sums over the common cells of M pairs, about a position of each."""

    position: FloatArray  # (M, 2)
    moments: FloatArray  # (M, t): weights, for each power of u and v up to twice the degree
    noises: FloatArray  # (M, t): variances of the pulls
    pull: FloatArray  # (M, k)

    @classmethod
    def empty(cls, position: FloatArray, degree: int) -> PlaneMoments:
        """Sums over nothing."""
        moments, noises = np.zeros((2, len(position), n_terms(2 * degree)))
        return cls(position, moments, noises, np.zeros((len(position), n_terms(degree))))

    def add(
        self, sheet: Sheet, weight: Float32Array, residual: Float32Array, share: Float32Array, *, noise: bool = False
    ) -> None:
        """Add the weights and residuals of a sheet; the noise only where it is asked for."""
        layers, degree = sheet.layers, degree_of(self.pull.shape[1])
        pairs = sheet.pairs
        factors: list[Factors] = [(share * residual, weight, np.subtract, degree), (share, weight, None, 2 * degree)]
        if noise:
            per_weight = layers.each(np.multiply, share, inverse(layers.total(weight)))
            factors.append((per_weight, weight * weight, np.add, 2 * degree))
        use = pairs.run_pair < len(pairs.rows)
        row = pairs.rows[pairs.run_pair[use]]
        move = carried(pairs.middles()[pairs.run_tile[use]] - self.position[row], 2 * degree)
        found = pairs.moments(2 * degree, factors)
        for total, value in zip((self.pull, self.moments, self.noises), found, strict=False):
            t = total.shape[1]
            np.add.at(total, row, np.einsum("rst,rs->rt", move[:, :t, :t], value[use]))

    def matrices(self, sums: FloatArray) -> FloatArray:
        """Moments (M, t) as the matrices (M, k, k) of the products of two monomials."""
        terms = exponents(degree_of(self.pull.shape[1]))
        number = {powers: t for t, powers in enumerate(exponents(2 * degree_of(self.pull.shape[1])))}
        # In the order of memory of a store's, for the last digits of products depend on it.
        return sums.take([[number[i + a, j + b] for a, b in terms] for i, j in terms], axis=1)


def box(mesh: Mesh | None) -> FloatArray:
    """Return the lowest and highest (u, v) of the cells of a mesh."""
    if mesh is None:
        return np.zeros((2, 2))
    low = np.array(mesh.origin[::-1], float)
    return np.stack([low, low + np.array(mesh.shape[::-1]) - 1.0])


def middles(boxes: FloatArray, graph: OverlapGraph) -> FloatArray:
    """Middle (M, 2) of what both images of every pair cover, from the boxes (N, 2, 2) of these."""
    low = np.maximum(boxes[graph.a, 0], boxes[graph.b, 0])
    high = np.minimum(boxes[graph.a, 1], boxes[graph.b, 1])
    return np.asarray(0.5 * (low + high))
