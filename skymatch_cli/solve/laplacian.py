"""Solutions with the Laplacian of the graph of pairs: scipy's ``splu``, or LAPACK's ``potrf`` where all is dense.

One unknown of every component is held at zero, which makes the matrix positive definite. Components of middle size
are factorised densely one by one, since exact errors need their inverse anyway (``potri``). All others, the small and
the large, are blocks of one sparse matrix: of the small ones the inverse is found from unit vectors in all of them at
a time, of the large ones errors are estimated (``leastsquares``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
    singular : (C,) bool
        Components whose matrix can't be factorised in double precision: their solutions are NaN.

    """

    graph: PairGraph
    small: BoolArray
    dense: tuple[DenseFactor, ...]
    free: IntArray
    factors: SuperLU | None
    singular: BoolArray

    @classmethod
    def of_graph(cls, graph: PairGraph) -> Laplacian:
        """Factorise the Laplacian of a graph."""
        small = graph.size <= min(FEW, MAX_EXACT)
        middle = _dense_components(graph.size) & ~small
        first = np.unique(graph.component, return_index=True)[1]
        free = ~middle[graph.component]
        free[first] = False
        order = np.argsort(graph.component, kind="stable")
        start = np.cumsum(graph.size) - graph.size
        singular = np.zeros(len(graph.size), np.bool_)
        dense = []
        for c in np.flatnonzero(middle).tolist():
            factor = DenseFactor.of_component(graph, c, order[start[c] : start[c] + graph.size[c]])
            if factor is None:
                singular[c] = True
            else:
                dense.append(factor)
        unknowns, factors = _sparse_factors(graph, np.flatnonzero(free))
        if len(unknowns) < np.count_nonzero(free):
            free[unknowns] = False
            singular[graph.component[free]] = True
        return cls(graph, small, tuple(dense), unknowns, factors, singular)

    @property
    def exact(self) -> BoolArray:
        """Return which components (C,) have a known inverse."""
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
        x[self.singular[self.graph.component]] = np.nan
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


@dataclass(frozen=True, eq=False)
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
    def of_component(cls, graph: PairGraph, component: int, nodes: IntArray) -> DenseFactor | None:
        """Factorise the component whose unknowns are ``nodes``; None where its matrix is singular."""
        matrix = -graph.adjacency[nodes][:, nodes].toarray(order="F")
        np.fill_diagonal(matrix, -matrix.sum(axis=1))
        lower, failed = dpotrf(matrix[1:, 1:], lower=1, clean=0)
        return None if failed else cls(component, nodes, lower)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solutions (size, p) that are 0 at the first unknown."""
        x = np.zeros(rhs.shape)
        x[1:] = dpotrs(self.lower, rhs[1:], lower=1)[0]
        return x

    @cached_property
    def inverse(self) -> FloatArray:
        """Pseudo-inverse (size, size) of the Laplacian: means of rows and columns are zero."""
        whole = np.zeros((len(self.nodes), len(self.nodes)), order="F")
        triangle = np.tril(dpotri(self.lower, lower=1)[0])
        diagonal = np.diag(triangle).copy()
        whole[1:, 1:] = triangle + triangle.T
        np.fill_diagonal(whole[1:, 1:], diagonal)
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


def _sparse_factors(graph: PairGraph, free: IntArray) -> tuple[IntArray, SuperLU | None]:
    """Factors of the rows and columns of unknowns, and which these are: those of singular components are left out."""
    if not len(free):
        return free, None
    degree = np.asarray(graph.adjacency.sum(axis=1), np.float64)
    whole = csr_array(diags_array(degree) - graph.adjacency)
    try:
        return free, _factorised(whole, free)
    except RuntimeError:
        own = (free[graph.component[free] == c] for c in np.unique(graph.component[free]))
        regular = np.concatenate([free[:0], *(nodes for nodes in own if _is_regular(whole, nodes))])
    return regular, _factorised(whole, regular) if len(regular) else None


def _factorised(whole: csr_array, nodes: IntArray) -> SuperLU:
    return splu(
        csc_array(whole[nodes][:, nodes]),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _is_regular(whole: csr_array, nodes: IntArray) -> bool:
    try:
        _factorised(whole, nodes)
    except RuntimeError:  # "Factor is exactly singular"
        return False
    return True
