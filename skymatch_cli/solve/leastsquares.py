"""Weighted least squares of differences: the offsets that agree best with them, and their noise.

The normal matrix is the Laplacian L = B^T W B of the graph of the pairs. Errors of components of up to 5000 unknowns
come from its inverse; those of larger ones are estimated from the answers to artificial noise (fixed signs, so that
every run gives the same; Bekas, Kokiopoulou & Saad 2007, Appl. Numer. Math. 57, 1214): 64 answers, good to 9 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array, hstack

from skymatch_cli.model import FloatArray
from skymatch_cli.model.arrays import IntArray
from skymatch_cli.solve.laplacian import Laplacian
from skymatch_cli.solve.pairgraph import PairGraph, SpanningTree, spanning_tree, tree_potential

_SEED = 20_000
_OF_BYTE = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
N_BLOCKS = 8
"""Blocks of eight columns that ``sign_columns`` has."""


def random_bits(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """64 bits for each of ``n`` things, from a fixed seed; numpy keeps the raw stream of PCG64 as it is."""
    return np.random.PCG64(_SEED).random_raw(n).astype(np.uint64)


def sign_columns(n: int, block: int) -> FloatArray:
    """Eight columns, (n, 8), of a fixed matrix of independent signs ±1 that has eight such blocks."""
    signs: FloatArray = _OF_BYTE[random_bits(n).astype("<u8").view(np.uint8).reshape(n, 8)[:, block]]
    return signs


_ALL_PAIRS = 500  # up to here the second moment of the residuals is computed, not probed
_REFINEMENTS = 2
_ROUNDING = 1e-14  # relative disagreement of the pairs, below which the spanning tree is the solution
_SPAN = 1e9  # heaviest over lightest weight: beyond, double precision loses the light pairs


@dataclass(frozen=True, slots=True)
class NoiseResponse:
    """Effect of the noise of the pairs on the solution."""

    variance: FloatArray  # (n,): of every unknown, in the gauge where its component's mean is zero
    expected: FloatArray  # (C,): expectation of the weighted square sum of the residuals, tr(W P C P^T)
    second: FloatArray  # (C,): tr((W P C P^T)^2): half the variance of that sum for Gaussian noise
    exact: bool  # False where a variance is an estimate


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """The normal equations of a graph, ready to be solved for several right-hand sides."""

    graph: PairGraph  # weights are limited to 10^9 times the lightest branch of the component's spanning tree
    tree: SpanningTree  # the heaviest
    incidence: csr_array  # (n, m): B^T W
    laplacian: Laplacian

    @classmethod
    def of_pairs(cls, n: int, a: IntArray, b: IntArray, weight: FloatArray) -> NormalEquations:
        """For n unknowns and the m pairs (a, b), a != b, with positive weights."""
        graph = PairGraph.of_pairs(n, a, b, weight)
        tree = spanning_tree(graph)
        limit = _SPAN * _lightest(graph, tree)[graph.component[a]]
        if np.any(weight > limit):
            graph = PairGraph.of_pairs(n, a, b, np.minimum(weight, limit))
        return cls(graph, tree, graph.weighted_incidence(), Laplacian.of_graph(graph))

    def reweighted(self, weight: FloatArray) -> NormalEquations:
        """The same pairs with other weights (m,), all positive."""
        return NormalEquations.of_pairs(self.graph.n, self.graph.a, self.graph.b, weight)

    def offsets(self, delta: FloatArray) -> FloatArray:
        """Least-squares offsets (n,) for the differences (m,), mean zero in every component.

        The fit starts from offsets that agree with all differences along the heaviest spanning tree, so that
        only the disagreement of the pairs passes through the normal equations: differences that are consistent
        give exact offsets, whatever the condition of the matrix.
        """
        x = tree_potential(self.graph, self.tree, delta)
        for refinement in range(1 + _REFINEMENTS):
            residual = delta - self.graph.differences(x)
            if refinement and np.abs(residual).max(initial=0.0) <= _ROUNDING * np.abs(x).max(initial=0.0):
                break
            x = x + self.laplacian.solve((self.incidence @ residual)[:, None])[:, 0]
        return self.graph.centred(x)


class PairNoise:
    """The noise of m pairs: a factor S (m, K) of its covariance C = S S^T; that of few pairs is computed, once."""

    def __init__(self, factor: csr_array, covariance: csr_array | None = None) -> None:
        few = factor.shape[0] <= _ALL_PAIRS
        self.factor = factor
        self.covariance = csr_array(factor @ factor.T) if few and covariance is None else covariance

    def scaled(self, by: FloatArray) -> PairNoise:
        """The noise of every pair times its factor (m,)."""
        scale, known = diags_array(by), self.covariance
        return PairNoise(csr_array(scale @ self.factor), None if known is None else csr_array(scale @ known @ scale))

    def with_own(self, variance: FloatArray) -> PairNoise:
        """The noise with variances (m,) added that no two pairs share."""
        factor, known = hstack([self.factor, diags_array(np.sqrt(variance))], format="csr"), self.covariance
        return PairNoise(csr_array(factor), None if known is None else csr_array(known + diags_array(variance)))


def noise_response(equations: NormalEquations, noise: PairNoise | None) -> NoiseResponse:
    """Covariance of the solution and moments of the residuals, for the noise of the pairs.

    None: independent pairs with the weights as inverse variances.
    """
    graph, exact = equations.graph, equations.laplacian.exact
    if noise is None:
        redundancy = graph.redundancy()
        return NoiseResponse(noise_variance(equations, None), redundancy, redundancy, bool(exact.all()))
    variance, explained = equations.laplacian.variances(_scatter(equations, noise))
    if noise.covariance is not None and exact.all():
        second = _second_moment(equations, noise.covariance.toarray())
    else:
        more, unknown, second = _probed(equations, noise.factor)
        variance, explained = variance + more, explained + unknown
    return NoiseResponse(variance, _expected(graph, noise, explained), second, bool(exact.all()))


def noise_variance(equations: NormalEquations, noise: PairNoise | None) -> FloatArray:
    """Variance of every unknown, (n,), under the noise that `noise_response` takes."""
    graph, exact = equations.graph, equations.laplacian.exact
    variance, _ = equations.laplacian.variances(None if noise is None else _scatter(equations, noise))
    if not exact.all():
        flow = equations.incidence @ (diags_array(1 / np.sqrt(graph.weight)) if noise is None else noise.factor)
        square = np.zeros(graph.n)
        for block in range(N_BLOCKS):
            square += (equations.laplacian.solve(flow @ sign_columns(flow.shape[1], block)) ** 2).sum(axis=1)
        variance += np.where(exact[graph.component], 0.0, square / (8 * N_BLOCKS))
    return variance


def _scatter(equations: NormalEquations, noise: PairNoise) -> csr_array:
    """Covariance (n, n) of the right-hand side under the noise, B^T W C W B, for components with a known inverse."""
    incidence, exact = equations.incidence, equations.laplacian.exact
    if noise.covariance is not None and exact.all():
        return _within_components(equations.graph, csr_array(incidence @ noise.covariance @ incidence.T))
    flow = csr_array(incidence @ noise.factor)
    flow.data *= np.repeat(exact[equations.graph.component], np.diff(flow.indptr))
    flow.eliminate_zeros()  # or the large components would cost their square
    return _within_components(equations.graph, csr_array(flow @ flow.T))


def _within_components(graph: PairGraph, covariance: csr_array) -> csr_array:
    """A covariance (n, n) without what components have in common."""
    entries = covariance.tocoo()
    entries.data *= graph.component[entries.row] == graph.component[entries.col]
    return csr_array(entries)


def _second_moment(equations: NormalEquations, covariance: FloatArray) -> FloatArray:
    """tr((W P C P^T)^2) of every component, from the response of every residual to the noise of each pair."""
    graph = equations.graph
    answer = equations.laplacian.solve(np.asarray(equations.incidence @ covariance))
    weighted = graph.weight[:, None] * (covariance - graph.differences(answer))
    return graph.pair_sums((weighted * weighted.T).sum(axis=1))


def _probed(equations: NormalEquations, noise: csr_array) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimate what `NoiseResponse` needs from artificial noise; the first two are 0 where they are known."""
    graph = equations.graph
    variance, explained = np.zeros(graph.n), np.zeros(len(graph.size))
    second = np.zeros(len(graph.a))
    n_probes = 8 * N_BLOCKS
    for block in range(N_BLOCKS):
        made = noise @ sign_columns(noise.shape[1], block)
        source = equations.incidence @ made
        answer = equations.laplacian.solve(source)
        variance += (answer**2).sum(axis=1) / n_probes
        explained += graph.component_sums((source * answer).sum(axis=1)) / n_probes
        weighted = graph.weight[:, None] * (made - graph.differences(answer))
        second += (weighted * (noise @ (noise.T @ weighted))).sum(axis=1) / n_probes
    unknown = ~equations.laplacian.exact
    return variance * unknown[graph.component], explained * unknown, graph.pair_sums(second)


def _expected(graph: PairGraph, noise: PairNoise, explained: FloatArray) -> FloatArray:
    """Expected weighted square sum of the residuals; 0 where rounding is all that is left of it."""
    total = graph.pair_sums(graph.weight * np.asarray(noise.factor.multiply(noise.factor).sum(axis=1)))
    left = total - explained
    return np.where((left < 1e-9 * total) | (graph.redundancy() < 0.5), 0.0, left)


def _lightest(graph: PairGraph, tree: SpanningTree) -> FloatArray:
    """Weight of the lightest branch of every component's heaviest spanning tree, (C,)."""
    on_tree, child = tree.pairs_of(graph)
    total = np.bincount(child, graph.weight[on_tree], minlength=graph.n)
    branch = np.where(tree.parent == np.arange(graph.n), np.inf, total)
    lightest = np.full(len(graph.size), np.inf)
    np.minimum.at(lightest, graph.component, branch)
    return lightest
