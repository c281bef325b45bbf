"""Solutions with the Laplacian of the graph of pairs: scipy's ``splu``, or LAPACK's ``potrf`` where all is dense.

One unknown of every component is held at zero, which makes the matrix positive definite. Components of middle size
are factorised densely one by one, since exact errors need their inverse anyway (``potri``). All others, the small and
the large, are blocks of one sparse matrix: of the small ones the inverse is found from unit vectors in all of them at
a time, of the large ones errors are estimated (``leastsquares``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.sparse import coo_array, csc_array, csr_array, diags_array
from scipy.sparse.linalg import SuperLU, splu

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.solve.pairgraph import PairGraph

MAX_EXACT = 5000  # unknowns of one component with exact errors, and (sum of cubes) of all that are factorised densely
FEW = 64  # unknowns of a component whose inverse comes from unit vectors


@dataclass(frozen=True, slots=True, eq=False)
class Laplacian:
    """The factorised Laplacian of a graph.

    Attributes
    ----------
    graph : PairGraph
    small : (C,) bool
        Components of up to 64 unknowns.
    dense : tuple of DenseFactor
        Components of middle size.
    free : (k,) int64
        Unknowns of the other components, without the first of each.
    factors : SuperLU or None
        Of their rows and columns; None where there are none.

    """

    graph: PairGraph
    small: BoolArray
    dense: tuple[DenseFactor, ...]
    free: IntArray
    factors: SuperLU | None

    @classmethod
    def of_graph(cls, graph: PairGraph) -> Laplacian:
        """Factorise the Laplacian of a graph."""
        small = graph.size <= min(FEW, MAX_EXACT)
        middle = _dense_components(graph.size) & ~small
        first = np.unique(graph.component, return_index=True)[1]
        free = ~middle[graph.component]
        free[first] = False
        unknowns = np.flatnonzero(free)
        order = np.argsort(graph.component, kind="stable")
        start = np.cumsum(graph.size) - graph.size
        dense = tuple(
            DenseFactor.of_component(graph, int(c), order[start[c] : start[c] + graph.size[c]])
            for c in np.flatnonzero(middle)
        )
        return cls(graph, small, dense, unknowns, _sparse_factors(graph, unknowns))

    @property
    def exact(self) -> BoolArray:
        """Components (C,) of which the inverse is known."""
        known = self.small.copy()
        known[[factor.component for factor in self.dense]] = True
        return known

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solutions (n, p), mean zero in every component, for right-hand sides (n, p) that sum to zero in each."""
        x = np.zeros(rhs.shape)
        if self.factors is not None:
            x[self.free] = self.factors.solve(np.asarray(rhs[self.free], order="F"))
        for factor in self.dense:
            x[factor.nodes] = factor.solve(rhs[factor.nodes])
        return self.graph.centred(x)

    def small_inverse(self) -> csr_array:
        """Pseudo-inverse of the Laplacian of the small components, (n, n); the rows of others are empty."""
        graph = self.graph
        order = np.argsort(graph.component, kind="stable")
        place = np.empty(graph.n, np.int64)
        place[order] = np.arange(graph.n) - (np.cumsum(graph.size) - graph.size)[graph.component[order]]
        nodes = np.flatnonzero(self.small[graph.component] & (graph.size[graph.component] > 1))
        width = int(graph.size[graph.component[nodes]].max(initial=0))
        unit = np.zeros((graph.n, width))
        unit[nodes, place[nodes]] = 1.0
        columns = self.solve(graph.centred(unit))
        first = np.cumsum(graph.size) - graph.size
        own, k = np.nonzero(np.arange(width) < graph.size[graph.component[nodes]][:, None])
        row = nodes[own]
        return coo_array(
            (columns[row, k], (row, order[first[graph.component[row]] + k])), shape=(graph.n, graph.n)
        ).tocsr()


@dataclass(frozen=True, slots=True, eq=False)
class DenseFactor:
    """Cholesky factor of the Laplacian of one component, without its first unknown.

    Attributes
    ----------
    component : int
    nodes : (size,) int64
        The unknowns of the component.
    lower : (size - 1, size - 1) float64
        Lower triangle, in the order of Fortran.

    """

    component: int
    nodes: IntArray
    lower: FloatArray

    @classmethod
    def of_component(cls, graph: PairGraph, component: int, nodes: IntArray) -> DenseFactor:
        """Factorise the component whose unknowns are ``nodes``."""
        matrix = -graph.adjacency[nodes][:, nodes].toarray(order="F")
        np.fill_diagonal(matrix, -matrix.sum(axis=1))
        lower, failed = dpotrf(matrix[1:, 1:], lower=1, clean=0)
        if failed:  # weights of limited span make no singular matrix
            raise ArithmeticError(f"component {component}: its normal matrix is not positive definite")
        return cls(component, nodes, lower)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solutions (size, p) that are 0 at the first unknown."""
        x = np.zeros(rhs.shape)
        x[1:] = dpotrs(self.lower, rhs[1:], lower=1)[0]
        return x

    def inverse(self) -> FloatArray:
        """Pseudo-inverse (size, size) of the Laplacian: means of rows and columns are zero."""
        whole = np.zeros((len(self.nodes), len(self.nodes)), order="F")
        triangle = np.tril(dpotri(self.lower, lower=1)[0])
        whole[1:, 1:] = triangle + np.tril(triangle, -1).T
        mean = whole.mean(axis=0)
        whole -= mean
        whole -= (mean - mean.mean())[:, None]
        return whole


def _dense_components(size: IntArray) -> BoolArray:
    """Which components may be inverted: the smallest, as long as they cost no more than one of ``MAX_EXACT``."""
    order = np.argsort(size, kind="stable")
    cost = np.cumsum(np.where(size[order] > FEW, size[order], 0).astype(float) ** 3)
    chosen = np.empty(len(size), np.bool_)
    chosen[order] = (cost <= float(MAX_EXACT) ** 3) & (size[order] <= MAX_EXACT)
    return chosen


def _sparse_factors(graph: PairGraph, free: IntArray) -> SuperLU | None:
    if not len(free):
        return None
    degree = np.asarray(graph.adjacency.sum(axis=1), np.float64)
    whole = csr_array(diags_array(degree) - graph.adjacency)
    return splu(
        csc_array(whole[free][:, free]),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
