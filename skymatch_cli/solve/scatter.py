"""Scatter between overlaps: the disagreement beyond their own errors.

Every overlap gets one more variance, the same in all of its component, so large that the weighted square sum of the
residuals is what it is expected to be (Paule & Mandel 1982, J. Res. NBS 87, 377, on a graph in the place of one mean).
It evens out the weights, and it enters the errors. Overlaps that agree as well as their errors allow get none.
"""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import FloatArray
from skymatch_cli.solve.leastsquares import NormalEquations
from skymatch_cli.solve.pairgraph import PairGraph

_CLOSE = 0.01  # chi2/dof that is near enough to 1: half a per cent of the errors
_STEPS = 30  # a guard: three or four suffice
_LEAST_DOF = 0.5


def extra_variance(equations: NormalEquations, delta: FloatArray, own: FloatArray) -> FloatArray:
    """Variance that every overlap of a component has beyond its own, (C,); 0 where chi2/dof is not above 1.

    The weights of the pairs are their inverse variances. ``own`` (m,) is the expectation of ``weight * error**2`` of
    each difference by its own errors: 1, or less for pairs that look at the same pixels; see ``offsets.solve_offsets``.
    """
    graph = equations.graph
    more = np.zeros(len(graph.size))
    redundant = graph.redundancy() > 0
    for _ in range(_STEPS):
        weight = scattered_weights(graph, more)
        now = equations if not more.any() else equations.reweighted(weight)
        residual = delta - graph.differences(now.offsets(delta))
        square = graph.pair_sums(weight * residual**2)
        gain = more[graph.component[graph.a]] * graph.weight
        dof = graph.pair_sums((own + gain) / (1 + gain)) - (graph.size - 1.0)
        some = redundant & (dof > _LEAST_DOF) & (square > 0)
        ratio = np.where(some, dof, 1.0) / np.where(some, square, 1.0)
        above = some & ((ratio < 1 - _CLOSE) | ((more > 0) & (ratio > 1 + _CLOSE)))
        if not above.any():
            break
        # d(dof / square) / d(more): residuals are those of a minimum, so that they may be held
        falls = graph.pair_sums(weight**2 * residual**2)
        rises = graph.pair_sums(graph.weight * (1 - own) / (1 + gain) ** 2)
        slope = (rises + ratio * falls) / np.where(some, square, 1.0)
        step = np.where(above & (slope > 0), (1 - ratio) / np.where(slope > 0, slope, 1.0), 0.0)
        more = np.maximum(more + step, 0.0)
    return more


def scattered_weights(graph: PairGraph, more: FloatArray) -> FloatArray:
    """Weights of the pairs (m,) with the variances ``more`` (C,) added to their own."""
    weight: FloatArray = graph.weight / (1 + graph.weight * more[graph.component[graph.a]])
    return weight
