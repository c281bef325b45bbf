"""Weights of pairs that contradict the others: all of them even out, or single ones count less.

Every overlap gets one more variance, the same in all of its component, so large that the weighted square sum of the
residuals is what it is expected to be (Paule & Mandel 1982, J. Res. NBS 87, 377, on a graph in the place of one mean).
It evens out the weights, and it enters the errors. Overlaps that agree as well as their errors allow get none.
Where single pairs must not spoil the rest, weights are those of iteratively reweighted least squares.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skymatch_cli.errors import SkymatchError
from skymatch_cli.model import FloatArray
from skymatch_cli.solve.leastsquares import NormalEquations
from skymatch_cli.solve.pairgraph import PairGraph

_HUBER, _TUKEY = 1.345, 4.685  # 95 % efficiency on Gaussian residuals (Holland & Welsch 1977)
_LEAST = 1e-6  # of its weight stays with a pair, so that no component falls apart
_SETTLED = 1e-3  # largest change of a factor
_LONGEST = 200  # steps, as a guard: the weights settle long before
_MEDIAN_OF_SIGMA = 0.6745  # median size of a Gaussian residual of unit variance


def kept_weights(equations: NormalEquations, delta: FloatArray, expected: FloatArray) -> FloatArray:
    """Part of its weight, 1e-6 to 1, that every pair keeps in a robust fit to the differences (m,).

    Huber's weights first (convex: one answer, whatever the start), then Tukey's from there, which leave a pair
    far off no say at all. Residuals count in units of their scale in the component: what the stated errors lead
    one to expect (``expected`` (C,), their weighted square sum), or the median of their sizes where that is larger.
    SkymatchError if the weights don't settle.
    """
    graph = equations.graph
    each = expected / np.maximum(graph.redundancy(), 1)

    def units(size: FloatArray) -> FloatArray:
        return np.sqrt(np.maximum(each, _median_square(graph, size)))[graph.component[graph.a]]

    def huber(size: FloatArray) -> FloatArray:
        kept: FloatArray = _HUBER / np.maximum(size / _positive(units(size)), _HUBER)
        return kept

    settled, size = _settle(equations, delta, np.ones(len(delta)), huber)
    unit = _positive(units(size))  # from here on fixed: Tukey's steps then go downhill and can't cycle

    def tukey(size: FloatArray) -> FloatArray:
        inside = np.minimum(size / unit / _TUKEY, 1.0)
        kept: FloatArray = np.maximum((1 - inside**2) ** 2, _LEAST)
        return kept

    return _settle(equations, delta, settled, tukey)[0]


def _settle(
    equations: NormalEquations, delta: FloatArray, kept: FloatArray, factors: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Repeat fit and reweighting until the weights stay: factors and weighted residual sizes."""
    graph = equations.graph
    for _ in range(_LONGEST):
        offset = equations.reweighted(graph.weight * kept).offsets(delta)
        size = np.sqrt(graph.weight) * np.abs(delta - graph.differences(offset))
        before, kept = kept, factors(size)
        if np.abs(kept - before).max(initial=0.0) < _SETTLED:
            return kept, size
    raise SkymatchError("the robust solution does not settle", hint="solve without it and look at the residuals")


def _median_square(graph: PairGraph, size: FloatArray) -> FloatArray:
    """Square of the median size of every component, scaled to the variance of Gaussian residuals."""
    own = graph.component[graph.a]
    order = np.lexsort((size, own))
    count = np.bincount(own, minlength=len(graph.size))
    middle = np.minimum(np.cumsum(count) - count + count // 2, len(order) - 1)
    return np.where(count > 0, (size[order][middle] / _MEDIAN_OF_SIGMA) ** 2, 0.0)


def _positive(x: FloatArray) -> FloatArray:
    return np.where(x > 0, x, 1.0)


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
