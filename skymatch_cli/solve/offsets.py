"""Measured differences to offsets: numpy and scipy only, no image is known here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array, hstack

from skymatch_cli.model import BoolArray, FloatArray, IntArray, Offsets
from skymatch_cli.run.threads import one_thread
from skymatch_cli.solve.diagnose import loop_closure
from skymatch_cli.solve.leastsquares import NoiseResponse, NormalEquations, PairNoise, noise_response, noise_variance
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.weights import extra_variance, kept_weights, scattered_weights

_LEAST_DOF = 0.5
_EXTREME = 1e200  # weights above this, or below its inverse, overflow in sums of squares


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Gradients within the images of G groups: what they have in common can't be told from a gradient of the sky."""

    # (M, 4): what a unit gradient of all images does to each difference, and what those of their own variances do
    lever: FloatArray
    variance: FloatArray  # (G, 2, 2): sum of the variances of the gradients of the images of each group
    n_images: IntArray  # (G,)

    def taken_off(
        self, variance: FloatArray, least: FloatArray, equations: NormalEquations, used: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Variances (n,) without the mean gradient of each component, and the errors (n,) that it makes."""
        without = np.clip(variance - self._common(equations, used), least, variance)
        return without, np.sqrt(variance - without)

    def _common(self, equations: NormalEquations, used: BoolArray) -> FloatArray:
        """By how much the variance of every unknown, (n,), is less without the mean gradient of its component."""
        graph = equations.graph
        answer = equations.laplacian.solve(np.asarray(equations.incidence @ self.lever[used]))
        n = graph.component_sums(self.n_images.astype(float))[graph.component]
        total = graph.component_sums(self.variance.reshape(-1, 4)).reshape(-1, 2, 2)[graph.component]
        of_all, of_own = answer[:, :2], answer[:, 2:]
        return np.asarray(
            2 * (of_all * of_own).sum(axis=1) / n - np.einsum("ni,nij,nj->n", of_all, total, of_all) / n**2
        )


@one_thread()
def solve_offsets(
    n_groups: int,
    a: IntArray,
    b: IntArray,
    delta: FloatArray,
    weight: FloatArray,
    *,
    noise: csr_array | None = None,
    pair_dof: FloatArray | None = None,
    photometric: FloatArray | None = None,
    level_variance: FloatArray | None = None,
    gradients: Gradients | None = None,
    robust: bool = False,
    with_scatter: bool = False,
) -> Offsets:
    """Offsets of the groups that agree best, in the weighted least-squares sense, with the differences.

    Parameters
    ----------
    n_groups : int
        Number of unknowns, G.
    a, b : (M,) int64
        Groups that each pair compares. Several pairs may join two groups; a pair within a group isn't used.
    delta, weight : (M,) float64
        ``value of a - value of b`` in comparison units, and the weights, which may span many decades. Pairs whose
        difference isn't finite, whose weight is 0, or whose weight or component double precision can't hold aren't
        used: groups without others are components of one.
    noise, pair_dof, photometric
        As in `Measurements`. Errors are those of the weighted solution under the noise (a sandwich); without it, those
        of independent differences with the weights as information. Of ``pair_dof`` the solution takes one of the sum
        for each offset, and what remains is ``dof``; below a half it says nothing and is 0.
    level_variance : (G,) float64, optional
        Variance of each unknown that all of its differences have in common: the solution keeps all of it.
    gradients : Gradients, optional
        Of the structure that ``noise`` stands for: their common part is no error.
    robust : bool
        Weigh pairs down that contradict the others by more than their errors (`kept_weights`).
    with_scatter : bool
        Where chi2 is above dof, add the scatter between the overlaps to their variances (`extra_variance`).

    Notes
    -----
    ``chi2`` and ``dof`` are those of the errors that came with the differences. Without ``pair_dof`` they follow
    Satterthwaite (1946, Biometrics 2, 110): the weighted square sum Q of the residuals, which are correlated where
    pairs share pixels, has expectation E and variance V under the noise; ``dof = 2 E² / V`` and ``chi2 = Q dof / E``.
    For independent pairs that is Q and M - (G-1).
    """
    used, equations = _solvable(n_groups, a, b, delta, weight)
    measured, dof_used, kept = delta[used], None if pair_dof is None else pair_dof[used], np.ones(len(a))
    noise_used, own_share = _noise_used(noise, used, weight, joint=dof_used is not None)
    response = noise_response(equations, noise_used)
    if robust:
        if noise_used is None:  # with lowered weights the stated errors are no longer the weights'
            noise_used = PairNoise(diags_array(1 / np.sqrt(weight[used])).tocsr())
        kept[used] = kept_weights(equations, measured, response.expected)
        equations = equations.reweighted(weight[used] * kept[used])
        response = noise_response(equations, noise_used)
    chi2, dof, own = _misfit(equations, measured, response, kept=kept[used], pair_dof=dof_used, own_share=own_share)
    more = extra_variance(equations, measured, own) if with_scatter else np.zeros(len(chi2))
    beyond = chi2 > dof + np.sqrt(2 * dof)
    by_noise = response.variance
    if photometric is not None:
        of_pixels = _photometric(equations, noise_used if dof_used is None else None, photometric[used])
        by_noise = noise_variance(equations, of_pixels)
        if dof_used is None and (photometric[used] < 1).any():
            chi2, dof = _by_noise_alone(equations, of_pixels, measured, photometric[used])
    if more.any():
        equations, response = _scattered(equations, noise_used, more, beyond)
    graph, offset = equations.graph, equations.offsets(measured)
    variance, shared = response.variance, None
    if gradients is not None:
        variance, shared = gradients.taken_off(variance, np.minimum(by_noise, variance), equations, used)
    if level_variance is not None:
        variance = variance + _centred_variance(graph, level_variance)
    residual = np.full(len(a), np.nan)
    residual[used] = measured - graph.differences(offset)
    closure, n_loops = loop_closure(graph, equations.tree, measured)
    return Offsets(
        offset=offset,
        sigma=np.sqrt(variance),
        sigma_noise=np.sqrt(np.minimum(by_noise, response.variance)),
        component=graph.component,
        residual=residual,
        chi2=chi2,
        dof=dof,
        scatter=np.sqrt(more),
        sigma_exact=response.exact,
        common_gradient=shared,
        kept=kept if robust else None,
        closure=closure,
        n_loops=n_loops,
    )


def _solvable(
    n_groups: int, a: IntArray, b: IntArray, delta: FloatArray, weight: FloatArray
) -> tuple[BoolArray, NormalEquations]:
    """Pairs (M,) that can be used, and their equations."""
    used = (weight > 1 / _EXTREME) & (weight < _EXTREME) & np.isfinite(delta) & (a != b)
    equations = NormalEquations.of_pairs(n_groups, a[used], b[used], weight[used])
    if (singular := equations.laplacian.singular).any():
        used[used] = ~singular[equations.graph.component[a[used]]]
        equations = NormalEquations.of_pairs(n_groups, a[used], b[used], weight[used])
    return used, equations


def _noise_used(
    noise: csr_array | None, used: BoolArray, weight: FloatArray, *, joint: bool
) -> tuple[PairNoise | None, FloatArray | None]:
    """The noise of the m used pairs; of a joint fit, also the share (m,) of the variances that is the fit's own."""
    if noise is None:
        return None, None
    added = csr_array(noise[np.flatnonzero(used)])
    if not joint:
        return PairNoise(added), None
    weight = weight[used]
    own_share = 1 - np.asarray(added.multiply(added).sum(axis=1), float).reshape(-1) * weight
    own = diags_array(np.sqrt(np.maximum(own_share, 0) / weight))
    return PairNoise(csr_array(hstack([own, added], format="csr"))), own_share


def _misfit(
    equations: NormalEquations,
    delta: FloatArray,
    response: NoiseResponse,
    *,
    kept: FloatArray,
    pair_dof: FloatArray | None,
    own_share: FloatArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """chi² and degrees of freedom (C,), and the part (m,) by which each pair is independent of the others."""
    graph, square_sum = equations.graph, _square_sum(equations, delta)
    if pair_dof is None:
        chi2, dof = _satterthwaite(square_sum, response.expected, response.second, graph.redundancy())
        return chi2, dof, _own_part(graph, response.expected)
    own = kept * pair_dof
    if own_share is not None:
        own = _own_part(graph, response.expected + graph.pair_sums(own - kept * own_share))
    return *_joint(graph, square_sum, own), own


def _square_sum(equations: NormalEquations, delta: FloatArray) -> FloatArray:
    """Weighted square sum of the residuals of each component, (C,)."""
    graph = equations.graph
    return graph.pair_sums(graph.weight * (delta - graph.differences(equations.offsets(delta))) ** 2)


def _by_noise_alone(
    equations: NormalEquations, noise: PairNoise, delta: FloatArray, part: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """chi² and degrees of freedom by the noise of the pixels, ``part`` (m,) of the variances in the weights."""
    again = equations.reweighted(equations.graph.weight / np.maximum(part, 1 / _EXTREME))
    response = noise_response(again, noise)
    return _satterthwaite(_square_sum(again, delta), response.expected, response.second, again.graph.redundancy())


def _scattered(
    equations: NormalEquations, noise: PairNoise | None, more: FloatArray, beyond: BoolArray
) -> tuple[NormalEquations, NoiseResponse]:
    """The equations, and the response to the noise, with variances ``more`` (C,) added to those of the pairs.

    They count in the errors of all components, and in the weights of those that disagree ``beyond`` (C,) chance: noise
    must not move weights.
    """
    graph = equations.graph
    own = PairNoise(diags_array(1 / np.sqrt(graph.weight)).tocsr()) if noise is None else noise
    with_more = own.with_own(more[graph.component[graph.a]])
    again = equations.reweighted(scattered_weights(graph, np.where(beyond, more, 0.0)))
    return again, noise_response(again, with_more)


def _centred_variance(graph: PairGraph, variance: FloatArray) -> FloatArray:
    """Variance (n,) of independent levels, less the mean of their component."""
    total = np.bincount(graph.component, variance, len(graph.size))
    n = graph.size[graph.component]
    return np.asarray(variance * (1 - 2 / n) + total[graph.component] / n**2)


def _photometric(equations: NormalEquations, noise: PairNoise | None, part: FloatArray) -> PairNoise:
    """Noise of the pairs when only ``part`` (m,) of each variance counts, the pixel noise."""
    if noise is None:
        return PairNoise(diags_array(np.sqrt(part / equations.graph.weight)).tocsr())
    return noise.scaled(np.sqrt(part))


def _own_part(graph: PairGraph, expected: FloatArray) -> FloatArray:
    """Expectation of ``weight * error**2`` of each pair (m,) by which the pairs of a component look independent."""
    n_pairs = graph.pair_sums(np.ones(len(graph.a)))
    part: FloatArray = ((expected + graph.size - 1.0) / np.maximum(n_pairs, 1))[graph.component[graph.a]]
    return part


def _satterthwaite(
    square_sum: FloatArray, expected: FloatArray, second: FloatArray, redundancy: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """chi² and degrees of freedom of every component; both 0 where no pair is redundant."""
    some = (expected > 0) & (second > 0) & (redundancy > 0)
    dof = np.where(some, np.minimum(_ratio(expected**2, second), redundancy), 0.0)
    return np.where(some, square_sum * _ratio(dof, expected), 0.0), dof


def _joint(graph: PairGraph, square_sum: FloatArray, pair_dof: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The same from a joint fit: its pairs don't disagree where they all look at the same places."""
    dof = graph.pair_sums(pair_dof) - (graph.size - 1.0)
    some = (dof > _LEAST_DOF) & (graph.redundancy() > 0)
    return np.where(some, square_sum, 0.0), np.where(some, dof, 0.0)


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    """Quotient a / b, NaN where b is 0."""
    zero: BoolArray = b == 0
    return np.where(zero, np.nan, a / np.where(zero, 1.0, b))
