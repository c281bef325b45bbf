"""Normal equations of polynomials of groups, from their weighted differences.

The normal matrix is factorised once: as an array where it is small, else sparse. Directions that the pairs hardly
constrain (the tilt across an overlap that is a line) are held by a ridge of 1e-12 of the diagonal, and the refinement
that follows removes its effect wherever the pairs constrain them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from scipy.linalg import lu_factor, lu_solve
from scipy.sparse import coo_array, csc_array, diags_array

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.model.monomials import carried, degree_of, exponents
from skymatch_cli.solve.laplacian import symmetric_factors
from skymatch_cli.solve.leastsquares import N_BLOCKS, sign_columns
from skymatch_cli.solve.pairgraph import PairGraph

RIDGE = 1e-12
_REFINEMENTS = 3
_SMALL = 300  # unknowns up to which the matrix is no sparse one
_DENSE = 1200  # unknowns up to which the whole covariance is computed; beyond, errors are good to 9 %


@dataclass(frozen=True, slots=True, eq=False)
class PlaneEquations:
    """Normal equations of polynomials of k terms, factorised."""

    graph: PairGraph  # n groups (unknowns), m pairs
    centre: FloatArray  # (n, 2): positions of the groups: polynomials are given about these
    degree: IntArray  # (n,): of the polynomial of every group, at most that of the k terms; its other terms are 0
    held: BoolArray  # (C,): components in which a curvature that all frames may have in common is taken off
    moment: FloatArray  # (m, k, k): M
    to_a: FloatArray  # (m, k, k): polynomial about a group's centre to polynomial about the pair's position
    to_b: FloatArray  # (m, k, k)
    # (k n, k n): normal matrix, scaled to a unit diagonal; rows and columns of the first group of each component are
    # empty
    matrix: FloatArray | csc_array
    scale: FloatArray  # (k n,): 1 / square root of its diagonal; 0 for those groups
    solver: Callable[[FloatArray], FloatArray]  # of the scaled equations, raised by the ridge, for (k n, p)

    @classmethod
    def of_pairs(  # noqa: PLR0917 - columns of pairs
        cls,
        centre: FloatArray,
        a: IntArray,
        b: IntArray,
        moment: FloatArray,
        position: FloatArray,
        degree: IntArray | None = None,
        ridge: float = RIDGE,
    ) -> PlaneEquations:
        """For n groups at ``centre`` and m pairs (a, b), a != b, with moments (m, k, k) about ``position`` (m, 2).

        ``degree`` (n,): of every group, where it is less than the k terms allow.
        """
        n, k = len(centre), moment.shape[1]
        degree = np.full(n, degree_of(k)) if degree is None else degree
        graph = PairGraph.of_pairs(n, a, b, moment[:, 0, 0])
        to_a, to_b = (carried(position - centre[end], degree_of(k)) for end in (a, b))
        absent = totals(k) > degree[:, None]
        first = np.unique(graph.component, return_index=True)[1]
        absent[first] |= totals(k) <= least(graph, degree)[:, None]  # the common part is free
        matrix, scale = _normal(n, np.stack([a, b]), np.stack([to_a, -to_b]), moment, absent.ravel())
        solver = _solver(matrix, np.where(scale > 0, ridge, 1.0))
        none = np.zeros(len(graph.size), np.bool_)
        return cls(graph, centre, degree, none, moment, to_a, to_b, matrix, scale, solver)

    @property
    def n_terms(self) -> int:
        """Terms of the polynomials, k."""
        return int(self.moment.shape[1])

    def gathered(self, pull: FloatArray) -> FloatArray:
        """Pulls of the pairs (m, k, p) as right-hand sides of the groups, (n, k, p)."""
        out = np.zeros((self.graph.n, self.n_terms, pull.shape[2]))
        np.add.at(out, self.graph.a, self.to_a.swapaxes(1, 2) @ pull)
        np.add.at(out, self.graph.b, -(self.to_b.swapaxes(1, 2) @ pull))
        return out

    def solve(self, rhs: FloatArray, refinements: int = _REFINEMENTS) -> FloatArray:
        """Polynomials (n, k, p) for right-hand sides (n, k, p), in the common gauge."""
        scaled = self.scale[:, None] * rhs.reshape(len(self.scale), -1)
        x = self.solver(scaled)
        for _ in range(refinements):
            x = x + self.solver(scaled - self.matrix @ x)
        return self.centred((self.scale[:, None] * x).reshape(rhs.shape))

    def centred(self, planes: FloatArray) -> FloatArray:
        """Polynomials (n, k, p) without the common part of each component: the mean of all their terms is 0.

        The terms of the highest degree come first, since those of the common part change the lower ones; before them
        the curvature is taken off where it is ``held``.
        """
        component, k = self.graph.component, self.n_terms
        lowest, moved = least(self.graph, self.degree), self._moved()
        if self.held.any():
            curvature = self.curvature(planes) * self.held[:, None, None]
            own = totals(k) <= self.degree[:, None]
            planes = planes - own[:, :, None] * (moved @ curvature[component])
        for total in range(degree_of(k), -1, -1):
            terms = np.flatnonzero(totals(k) == total)
            mean = self._means(planes[:, terms]) * (total <= lowest)[:, None, None]
            planes = planes - moved[:, :, terms] @ mean[component]
        return planes

    def curvature(self, planes: FloatArray) -> FloatArray:
        """Coefficients (C, q, p) of a polynomial of one degree more, about the middle of each component.

        The highest terms of the polynomials, whose mean is 0, follow it best.
        """
        graph, lowest, moved = self.graph, least(self.graph, self.degree), self._moved()
        rows = totals(self.n_terms) == lowest[graph.component, None]
        columns = totals(moved.shape[2]) == lowest[graph.component, None] + 1
        design = moved * rows[:, :, None] * columns[:, None, :]
        normal = graph.component_sums((design.swapaxes(1, 2) @ design).reshape(graph.n, -1))
        right = graph.component_sums((design.swapaxes(1, 2) @ planes).reshape(graph.n, -1))
        inverse = np.linalg.pinv(normal.reshape(-1, *[moved.shape[2]] * 2), rcond=1e-10, hermitian=True)
        return np.asarray(inverse @ right.reshape(len(graph.size), moved.shape[2], -1))

    def _moved(self) -> FloatArray:
        """What unit coefficients about the middle of a component, of one degree more, are to its groups, (n, k, q)."""
        middle = self._means(self.centre)[self.graph.component]
        return carried(self.centre - middle, degree_of(self.n_terms) + 1)[:, : self.n_terms]

    def differences(self, planes: FloatArray) -> FloatArray:
        """Differences (m, k) of polynomials (n, k), about the positions of the pairs."""
        a, b = (
            np.einsum("mij,mj->mi", to, planes[end])
            for to, end in ((self.to_a, self.graph.a), (self.to_b, self.graph.b))
        )
        return np.asarray(a - b)

    def covariance(self) -> tuple[FloatArray, bool]:
        """Covariance (n, k, k) of every polynomial in the common gauge, and whether it is more than an estimate."""
        n, k, component = self.graph.n, self.n_terms, self.graph.component
        most = int(self.graph.size.max(initial=1))
        if k * most > _DENSE:
            answers = self.probes()
            return answers @ answers.swapaxes(1, 2) / answers.shape[2], False
        # Components have nothing to do with each other: a right-hand side has an unknown of each of them.
        each, place, order = np.arange(n), np.empty(n, np.int64), np.argsort(component, kind="stable")
        place[order] = each - np.repeat(np.cumsum(self.graph.size) - self.graph.size, self.graph.size)
        unit = np.zeros((n, k, most, k))
        unit[each[:, None], np.arange(k), place[:, None], np.arange(k)] = self.scale.reshape(n, k)
        inverse = self.scale[:, None] * self.solver(unit.reshape(k * n, -1))
        blocks = np.zeros((len(self.graph.size), most, k, most, k))
        blocks[component, place] = self.centred(inverse.reshape(n, k, -1)).reshape(unit.shape)
        half = blocks.transpose(0, 3, 4, 1, 2)[component, place]
        whole = self.centred(half.reshape(n, k, -1)).reshape(unit.shape)
        return whole[each, :, place], True

    def probes(self) -> FloatArray:
        """Answers (n, k, 64) to artificial noise of the pairs: the mean of their products is the covariance."""
        m, k = self.moment.shape[:2]
        root = _root(self.moment)
        signs = (sign_columns(k * m, block).reshape(m, k, -1) for block in range(N_BLOCKS))
        return np.concatenate([self.solve(self.gathered(root @ some), refinements=1) for some in signs], axis=2)

    def _means(self, x: FloatArray) -> FloatArray:
        flat = self.graph.component_sums(x.reshape(len(x), -1)) / self.graph.size[:, None]
        return flat.reshape(-1, *x.shape[1:])


def _normal(
    n: int, ends: IntArray, to: FloatArray, moment: FloatArray, absent: BoolArray
) -> tuple[FloatArray | csc_array, FloatArray]:
    """The normal matrix (k n, k n), scaled to a unit diagonal, and what it was scaled by, 0 for absent unknowns.

    ``ends`` (2, m): groups of the first and the second of every pair; ``to`` (2, m, k, k): what carries their
    polynomials to it, the second with its sign.
    """
    k = moment.shape[1]
    values = (to.swapaxes(2, 3)[:, None] @ moment @ to).ravel()
    place, within = (k * ends)[..., None, None], np.arange(k)
    lines = np.broadcast_arrays(place[:, None] + within[:, None], place + within)
    row, column = (line.ravel() for line in lines)
    diagonal = np.bincount(row[row == column], values[row == column], k * n)
    known = (diagonal > 0) & ~absent
    scale = np.where(known, 1.0 / np.sqrt(np.where(known, diagonal, 1.0)), 0.0)
    values *= scale[row] * scale[column]
    if k * n > _SMALL:
        return coo_array((values, (row, column)), shape=(k * n, k * n)).tocsc(), scale
    found = np.bincount(row * (k * n) + column, values, (k * n) ** 2).astype(float)
    return found.reshape(k * n, k * n), scale


def _solver(matrix: FloatArray | csc_array, ridge: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """What solves equations with a matrix whose diagonal is raised."""
    if isinstance(matrix, np.ndarray):
        return partial(lu_solve, lu_factor(matrix + np.diag(ridge), check_finite=False), check_finite=False)
    return symmetric_factors(matrix + diags_array(ridge)).solve


def least(graph: PairGraph, degree: IntArray) -> IntArray:
    """Lowest degree of the groups of every component, (C,)."""
    lowest = np.full(len(graph.size), np.iinfo(np.int64).max)
    np.minimum.at(lowest, graph.component, degree)
    return lowest


@cache
def totals(k: int) -> FloatArray:
    """Sums of the exponents of k terms; not to be written to."""
    found = np.array([sum(each) for each in exponents(degree_of(k))], float)
    found.flags.writeable = False
    return found


def with_unit_diagonal(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positive semi-definite matrices (m, k, k) scaled to ones on the diagonal, and the roots of what was there."""
    scale = np.sqrt(np.maximum(np.einsum("mii->mi", matrix), np.finfo(float).tiny))
    return matrix / (scale[:, :, None] * scale[:, None, :]), scale


def _root(moment: FloatArray) -> FloatArray:
    """A square root of positive semi-definite matrices, (m, k, k)."""
    scaled, scale = with_unit_diagonal(moment)
    value, vector = np.linalg.eigh(scaled)
    root: FloatArray = scale[:, :, None] * vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]
    return root
