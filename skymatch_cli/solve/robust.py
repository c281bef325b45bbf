"""Iteratively reweighted least squares: a pair that contradicts all others must not spoil them."""

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
