"""Weighted least squares of differences: which offsets agree best with them, and how noise gets into those.

The normal matrix is the Laplacian L = B^T W B of the graph of the pairs. Small components are solved by its
inverse; large ones by conjugate gradients, whose errors are then estimated from responses to artificial noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .exact import small_components, solve_exactly
from .model import FloatArray
from .pairgraph import PairGraph, spanning_tree, tree_potential
from .signs import sign_columns

_ALL_PAIRS = 500  # up to here the second moment of the residuals is computed, not probed
_PROBES = 64


@dataclass(frozen=True, slots=True)
class NoiseResponse:
    """What the noise of the pairs does to the solution.

    Attributes
    ----------
    variance : (n,) float64
        Of every unknown, in the gauge where its component's mean is zero.
    expected : (C,) float64
        Expectation of the weighted square sum of the residuals, tr(W P C P^T).
    second : (C,) float64
        tr((W P C P^T)^2): half the variance of that sum for Gaussian noise.
    exact : bool
        False where a variance is an estimate.

    """

    variance: FloatArray
    expected: FloatArray
    second: FloatArray
    exact: bool


def fit(graph: PairGraph, delta: FloatArray) -> FloatArray:
    """Least-squares offsets (n,) for the differences (m,), mean zero in every component.

    The fit starts from offsets that agree with all differences along the heaviest spanning tree, so that only
    what the pairs disagree about passes through the normal equations: consistent differences come back exactly.
    """
    start = tree_potential(graph, spanning_tree(graph), delta)
    rhs = graph.weighted_incidence() @ (delta - graph.differences(start))
    step = solve_exactly(graph, small_components(graph.size), rhs[:, None], None).x[:, 0]
    return graph.centred(start + step)


def noise_response(graph: PairGraph, noise: csr_array | None) -> NoiseResponse:
    """Covariance of the solution and moments of the residuals.

    Parameters
    ----------
    graph : PairGraph
    noise : (m, K) csr_array or None
        Noise factor of the pairs, C = S S^T; None: independent pairs with the weights as inverse variances.

    Returns
    -------
    NoiseResponse

    """
    small = small_components(graph.size)
    if noise is None:
        exact = solve_exactly(graph, small, np.zeros((graph.n, 0)), None)
        redundancy = graph.redundancy()
        return NoiseResponse(exact.variance, redundancy, redundancy, True)
    every = len(graph.a) <= _ALL_PAIRS
    columns = (noise @ noise.T).toarray() if every else noise @ sign_columns(noise.shape[1], slice(_PROBES))
    incidence = graph.weighted_incidence()
    flow = csr_array(incidence @ noise)
    exact = solve_exactly(graph, small, incidence @ columns, csr_array(flow @ flow.T))
    weighted = graph.weight[:, None] * (columns - graph.differences(exact.x))
    second = (weighted * weighted.T).sum(axis=1) if every else (weighted * (noise @ (noise.T @ weighted))).mean(axis=1)
    total = graph.pair_sums(graph.weight * np.asarray(noise.multiply(noise).sum(axis=1)))
    expected = total - exact.explained
    expected[(expected < 1e-9 * total) | (graph.redundancy() < 0.5)] = 0.0
    return NoiseResponse(exact.variance, expected, graph.pair_sums(second), True)
