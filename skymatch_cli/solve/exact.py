"""Components small enough for the inverse of their normal matrix: solutions and variances to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.solve.dissection import FEW, Cut, dissect, dissected_inverse
from skymatch_cli.solve.elimination import grounded_inverses
from skymatch_cli.solve.pairgraph import PairGraph

MAX_UNKNOWNS = 5000  # of one component, and (sum of cubes) of all together
_ENTRIES = 2**21  # of a stack of matrices
_COLUMNS = 128  # of a large matrix that are worked on at a time


@dataclass(frozen=True, slots=True)
class ExactSolution:
    """What the inverses say; rows of components that are not solved here are 0.

    Attributes
    ----------
    x : (n, p) float64
        Mean-zero solutions of the normal equations for p right-hand sides.
    variance : (n,) float64
        Of every unknown, in the gauge where the mean of its component is zero.
    explained : (C,) float64
        Expected weighted square sum that the solution takes out of pure noise: tr(L^+ B^T W C W B).

    """

    x: FloatArray
    variance: FloatArray
    explained: FloatArray


def small_components(size: IntArray) -> BoolArray:
    """Which components are solved by inversion: the smallest, as long as they cost no more than one of 5000."""
    order = np.argsort(size, kind="stable")
    cost = np.cumsum(size[order].astype(float) ** 3)
    small = np.empty(len(size), np.bool_)
    small[order] = (cost <= float(MAX_UNKNOWNS) ** 3) & (size[order] <= MAX_UNKNOWNS)
    return small


def solve_exactly(graph: PairGraph, chosen: BoolArray, rhs: FloatArray, scatter: csr_array | None) -> ExactSolution:
    """Solve the chosen components by the inverse of their Laplacian.

    Parameters
    ----------
    graph : PairGraph
    chosen : (C,) bool
    rhs : (n, p) float64
        Right-hand sides; each sums to zero in every component.
    scatter : (n, n) csr_array or None
        Covariance of the right-hand side under the noise, B^T W C W B. None: the Laplacian itself.

    Returns
    -------
    ExactSolution

    """
    x, variance, explained = np.zeros(rhs.shape), np.zeros(graph.n), np.zeros(len(graph.size))
    order, cuts = _arranged(graph, chosen)
    adjacency = csr_array(graph.adjacency[order][:, order])
    sorted_scatter = None if scatter is None else csr_array(scatter[order][:, order])
    for stack in _stacks(graph, chosen, order):
        inverse = _centred_inverses(stack, adjacency, cuts.get(stack.rows.start))
        nodes, ids = order[stack.rows], graph.component[order[stack.first]]
        padded = np.zeros((*inverse.shape[:2], rhs.shape[1]))
        padded[stack.member, stack.place] = rhs[nodes]
        x[nodes] = (inverse @ padded)[stack.member, stack.place]
        if sorted_scatter is None:
            variance[nodes], explained[ids] = inverse[stack.member, stack.place, stack.place], stack.size - 1.0
        else:
            variance[nodes], explained[ids] = _under_noise(stack, inverse, sorted_scatter)
    return ExactSolution(x, variance, explained)


def _arranged(graph: PairGraph, chosen: BoolArray) -> tuple[IntArray, dict[int, Cut]]:
    """An order of the unknowns: components of one size side by side, the unknowns of each one after another.

    Large ones are in the order of their dissection; their cuts by the place of their first unknown.
    """
    order = np.lexsort((graph.component, graph.size[graph.component]))
    component = graph.component[order]
    cuts = {}
    for first in np.flatnonzero(np.diff(component, prepend=-1)).tolist():
        size = int(graph.size[component[first]])
        if size > FEW and chosen[component[first]]:
            nodes = order[first : first + size]
            within, cut = dissect(csr_array(graph.adjacency[nodes][:, nodes]))
            order[first : first + size] = nodes[within]
            if cut is not None:
                cuts[first] = cut
    return order, cuts


@dataclass(frozen=True, slots=True)
class _Stack:
    """Components that lie one after another in a matrix, to be worked on together.

    ``rows``: their rows; ``first``, ``size`` (k,): where each begins and how long it is; ``member``, ``place``:
    component in the stack and unknown in the component for each of the rows.
    """

    rows: slice
    first: IntArray
    size: IntArray
    member: IntArray
    place: IntArray

    def dense(self, matrix: csr_array) -> FloatArray:
        """The diagonal blocks of the stack, (k, width, width), zero where a component is smaller."""
        entries = matrix[self.rows].tocoo()
        column = entries.col - self.rows.start
        width = int(self.size[-1])
        blocks = np.zeros((len(self.size), width, width))
        blocks[self.member[entries.row], self.place[entries.row], self.place[column]] = entries.data
        return blocks


def _stacks(graph: PairGraph, chosen: BoolArray, order: IntArray) -> Iterator[_Stack]:
    """Chosen components of two and more, of similar size, in stacks of bounded memory; large ones alone."""
    size = graph.size[graph.component[order]]
    first = np.flatnonzero(np.diff(graph.component[order], prepend=-1))
    first = first[chosen[graph.component[order[first]]] & (size[first] > 1)]
    start = 0
    while start < len(first):
        smallest = int(size[first[start]])
        limit = smallest + smallest // 4
        most = max(1, _ENTRIES // limit**2) if smallest <= FEW else 1
        stop = start + min(most, int(np.searchsorted(size[first[start:]], limit, side="right")))
        sizes = size[first[start:stop]]
        begin = first[start]
        member = np.repeat(np.arange(stop - start), sizes)
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield _Stack(slice(begin, begin + len(place)), first[start:stop], sizes, member, place)
        start = stop


def _centred_inverses(stack: _Stack, adjacency: csr_array, cut: Cut | None) -> FloatArray:
    """Pseudo-inverses (k, width, width) of the Laplacians of a stack, zero where a component is smaller."""
    weights = stack.dense(adjacency)
    k, last = np.arange(len(stack.size)), stack.size - 1
    ground = weights[k, last]
    weights[k, last] = weights[k, :, last] = 0.0
    alone, place = np.nonzero(np.arange(weights.shape[1]) >= last[:, None])
    ground[alone, place] = 1.0  # the grounded unknown and the padding
    if cut is None:
        inverse = grounded_inverses(weights, ground)
    else:
        inverse = weights
        dissected_inverse(inverse[0], ground[0], cut)
    inverse[alone, place, place] = 0.0
    mean = inverse.sum(axis=1) / stack.size[:, None]
    inverse -= mean[:, None, :]
    inverse -= (mean - (mean.sum(axis=1) / stack.size)[:, None])[:, :, None]
    if len(place) > len(stack.size):
        present = np.arange(weights.shape[1]) < stack.size[:, None]
        inverse *= present[:, :, None] & present[:, None, :]
    return inverse


def _under_noise(stack: _Stack, inverse: FloatArray, scatter: csr_array) -> tuple[FloatArray, FloatArray]:
    """Variance of every unknown of a stack, and what the solutions of its k components explain: traces, (k,)."""
    if len(stack.size) > 1 or scatter[stack.rows].nnz * 10 > int(stack.size[0]) ** 2:
        spread = inverse @ stack.dense(scatter)
        variance = np.einsum("kij,kij->ki", inverse, spread)[stack.member, stack.place]
        return variance, np.einsum("kii->k", spread)
    # Some columns at a time: a second matrix of this size would take as long to be had as to be filled.
    block, whole = scatter[stack.rows][:, stack.rows], inverse[0]
    variance, explained = np.empty(len(whole)), 0.0
    for low in range(0, len(whole), _COLUMNS):
        some = slice(low, low + _COLUMNS)
        spread = np.asarray(block @ whole[:, some], np.float64)
        variance[some] = np.einsum("ji,ji->i", whole[:, some], spread)  # it is symmetric
        explained += float(np.einsum("ii->", spread[some]))
    return variance, np.array([explained])
