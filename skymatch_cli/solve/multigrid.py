"""Solutions of the normal equations of very large graphs: conjugate gradients with aggregation multigrid.

Unknowns that heavy pairs tie together are merged into aggregates, again and again; the graph of the aggregates
with its summed weights is the coarse problem (so every level is again a graph, and weights that span many
decades do no harm). Each coarse problem is solved by one or two steps of conjugate gradients that have the next
level as preconditioner: the K-cycle (Notay 2008, Numer. Linear Algebra Appl. 15, 473; for graphs
Napov & Notay 2017, SIAM J. Sci. Comput. 39, S386).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array, triu
from scipy.sparse.csgraph import connected_components

from skymatch_cli.errors import SkymatchError
from skymatch_cli.model import BoolArray, FloatArray, IntArray, PixelArray
from skymatch_cli.solve.elimination import grounded_inverses
from skymatch_cli.solve.signs import mixed

_COARSEST = 600  # unknowns that are left to a dense inverse
_DAMPING = 0.6  # of the smoother; the spectrum of a normalised Laplacian ends at 2
_CHEAPER = 0.5  # a coarse level gets two steps only where it costs less than this part of the finer one
_GOOD_ENOUGH = 0.25  # drop of the residual after which a coarse level needs no second step
_WIDE = 1e8  # span of the weights above which a Laplacian is applied pair by pair
_COMPARABLE = 0.25  # part of the heaviest weight of either that still makes a pair of unknowns
_STALLED = 100  # steps without a better residual: a guard


@dataclass(frozen=True, slots=True)
class _Level:
    """One graph, and the aggregates of its unknowns that are those of the next level.

    ``gather`` (n_coarse, n): ones; ``steps``: conjugate gradient steps that the level gets as a coarse one.
    ``single``: the Laplacian in single precision where that is enough for the cycle (then ``gather``, ``scatter``
    and ``damping`` (n, 1) are in single precision too).
    """

    adjacency: csr_array
    degree: FloatArray
    damping: PixelArray
    incidence: tuple[csr_array, csr_array] | None
    gather: csr_array
    scatter: csr_array
    steps: int
    single: csr_array | None

    @classmethod
    def between(cls, adjacency: csr_array, gather: csr_array, steps: int, *, shrinks: bool) -> _Level:
        """A level with the aggregates of the next one; ``shrinks``: whether that costs much less.

        Graphs that don't shrink are tied together in all directions and have no long waves, whose residuals single
        precision would lose; so do the cycles of large random graphs, which cost most, go at half the traffic.
        """
        degree = np.asarray(adjacency.sum(axis=1), np.float64)
        damping = _DAMPING * _quotient(np.ones(1), degree)[:, None]
        wide = adjacency.data.max() > _WIDE * adjacency.data.min()
        incidence = _incidence(adjacency) if wide else None
        single = None
        if not (wide or shrinks or steps > 1):
            single = csr_array(diags_array(degree) - adjacency).astype(np.float32)
            damping, gather = damping.astype(np.float32), gather.astype(np.float32)
        return cls(adjacency, degree, damping, incidence, gather, csr_array(gather.T), steps, single)

    def apply(self, x: PixelArray) -> FloatArray:
        """L x for x (n, p)."""
        if self.incidence is None:
            return np.asarray(self.degree[:, None] * x - self.adjacency @ x, np.float64)
        difference, divergence = self.incidence  # differences first: those of light pairs aren't lost beside heavy ones
        return np.asarray(divergence @ (difference @ x), np.float64)

    def residual(self, rhs: PixelArray, x: PixelArray) -> PixelArray:
        """Rhs - L x as precisely as the cycle needs it."""
        left: PixelArray = rhs - (self.apply(x) if self.single is None else self.single @ x)
        return left


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Ever coarser graphs of one Laplacian; ``inverse`` solves the last one, which has no level."""

    levels: tuple[_Level, ...]
    inverse: FloatArray

    @classmethod
    def of_weights(cls, adjacency: csr_array) -> Hierarchy:
        """From symmetric weights (n, n) with nothing on the diagonal; rows without weights stay at 0."""
        levels: list[_Level] = []
        steps = 1
        while np.count_nonzero(np.diff(adjacency.indptr)) > _COARSEST:
            gather = _aggregates(adjacency)
            coarse = _merged(gather, adjacency)
            shrinks = coarse.nnz < _CHEAPER * adjacency.nnz
            levels.append(_Level.between(adjacency, gather, steps, shrinks=shrinks))
            steps = 2 if shrinks else 1
            adjacency = coarse
        return cls(tuple(levels), _inverse(adjacency))

    def solve(self, rhs: FloatArray, tolerance: float) -> FloatArray:
        """Solutions (n, p) for right-hand sides (n, p) that sum to zero in every component.

        ``tolerance`` is the drop of the preconditioned residual, which measures the error in units of the
        solution's own standard errors: no unknown is off by more than that part of the whole.

        Raises
        ------
        SkymatchError
            If the residual stops falling before that.
        """
        if not self.levels:
            return self.inverse @ rhs
        fine = self.levels[0]
        x, residual = np.zeros(rhs.shape), rhs.copy()
        z = self._preconditioned(residual)
        direction, rho = z, _dots(z, residual)
        first, best, since = rho, np.full(len(rho), np.inf), 0
        while np.any(rho > tolerance**2 * first):
            image = fine.apply(direction)
            step = _quotient(_dots(direction, residual), _dots(direction, image))
            x += step * direction
            before = residual
            residual = residual - step * image
            z = self._preconditioned(residual)
            after = _dots(z, residual)
            direction = z + _quotient(after - _dots(z, before), rho) * direction
            rho = after
            since = 0 if np.any(rho < 0.9 * best) else since + 1
            best = np.minimum(best, rho)
            if since > _STALLED:
                raise SkymatchError("the offsets of a very large set of images can't be solved to full accuracy")
        return x

    def _preconditioned(self, residual: FloatArray) -> FloatArray:
        return self._cycle(0, residual).astype(np.float64, copy=False)

    def _cycle(self, depth: int, rhs: PixelArray) -> PixelArray:
        """One step towards the solution at a level: smooth, correct on the next level, smooth."""
        if depth == len(self.levels):
            return np.asarray(self.inverse @ rhs, np.float64)
        level = self.levels[depth]
        rhs = cast("PixelArray", rhs.astype(level.damping.dtype, copy=False))
        x: PixelArray = level.damping * rhs
        x += level.scatter @ self._coarse(depth + 1, level.gather @ level.residual(rhs, x))
        x += level.damping * level.residual(rhs, x)
        return x

    def _coarse(self, depth: int, rhs: PixelArray) -> PixelArray:
        """One or two conjugate gradient steps with the level's own cycle (Notay 2008, algorithm 3.2)."""
        c = self._cycle(depth, rhs)
        if depth == len(self.levels) or self.levels[depth].steps == 1:
            return c
        level = self.levels[depth]
        v = level.apply(c)
        rho, alpha = _dots(c, v), _dots(c, rhs)
        first = _quotient(alpha, rho)
        residual = rhs - first * v
        if np.all(_dots(residual, residual) <= _GOOD_ENOUGH**2 * _dots(rhs, rhs)):
            return first * c
        d = self._cycle(depth, residual)
        w = level.apply(d)
        gamma = _dots(d, v)
        second = _quotient(_dots(d, residual), _dots(d, w) - gamma * _quotient(gamma, rho))
        return (first - second * _quotient(gamma, rho)) * c + second * d


def _merged(gather: csr_array, adjacency: csr_array) -> csr_array:
    """Weights between aggregates: sums of the weights between their unknowns."""
    weights = csr_array(gather @ adjacency @ gather.T)
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    off = weights.indices != row
    kept = np.concatenate([[0], np.cumsum(np.bincount(row[off], minlength=weights.shape[0]))])
    return csr_array((weights.data[off], weights.indices[off], kept), shape=weights.shape)


def _aggregates(adjacency: csr_array) -> csr_array:
    """Pairs of unknowns that are each other's heaviest neighbour, and those that hang on one: (n_coarse, n) ones."""
    n = adjacency.shape[0]
    row = np.repeat(np.arange(n), np.diff(adjacency.indptr))
    column = adjacency.indices.astype(np.int64)
    low, high = mixed(np.arange(n)), mixed(np.arange(n, 2 * n))
    tie = low[np.minimum(row, column)] ^ high[np.maximum(row, column)]
    heaviest = _row_maxima(row, adjacency.data, n)
    comparable = adjacency.data >= _COMPARABLE * np.maximum(heaviest[row], heaviest[column])
    edges = row[comparable], column[comparable]
    strength = adjacency.data[comparable] * (1 + (tie[comparable] >> np.uint64(40)).astype(np.float64) / 2**27)
    owner = np.full(n, -1, np.int64)
    for _ in range(2):
        best = _strongest(*edges, strength, n)
        has = np.flatnonzero(best >= 0)
        mutual = has[best[best[has]] == has]
        owner[mutual] = np.minimum(mutual, best[mutual])
        free = (owner[edges[0]] < 0) & (owner[edges[1]] < 0)
        edges, strength = (edges[0][free], edges[1][free]), strength[free]
    free = owner[row] < 0
    best = _strongest(row[free], column[free], adjacency.data[free], n)
    loose = np.flatnonzero((owner < 0) & (best >= 0))
    joins = loose[owner[best[loose]] >= 0]
    owner[joins] = owner[best[joins]]
    # where weights rise along a chain every unknown looks to the next: by lot some follow and some are followed
    lot = (mixed(np.arange(n)) & np.uint64(1)).astype(np.bool_)
    loose = np.flatnonzero((owner < 0) & (best >= 0))
    follow = loose[lot[loose] & ~lot[best[loose]] & (owner[best[loose]] < 0)]
    owner[best[follow]] = owner[follow] = best[follow]
    alone = np.flatnonzero((owner < 0) & (best >= 0))
    owner[alone] = alone
    kept = np.flatnonzero(owner >= 0)
    _, coarse = np.unique(owner[kept], return_inverse=True)
    return coo_array((np.ones(len(kept)), (coarse, kept)), shape=(int(coarse.max(initial=-1)) + 1, n)).tocsr()


def _strongest(row: IntArray, column: IntArray, strength: FloatArray, n: int) -> IntArray:
    """Column of the largest strength in each row, -1 in rows without any; rows are sorted."""
    top = _row_maxima(row, strength, n)
    hit = np.flatnonzero((strength == top[row]) & (strength > 0))[::-1]
    best = np.full(n, -1, np.int64)
    best[row[hit]] = column[hit]
    return best


def _row_maxima(row: IntArray, values: FloatArray, n: int) -> FloatArray:
    top = np.zeros(n)
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    top[row[starts]] = np.maximum.reduceat(values, starts)
    return top


def _incidence(adjacency: csr_array) -> tuple[csr_array, csr_array]:
    """B (m, n) and B^T W (n, m) of the edges."""
    edges = triu(adjacency, format="coo")
    m, n = edges.nnz, adjacency.shape[0]
    row, column = np.tile(np.arange(m), 2), np.concatenate([edges.row, edges.col])
    sign = np.repeat([1.0, -1.0], m)
    difference = coo_array((sign, (row, column)), shape=(m, n)).tocsr()
    divergence = coo_array((sign * np.tile(edges.data, 2), (column, row)), shape=(n, m)).tocsr()
    return difference, divergence


def _inverse(adjacency: csr_array) -> FloatArray:
    """A generalised inverse (n, n): the first unknown of every component is grounded, lone unknowns stay at 0."""
    label = connected_components(adjacency, directed=False)[1]
    free = np.ones(adjacency.shape[0], np.bool_)
    free[np.unique(label, return_index=True)[1]] = False
    inside = np.flatnonzero(free)
    dense = adjacency.toarray()
    ground = dense[np.ix_(inside, np.flatnonzero(~free))].sum(axis=1)
    inverse = np.zeros(dense.shape)
    if len(inside):
        inverse[np.ix_(inside, inside)] = grounded_inverses(dense[np.ix_(inside, inside)][None].copy(), ground[None])[0]
    return inverse


def _dots(a: PixelArray, b: PixelArray) -> FloatArray:
    """Scalar products of the columns, (p,)."""
    return np.asarray(np.einsum("ij,ij->j", a, b), np.float64)


def _quotient(a: FloatArray, b: FloatArray) -> FloatArray:
    """A / b, 0 where b is not positive."""
    positive: BoolArray = b > 0
    return np.where(positive, a / np.where(positive, b, 1.0), 0.0)
