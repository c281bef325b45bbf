"""Weighted least squares of differences: which offsets agree best with them, and how noise gets into those.

The normal matrix is the Laplacian L = B^T W B of the graph of the pairs. Small components are solved by its
inverse; large ones by conjugate gradients, and their errors are estimated from the answers to artificial noise
(fixed signs, so that every run gives the same; Bekas, Kokiopoulou & Saad 2007, Appl. Numer. Math. 57, 1214).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.solve.exact import small_components, solve_exactly
from skymatch_cli.solve.multigrid import Hierarchy
from skymatch_cli.solve.pairgraph import PairGraph, SpanningTree, spanning_tree, tree_potential
from skymatch_cli.solve.signs import sign_columns

_ALL_PAIRS = 500  # up to here the second moment of the residuals is computed, not probed
_BLOCKS, _FEW_BLOCKS = 8, 2  # of eight probes
_AT_A_TIME = 16  # probes: a row of them is a line of the cache
_MANY_PAIRS = 50_000  # from here on there are few
_PASSES = (1e-7, 1e-4)  # drops of the error: a solution, and its refinement from residuals found anew
_ROUNDING = 1e-14  # disagreement of the pairs, as part of the offsets, that is not worth a solution
_PROBE_PASS = 3e-3  # drop of the error for a probe: about 1 % of the sigmas that come of it


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
    step : (n,) float64
        Solution for the right-hand side that came along, 0 in large components.

    """

    variance: FloatArray
    expected: FloatArray
    second: FloatArray
    exact: bool
    step: FloatArray


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """The normal equations of a graph, ready to be solved for several right-hand sides.

    Attributes
    ----------
    graph : PairGraph
    tree : SpanningTree
        The heaviest.
    incidence : (n, m) csr_array
        B^T W.
    small : (C,) bool
        Components that are solved by inversion.
    large : (k,) int64
        Unknowns of the others.
    hierarchy : Hierarchy
        Of the others.

    """

    graph: PairGraph
    tree: SpanningTree
    incidence: csr_array
    small: BoolArray
    large: IntArray
    hierarchy: Hierarchy

    @classmethod
    def of_pairs(cls, n: int, a: IntArray, b: IntArray, weight: FloatArray) -> NormalEquations:
        """For n unknowns and the m pairs (a, b), a != b, with positive weights."""
        graph = PairGraph.of_pairs(n, a, b, weight)
        small = small_components(graph.size)
        large = np.flatnonzero(~small[graph.component])
        everything = len(large) == graph.n
        adjacency = graph.adjacency if everything else csr_array(graph.adjacency[large][:, large])
        hierarchy = Hierarchy.of_weights(adjacency)
        return cls(graph, spanning_tree(graph), graph.weighted_incidence(), small, large, hierarchy)

    def reweighted(self, weight: FloatArray) -> NormalEquations:
        """The same pairs with other weights (m,), all positive."""
        return NormalEquations.of_pairs(self.graph.n, self.graph.a, self.graph.b, weight)

    def fit(self, delta: FloatArray, noise: csr_array | None) -> tuple[FloatArray, NoiseResponse]:
        """Least-squares offsets (n,) for the differences (m,), mean zero in every component, and their errors.

        The fit starts from offsets that agree with all differences along the heaviest spanning tree, so that
        only what the pairs disagree about passes through the normal equations: differences that are consistent
        give exact offsets, whatever the condition of the matrix. ``noise``: see ``noise_response``.
        """
        start = tree_potential(self.graph, self.tree, delta)
        response = noise_response(self, noise, self.incidence @ (delta - self.graph.differences(start)))
        return self._refined(start + response.step, delta), response

    def offsets(self, delta: FloatArray) -> FloatArray:
        """The offsets of ``fit`` alone."""
        start = tree_potential(self.graph, self.tree, delta)
        rhs = self.incidence @ (delta - self.graph.differences(start))
        return self._refined(start + solve_exactly(self.graph, self.small, rhs[:, None], None).x[:, 0], delta)

    def _refined(self, x: FloatArray, delta: FloatArray) -> FloatArray:
        """Offsets that are right in small components, made right in the large ones."""
        for tolerance in _PASSES:
            residual = delta - self.graph.differences(x)
            if len(self.large) and np.abs(residual).max() > _ROUNDING * np.abs(x).max():
                x = x + self.solve_large((self.incidence @ residual)[:, None], tolerance)[:, 0]
        return self.graph.centred(x)

    def solve_large(self, rhs: FloatArray, tolerance: float) -> FloatArray:
        """Mean-zero solutions (n, p) in the large components for right-hand sides (n, p); 0 in the others."""
        x = np.zeros(rhs.shape)
        x[self.large] = self.hierarchy.solve(self.graph.centred(rhs)[self.large], tolerance)
        return self.graph.centred(x)


def noise_response(equations: NormalEquations, noise: csr_array | None, rhs: FloatArray) -> NoiseResponse:
    """Covariance of the solution and moments of the residuals.

    Parameters
    ----------
    equations : NormalEquations
    noise : (m, K) csr_array or None
        Noise factor of the pairs, C = S S^T; None: independent pairs with the weights as inverse variances.
    rhs : (n,) float64
        A right-hand side to be solved on the way, where the small components are inverted.

    Returns
    -------
    NoiseResponse

    """
    if noise is None:
        return _independent(equations, rhs)
    probe = _every_pair if len(equations.graph.a) <= _ALL_PAIRS else _many_pairs
    return probe(equations, noise, rhs)


def _independent(equations: NormalEquations, rhs: FloatArray) -> NoiseResponse:
    """Independent pairs: the covariance is the inverse of the normal matrix."""
    graph = equations.graph
    redundancy = graph.redundancy()
    exact = solve_exactly(graph, equations.small, rhs[:, None], None)
    variance = exact.variance
    if len(equations.large):
        answer = _answers(equations, diags_array(1 / np.sqrt(graph.weight)).tocsr())[1]
        variance = variance + (answer**2).mean(axis=1)
    return NoiseResponse(variance, redundancy, redundancy, not len(equations.large), exact.x[:, 0])


def _every_pair(equations: NormalEquations, noise: csr_array, rhs: FloatArray) -> NoiseResponse:
    """Few pairs: what the noise of each does to the residual of every other."""
    graph = equations.graph
    covariance = (noise @ noise.T).toarray()
    pull = equations.incidence @ covariance
    exact = solve_exactly(graph, equations.small, np.column_stack([rhs, pull]), csr_array(equations.incidence @ pull.T))
    weighted = graph.weight[:, None] * (covariance - graph.differences(exact.x[:, 1:]))
    second = graph.pair_sums((weighted * weighted.T).sum(axis=1))
    return NoiseResponse(exact.variance, _expected(graph, noise, exact.explained), second, True, exact.x[:, 0])


def _many_pairs(equations: NormalEquations, noise: csr_array, rhs: FloatArray) -> NoiseResponse:
    """Many pairs: the second moment, and all about large components, from probes of the noise."""
    graph = equations.graph
    sources, answer = _answers(equations, noise)
    flow = csr_array(equations.incidence @ noise)
    flow.data *= np.repeat(equations.small[graph.component], np.diff(flow.indptr))
    flow.eliminate_zeros()  # or the large components would cost their square
    exact = solve_exactly(graph, equations.small, np.column_stack([rhs, sources]), csr_array(flow @ flow.T))
    explained = exact.explained + graph.component_sums((sources * answer).mean(axis=1))
    variance = exact.variance + (answer**2).mean(axis=1)
    answer += exact.x[:, 1:]
    second = np.zeros(len(graph.a))
    for k, part in enumerate(np.split(answer, answer.shape[1] // 8, axis=1)):
        residual = noise @ sign_columns(noise.shape[1], k) - graph.differences(part)
        weighted = graph.weight[:, None] * residual
        second += (weighted * (noise @ (noise.T @ weighted))).sum(axis=1) / answer.shape[1]
    return NoiseResponse(
        variance,
        _expected(graph, noise, explained),
        graph.pair_sums(second),
        not len(equations.large),
        exact.x[:, 0],
    )


def _answers(equations: NormalEquations, noise: csr_array) -> tuple[FloatArray, FloatArray]:
    """Right-hand sides (n, p) that probes of the noise make, and the solutions in the large components."""
    n_blocks = _BLOCKS if len(equations.graph.a) < _MANY_PAIRS else _FEW_BLOCKS
    parts = [equations.incidence @ (noise @ sign_columns(noise.shape[1], k)) for k in range(n_blocks)]
    sources = np.concatenate(parts, axis=1)
    pairs = range(0, sources.shape[1], _AT_A_TIME)
    answers = [equations.solve_large(sources[:, k : k + _AT_A_TIME], _PROBE_PASS) for k in pairs]
    return sources, np.concatenate(answers, axis=1)


def _expected(graph: PairGraph, noise: csr_array, explained: FloatArray) -> FloatArray:
    """Expected weighted square sum of the residuals; 0 where rounding is all that is left of it."""
    total = graph.pair_sums(graph.weight * np.asarray(noise.multiply(noise).sum(axis=1)))
    left = total - explained
    return np.where((left < 1e-9 * total) | (graph.redundancy() < 0.5), 0.0, left)
