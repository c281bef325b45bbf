"""Measured differences to offsets: numpy and scipy only, no image is known here."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array

from skymatch_cli.model import BoolArray, FloatArray, IntArray, Offsets
from skymatch_cli.run.threads import one_thread
from skymatch_cli.solve.diagnose import loop_closure
from skymatch_cli.solve.leastsquares import NormalEquations, noise_response
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.robust import kept_weights

_LEAST_DOF = 0.5


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
    robust: bool = False,
) -> Offsets:
    """Offsets of the groups that agree best, in the weighted least-squares sense, with the differences.

    Parameters
    ----------
    n_groups : int
        Number of unknowns, G.
    a, b : (M,) int64
        Groups that each pair compares. Several pairs may join two groups; a pair within a group isn't used.
    delta : (M,) float64
        ``value of a - value of b`` in comparison units; pairs where it isn't finite aren't used.
    weight : (M,) float64
        Weights; a pair with weight 0 isn't used. They may span many decades.
    noise : (M, K) csr_array, optional
        Factor S of the covariance of ``delta``, S S^T. The errors are then those of the weighted solution
        under that noise (a sandwich). Without it the weights are taken as the information, and the errors
        are those of independent differences.
    pair_dof : (M,) float64, optional
        From a joint fit, whose pairs share what they look at: expectation of ``weight * error**2`` of each
        difference, 1 for a pair that shares nothing and 2 / k for one of a stack of k images. The solution takes
        one of their sum for each offset, and what remains is ``dof``; below a half it says nothing and is 0.
    robust : bool
        Weigh pairs down that contradict the others by more than their errors (``robust.kept_weights``).

    Returns
    -------
    Offsets

    Notes
    -----
    Without ``pair_dof``, ``chi2`` and ``dof`` follow Satterthwaite (1946, Biometrics 2, 110): the weighted
    square sum Q of the residuals, which are correlated where pairs share pixels, has expectation E and variance
    V under the noise; ``dof = 2 E² / V`` and ``chi2 = Q dof / E``. For independent pairs that is Q and M - (G-1).
    """
    used = (weight > 0) & np.isfinite(weight) & np.isfinite(delta) & (a != b)
    kept = np.ones(len(a))
    equations = NormalEquations.of_pairs(n_groups, a[used], b[used], weight[used])
    measured = delta[used]
    noise_used = None if noise is None else csr_array(noise[np.flatnonzero(used)])
    response = noise_response(equations, noise_used)
    if robust:
        if noise_used is None:  # with lowered weights the stated errors are no longer the weights'
            noise_used = diags_array(1 / np.sqrt(weight[used])).tocsr()
        kept[used] = kept_weights(equations, measured, response.expected)
        equations = equations.reweighted(weight[used] * kept[used])
        response = noise_response(equations, noise_used)
    graph, offset = equations.graph, equations.offsets(measured)
    residual = np.full(len(a), np.nan)
    residual[used] = measured - graph.differences(offset)
    square_sum = graph.pair_sums(graph.weight * residual[used] ** 2)
    if pair_dof is None:
        chi2, dof = _satterthwaite(square_sum, response.expected, response.second, graph.redundancy())
    else:
        chi2, dof = _joint(graph, square_sum, (kept * pair_dof)[used])
    closure, n_loops = loop_closure(graph, equations.tree, measured)
    n_pairs = graph.pair_sums(np.ones(len(measured)))
    return Offsets(
        offset=offset,
        sigma=np.sqrt(response.variance),
        component=graph.component,
        residual=residual,
        rms_residual=np.sqrt(_ratio(graph.pair_sums(residual[used] ** 2), n_pairs)),
        chi2=chi2,
        dof=dof,
        sigma_exact=response.exact,
        kept=kept if robust else None,
        closure=closure,
        n_loops=n_loops,
    )


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
    """A / b, NaN where b is 0."""
    zero: BoolArray = b == 0
    return np.where(zero, np.nan, a / np.where(zero, 1.0, b))
