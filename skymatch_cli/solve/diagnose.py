"""Diagnose a solution: pairs that alone connect its parts, loops that do not close, bad fits."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray, Offsets
from skymatch_cli.solve.leastsquares import random_bits
from skymatch_cli.solve.pairgraph import PairGraph, SpanningTree, spanning_tree, tree_potential

_THIN = 3.0  # times the typical error of the component's other pairs
_IMPROBABLE_SIGMA = 4.75  # a fit this bad has a chance of one in a million
_FAR = 2.0  # chi²/dof below which a significant excess is still no reason to act


def bridges(n_groups: int, a: IntArray, b: IntArray) -> BoolArray:
    """Find bridges: pairs (m,) of groups without which their component falls in two.

    Every pair outside a spanning tree closes a loop. It gets a hash, and the tree's pairs along its loop take
    up the same hash by exclusive or: a pair of the tree that has met no loop is a bridge.
    """
    graph = PairGraph.of_pairs(n_groups, a, b, np.ones(len(a)))
    tree = spanning_tree(graph)
    joins, child = tree.pairs_of(graph)
    lower, first = np.unique(child, return_index=True)
    branch = np.flatnonzero(joins)[first]  # of several pairs that join a node to its parent the others are loops
    loops = np.delete(np.arange(len(a)), branch)
    met = np.zeros(n_groups, np.uint64)
    bits = random_bits(len(loops))
    np.bitwise_xor.at(met, a[loops], bits)
    np.bitwise_xor.at(met, b[loops], bits)
    below = met.tolist()
    parent = tree.parent.tolist()
    for node in tree.order[::-1].tolist():
        if parent[node] != node:
            below[parent[node]] ^= below[node]
    found = np.zeros(len(a), np.bool_)
    found[branch] = np.array(below, np.uint64)[lower] == 0
    return found


def thin_bridges(offsets: Offsets, a: IntArray, b: IntArray, delta_err: FloatArray) -> IntArray:
    """Bridges with errors much larger than those of the other pairs of their component; the worst of each.

    ``a``, ``b`` (M,) are the groups of the pairs.
    """
    used = np.flatnonzero(np.isfinite(offsets.residual))
    own, err = offsets.component[a[used]], delta_err[used]
    order = np.lexsort((err, own))
    count = np.bincount(own, minlength=len(offsets.chi2))
    last = np.cumsum(count) - 1
    typical = np.full(len(count), np.inf)
    some = count >= 3
    typical[some] = err[order][(last - count + 1 + (count - 1) // 2)[some]]
    hangs = np.flatnonzero(bridges(len(offsets.offset), a[used], b[used]) & (err > _THIN * typical[own]))
    worst = hangs[np.lexsort((-err[hangs], own[hangs]))]
    _, first = np.unique(own[worst], return_index=True)
    return used[worst[first]]


def bad_fits(chi2: FloatArray, dof: FloatArray) -> IntArray:
    """Components whose residuals are larger than the errors allow, beyond chance."""
    dof = np.where(dof > 0, dof, np.nan)
    # chi2 to a normal deviate: Wilson and Hilferty 1931, PNAS 17, 684 (scipy.special takes a third of a second to load)
    spread = 2 / (9 * dof)
    deviate = (np.cbrt(chi2 / dof) - (1 - spread)) / np.sqrt(spread)
    return np.flatnonzero((deviate > _IMPROBABLE_SIGMA) & (chi2 > _FAR * dof))


def loop_closure(graph: PairGraph, tree: SpanningTree, delta: FloatArray) -> tuple[FloatArray, IntArray]:
    """Rms by which loops of differences (m,) fail to close, NaN without a loop, and the number of loops; (C,) each.

    Every pair outside the heaviest spanning tree closes one loop with it.
    """
    gap = delta - graph.differences(tree_potential(graph, tree, delta))
    n_loops = graph.redundancy().astype(np.int64)
    square = graph.pair_sums(gap**2)
    return np.where(n_loops > 0, np.sqrt(square / np.maximum(n_loops, 1)), np.nan), n_loops
