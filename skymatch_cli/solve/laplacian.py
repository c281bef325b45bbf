"""Solutions with the Laplacian of the graph of pairs, by scipy's ``splu``.

One unknown of every component is held at zero, which makes the matrix positive definite. Small components are
factorised together, as blocks of one matrix, larger ones each alone. Exact errors need the inverse: its columns are
found some at a time, so that no component costs the square of its unknowns in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.sparse.linalg import SuperLU, splu

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.solve.pairgraph import PairGraph

MAX_EXACT = 5000  # unknowns of one component with exact errors, and (sum of cubes) of all such components
FEW = 64  # unknowns of a small component
_BLOCK = 2**19  # elements of the columns of an inverse that are held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Laplacian:
    """The factorised Laplacian of a graph."""

    graph: PairGraph
    order: IntArray  # (n,): the unknowns by component, small components first
    blocks: tuple[Block, ...]  # of all components of two unknowns or more
    exact: BoolArray  # (C,): components whose inverse is affordable
    singular: BoolArray  # (C,): those whose matrix can't be factorised: their solutions are NaN

    @classmethod
    def of_graph(cls, graph: PairGraph) -> Laplacian:
        """Factorise the Laplacian of a graph."""
        adjacency = graph.adjacency()
        degree = np.asarray(adjacency.sum(axis=1), np.float64)
        order = np.lexsort((graph.component, graph.size[graph.component]))
        whole = csr_array(diags_array(degree) - adjacency)[order][:, order]
        components = np.argsort(graph.size, kind="stable")
        size = graph.size[components]
        single, few = np.searchsorted(size, [1, min(FEW, MAX_EXACT)], side="right").tolist()
        cuts = [single, *range(max(single, few), len(size) + 1)]
        begin = np.concatenate([[0], np.cumsum(size)]).tolist()
        singular = np.zeros(len(size), np.bool_)
        blocks: list[Block] = []
        for i, j in pairwise(cuts):
            found = _factorised(whole, components[i:j], begin[i], size[i:j]) if i < j else []
            blocks += found
            singular[components[i:j]] = True
            singular[[c for block in found for c in block.components.tolist()]] = False
        return cls(graph, order, tuple(blocks), _affordable(graph.size), singular)

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solutions (n, p), mean zero in every component, for right-hand sides (n, p) that sum to zero in each."""
        x = np.zeros(rhs.shape)
        for block in self.blocks:
            nodes = self.order[block.span]
            x[nodes] = block.solve(rhs[nodes])
        x[self.singular[self.graph.component]] = np.nan
        return self.graph.centred(x)

    def variances(self, scatter: csr_array | None) -> tuple[FloatArray, FloatArray]:
        """Variance of every unknown (n,), and tr(L^+ scatter) of every component (C,), where the inverse is affordable.

        ``scatter`` is the covariance of the right-hand side within the components; None: the Laplacian itself (no
        trace).
        """
        variance, traces = np.zeros(self.graph.n), np.zeros(len(self.graph.size))
        sorted_scatter = None if scatter is None else scatter[self.order][:, self.order]
        for block in self.blocks:
            if not self.exact[block.components].all():
                continue
            nodes = self.order[block.span]
            own = None if sorted_scatter is None else sorted_scatter[block.span, block.span]
            for which, row, column, inverse in block.inverse_columns():
                if own is None:
                    variance[nodes[row]] = inverse[row, column]
                    continue
                spread = np.asarray(own @ inverse)
                variance[nodes[row]] = np.add.reduceat(inverse * spread, block.first)[which, column]
                np.add.at(traces, block.components[which], spread[row, column])
        return variance, traces


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The factorised matrix of some components."""

    components: IntArray  # (c,)
    span: slice  # of their unknowns in `Laplacian.order`
    first: IntArray  # (c,): where each component begins in the block; its first unknown is held at zero
    size: IntArray  # (c,)
    factors: SuperLU  # of the other rows and columns

    def solve(self, rhs: FloatArray) -> FloatArray:
        """Solutions (k, p) that are 0 at the first unknown of each component."""
        x = np.zeros(rhs.shape)
        free = np.delete(np.arange(len(rhs)), self.first)
        x[free] = self.factors.solve(np.asarray(rhs[free], order="F"))
        return x

    def inverse_columns(self) -> Iterator[tuple[IntArray, IntArray, IntArray, FloatArray]]:
        """Columns of the pseudo-inverse, those of one unknown of every component side by side.

        Yields component (in the block), row and column of each unknown whose column is given, (u,), and the columns (k,
        p): each holds the columns of all components, one below the other.
        """
        n = int(self.size.sum())
        width = max(8, min(FEW, _BLOCK // n))
        for begin in range(0, int(self.size.max()), width):
            which, column = np.nonzero(begin + np.arange(width) < self.size[:, None])
            row = self.first[which] + begin + column
            unit = np.zeros((n, min(width, int(self.size.max()) - begin)))
            unit[row, column] = 1.0
            yield which, row, column, self._centred(self.solve(self._centred(unit)))

    def _centred(self, x: FloatArray) -> FloatArray:
        mean = np.add.reduceat(x, self.first) / self.size[:, None]
        return x - (mean if len(mean) == 1 else np.repeat(mean, self.size, axis=0))


def _affordable(size: IntArray) -> BoolArray:
    """Which components may be inverted: the smallest, as long as they cost no more than one of ``MAX_EXACT``."""
    order = np.argsort(size, kind="stable")
    cost = np.cumsum(np.where(size[order] > FEW, size[order], 0).astype(float) ** 3)
    chosen = np.empty(len(size), np.bool_)
    chosen[order] = (cost <= float(MAX_EXACT) ** 3) & (size[order] <= MAX_EXACT)
    return chosen


def _factorised(whole: csr_array, components: IntArray, begin: int, size: IntArray) -> list[Block]:
    """One block of components that follow each other from row ``begin``; several where some can't be factorised."""
    first = np.cumsum(size) - size
    span = slice(begin, begin + int(size.sum()))
    free = np.delete(np.arange(span.stop - begin), first)
    try:
        factors = symmetric_factors(whole[span, span][free][:, free])
    except RuntimeError:  # "Factor is exactly singular"
        one = range(len(components) if len(components) > 1 else 0)
        each = (_factorised(whole, components[k : k + 1], begin + int(first[k]), size[k : k + 1]) for k in one)
        return [block for found in each for block in found]
    return [Block(components, span, first, size, factors)]


def symmetric_factors(matrix: csr_array | csc_array) -> SuperLU:
    """Factorise a symmetric positive definite matrix; RuntimeError if it is singular."""
    options = {"SymmetricMode": True}
    return splu(csc_array(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
