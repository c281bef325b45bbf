"""The graph that the used pairs make of the unknowns: components, differences, spanning trees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from skymatch_cli.compare.mesh.connected import connected
from skymatch_cli.model import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class PairGraph:
    """Unknowns (nodes) and pairs (edges) of the least-squares problem; several pairs may join two nodes."""

    n: int  # unknowns
    a: IntArray  # (m,): the unknowns that each pair compares, a != b
    b: IntArray  # (m,)
    weight: FloatArray  # (m,): weights of the pairs, positive
    component: IntArray  # (n,): numbered from 0 by the first unknown that is in it
    size: IntArray  # (C,): unknowns in each component

    @classmethod
    def of_pairs(cls, n: int, a: IntArray, b: IntArray, weight: FloatArray) -> PairGraph:
        """The graph of ``n`` unknowns and the m pairs (a, b), a != b, with positive weights."""
        component = connected(n, a, b)
        return cls(n=n, a=a, b=b, weight=weight, component=component, size=np.bincount(component, minlength=1))

    def adjacency(self) -> csr_array:
        """Summed weights of the pairs that join two unknowns, (n, n), symmetric."""
        low, high = np.minimum(self.a, self.b), np.maximum(self.a, self.b)
        upper = coo_array((self.weight, (low, high)), shape=(self.n, self.n)).tocsr()
        return csr_array(upper + upper.T)

    def differences(self, x: FloatArray) -> FloatArray:
        """B x: ``x[a] - x[b]`` of every pair, for x of shape (n,) or (n, p)."""
        difference: FloatArray = x[self.a] - x[self.b]
        return difference

    def weighted_incidence(self) -> csr_array:
        """B^T W, (n, m): sums weighted values of the pairs at the unknowns, with the sign of each."""
        row = np.concatenate([self.a, self.b])
        column = np.tile(np.arange(len(self.a)), 2)
        return coo_array(
            (np.concatenate([self.weight, -self.weight]), (row, column)), shape=(self.n, len(self.a))
        ).tocsr()

    def pair_sums(self, x: FloatArray) -> FloatArray:
        """Sums over the pairs of every component: (m,) to (C,)."""
        return np.bincount(self.component[self.a], x, len(self.size)).astype(np.float64)

    def redundancy(self) -> FloatArray:
        """Pairs of every component beyond those that a tree needs, (C,)."""
        return self.pair_sums(np.ones(len(self.a))) - (self.size - 1.0)

    def centred(self, x: FloatArray) -> FloatArray:
        """x, (n,) or (n, p), with the mean of every component taken off."""
        size = self.size.reshape(-1, *[1] * (x.ndim - 1))
        return x - (self.component_sums(x) / size)[self.component]

    def component_sums(self, x: FloatArray) -> FloatArray:
        """Sums over the unknowns of every component: (n,) or (n, p) to (C,) or (C, p)."""
        if x.ndim == 1:
            return np.bincount(self.component, x, len(self.size)).astype(np.float64)
        return np.asarray(x.sum(axis=0, keepdims=True) if len(self.size) == 1 else self._of_components @ x, np.float64)

    @cached_property
    def _of_components(self) -> csr_array:
        """Sums values of the unknowns over those of every component, (C, n)."""
        return csr_array((np.ones(self.n), (self.component, np.arange(self.n))), shape=(len(self.size), self.n))


@dataclass(frozen=True, slots=True)
class SpanningTree:
    """The heaviest spanning tree of every component."""

    order: IntArray  # (n,): the unknowns, parents before their children
    parent: IntArray  # (n,): parent of every unknown; the root of a component is its own parent

    def pairs_of(self, graph: PairGraph) -> tuple[BoolArray, IntArray]:
        """Which pairs (m,) join an unknown to its parent, and these unknowns."""
        down, up = self.parent[graph.a] == graph.b, self.parent[graph.b] == graph.a
        return down | up, np.where(down, graph.a, graph.b)[down | up]


def spanning_tree(graph: PairGraph) -> SpanningTree:
    """The heaviest spanning tree of every component, seen from the component's first unknown."""
    n = graph.n
    cost = graph.adjacency()
    cost.data = 1 / cost.data
    # scipy before 1.16 walks graphs with 32-bit indices only
    cost.indices, cost.indptr = cost.indices.astype(np.int32), cost.indptr.astype(np.int32)
    kept = minimum_spanning_tree(cost).tocoo()
    _, roots = np.unique(graph.component, return_index=True)
    # one more node joins all roots, so that a single search walks every component
    row = np.concatenate([kept.row, np.full(len(roots), n)]).astype(np.int32)
    column = np.concatenate([kept.col, roots]).astype(np.int32)
    joined = coo_array((np.ones(len(row)), (row, column)), shape=(n + 1, n + 1)).tocsr()
    order, parent = breadth_first_order(joined, n, directed=False)
    above = parent[:n].astype(np.int64)
    above[roots] = roots
    return SpanningTree(order=order[1:].astype(np.int64), parent=above)


def tree_potential(graph: PairGraph, tree: SpanningTree, delta: FloatArray) -> FloatArray:
    """Values (n,) that agree with the differences ``delta`` (m,) of the pairs along the tree; 0 at the roots.

    Where several pairs join a node to its parent, their weighted mean counts. Paths to the root are summed by doubling
    (log2 of the depth steps), which also keeps rounding small.
    """
    on_tree, child = tree.pairs_of(graph)
    weight = graph.weight[on_tree]
    upward = np.where(child == graph.a[on_tree], delta[on_tree], -delta[on_tree])
    total = np.bincount(child, weight, minlength=graph.n)
    step = np.bincount(child, weight * upward, minlength=graph.n) / np.where(total > 0, total, 1.0)
    x = np.where(tree.parent == np.arange(graph.n), 0.0, step)
    up = tree.parent
    while True:
        x = x + x[up]
        above = up[up]
        if np.array_equal(above, up):
            return x
        up = above
