"""Inverses of grounded Laplacians of large graphs that fall apart where few unknowns are taken out.

Nested dissection (George 1973, SIAM J. Numer. Anal. 10, 345): a separator parts the unknowns in two that share no
weight. Each part is inverted by itself, with its weights to the separator as weights to the ground; what its
elimination adds to the separator, and what the separator then adds to its inverse, are sums of products of positive
numbers. So nothing is subtracted: the accuracy is that of ``elimination``, at a small part of the multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.solve.elimination import grounded_inverses

FEW = 250  # unknowns that are not worth a cut
_LEAST_PART = 0.2  # of the unknowns: the smaller side of a cut
_LARGEST_SEPARATOR = 0.12  # of the unknowns; beyond, the graph has no waist and is taken as a whole


@dataclass(frozen=True, slots=True)
class Cut:
    """How unknowns that lie in the order of a dissection fall apart: two parts, and after them their separator.

    ``sizes``: of the first part, the second and the separator, which is empty between parts that share nothing
    anyway; ``first``, ``second``: how the parts fall apart.
    """

    sizes: tuple[int, int, int]
    first: Cut | None
    second: Cut | None


def dissect(adjacency: csr_array) -> tuple[IntArray, Cut | None]:
    """An order of the unknowns (n,) in which separators follow what they part; None where there is no cut.

    The last unknown in that order is one of the first separator.

    Parameters
    ----------
    adjacency : (n, n) csr_array
        Symmetric; its entries are the pairs that share a weight.
    """
    n = adjacency.shape[0]
    everything = np.arange(n)
    if n <= FEW or (side := _sides(adjacency)) is None:
        return everything, None
    parts = [np.flatnonzero(side == s) for s in (-1, 1)]
    within = [dissect(csr_array(adjacency[part][:, part])) for part in parts]
    separator = np.flatnonzero(side == 0)
    order = np.concatenate([*(part[own] for part, (own, _) in zip(parts, within, strict=True)), separator])
    return order, Cut((len(parts[0]), len(parts[1]), len(separator)), within[0][1], within[1][1])


def _sides(adjacency: csr_array) -> IntArray | None:
    """Side of each unknown, -1 or 1, or 0 for the separator; None where that would be large.

    The separator is a set of unknowns at the same distance from one at the end of the graph: small, near the middle.
    A graph of several components needs none: they are dealt out to two sides of about the same size.
    """
    n = adjacency.shape[0]
    graph = _walkable(adjacency)
    n_components, component = connected_components(graph, directed=False)
    if n_components > 1:
        size = np.bincount(component)
        order = np.argsort(-size, kind="stable")
        before = np.cumsum(size[order]) - size[order]
        side = np.empty(n_components, np.int64)
        side[order] = np.where(before < n / 2, -1, 1)
        return np.asarray(side[component])
    distance = _distances(graph, 0)
    level = _distances(graph, int(np.argmax(distance))).astype(np.int64)
    count = np.bincount(level)
    before = np.cumsum(count) - count
    smaller = np.minimum(before, n - before - count)
    usable: BoolArray = (smaller >= _LEAST_PART * n) & (count <= _LARGEST_SEPARATOR * n)
    if not usable.any():
        return None
    chosen = int(np.argmin(count / np.where(usable, smaller, 1e-9)))
    return np.sign(level - chosen)


def _walkable(adjacency: csr_array) -> csr_array:
    """The same graph with 32-bit indices: scipy before 1.16 walks no others."""
    indices, indptr = adjacency.indices.astype(np.int32), adjacency.indptr.astype(np.int32)
    return csr_array((adjacency.data, indices, indptr), shape=adjacency.shape)


def _distances(graph: csr_array, start: int) -> FloatArray:
    """Steps from one unknown to every other, (n,)."""
    return np.asarray(dijkstra(graph, indices=np.array([start]), unweighted=True), np.float64).reshape(-1)


def dissected_inverse(weights: FloatArray, ground: FloatArray, cut: Cut | None) -> None:
    """Replace weights by the inverse of ``diag(ground + weights.sum(-1)) - weights``.

    Parameters
    ----------
    weights : (n, n) float64
        Symmetric, not negative, nothing on the diagonal.
    ground : (n,) float64
        Weight of each unknown to the ground; every one must reach the ground over positive weights.
    cut : Cut or None
        How they fall apart.
    """
    if cut is None:
        grounded_inverses(weights[None], ground[None])
        return
    n_first, n_second, n_separator = cut.sizes
    parts = slice(0, n_first), slice(n_first, n_first + n_second)
    if not n_separator:
        for part, inner in zip(parts, (cut.first, cut.second), strict=True):
            dissected_inverse(weights[part, part], ground[part], inner)
        return
    last = slice(n_first + n_second, None)
    carried = [
        _carried(weights[part, part], weights[part, last], ground[part], inner)
        for part, inner in zip(parts, (cut.first, cut.second), strict=True)
    ]
    middle = weights[last, last]
    grounded = ground[last].copy()
    for part, share in zip(parts, carried, strict=True):
        touching = np.flatnonzero(weights[part, last].any(axis=1))
        middle += weights[part, last][touching].T @ share[touching]
        grounded += share.T @ ground[part]
    np.fill_diagonal(middle, 0.0)
    grounded_inverses(middle[None], grounded[None])
    spread = [share @ middle for share in carried]
    for part, share, own in zip(parts, spread, carried, strict=True):
        weights[part, part] += share @ own.T
        weights[part, last] = share
        weights[last, part] = share.T
    across = spread[0] @ carried[1].T
    weights[parts[0], parts[1]] = across
    weights[parts[1], parts[0]] = across.T


def _carried(weights: FloatArray, outward: FloatArray, ground: FloatArray, cut: Cut | None) -> FloatArray:
    """Replace the weights of a part by its inverse -> that times the weights (n, s) to its separator."""
    dissected_inverse(weights, ground + outward.sum(axis=1), cut)
    touching = np.flatnonzero(outward.any(axis=1))
    return weights[:, touching] @ outward[touching]
