"""Differences of polynomials to the polynomials themselves: weighted least squares with k unknowns a group.

A pair of groups says ``pull = M (p_a - p_b)`` about its own position: p are the coefficients there of a polynomial (a
plane: level and tilts), M the (k, k) matrix of weighted moments of the places where both were compared. The
polynomial common to all groups of a component can't be measured. It is chosen so that the mean of their highest terms
is zero, then that of the terms below, down to the levels at their centres, in the solution and in its covariance.

A common curvature only looks determined: if all frames have the same curvature, of one degree more than the model, its
differences are those of shapes of the model that grow with the position of the frame. Where the shapes of a component
follow such a growth and little else, it is taken off (``held``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray, Offsets, PlaneDifferences
from skymatch_cli.model.monomials import carried, degree_of
from skymatch_cli.run.threads import one_thread
from skymatch_cli.solve.degrees import DegreeCosts, carried_degrees, chi2_of, determined_degrees
from skymatch_cli.solve.offsets import solve_offsets
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.tiltequations import PlaneEquations, least, totals

_FOLLOWS = 1e-3  # chance that shapes follow a curvature, in any component, that have nothing to do with positions
_SIGNIFICANT = 25.0  # square of the deviate of the common part


@dataclass(frozen=True, slots=True, eq=False)
class FittedPlanes:
    """Polynomials of k terms of G groups, in comparison units; positions are in radians on the tangent plane."""

    offsets: Offsets  # levels at the groups' centres and what the fit says about pairs and components
    # (G, k - 1): the other coefficients, per power of a radian; nothing in them is common to all groups of a component
    shape: FloatArray
    covariance: FloatArray  # (G, k, k): of level and shape, including the scatter between overlaps
    noise: FloatArray  # (G,): factor by which the variances would be less without that
    # (M,): mean of every pair's difference minus that of the polynomials, also of the pairs that were not used
    residual: FloatArray
    loss: FloatArray  # (C,): errors of the levels over those that constants would have; NaN in components of one group
    # (G,): of the polynomials: less than asked for where the overlaps of a group can't carry it, or where less will do
    degree: IntArray
    # (C,): components whose shapes followed a curvature that all frames have in common: it was taken off
    held: BoolArray
    # (C,): largest change of a level by that curvature, also where shapes can't be told from it; 0 where there is none
    curved: FloatArray
    simpler: IntArray  # (C,): a lower degree than asked for that fits the component as well; -1 where there is none
    spared: FloatArray  # (C,): errors of its levels over those here
    reasons: tuple[str, ...] = ()  # why each component has its degree, where it was chosen


@one_thread()
def fit_planes(
    centre: FloatArray,
    a: IntArray,
    b: IntArray,
    measured: PlaneDifferences,
    weight: FloatArray,
    *,
    choose: bool = False,
) -> FittedPlanes:
    """Polynomials of the groups that agree best, in the weighted least-squares sense, with the differences.

    Parameters
    ----------
    centre : (G, 2) float64
        Positions of the groups on the tangent plane, radians.
    a, b : (M,) int64
        Groups that each pair compares.
    weight : (M,) float64
        A pair with weight 0 isn't used, nor is one within a group.
    choose : bool
        Take the lowest degree that the data ask for, in each component (`DegreeCosts.chosen`).
    """
    used = (weight > 0) & (a != b)
    scaled = _Scaled.of_differences(centre, (a, b), measured, used)
    ends, seen = (a[used], b[used]), (scaled.moment[used], scaled.position[used])
    pull, noise = scaled.pull[used], scaled.noise[used]
    degree = determined_degrees(scaled.centre, ends, seen, carried_degrees(scaled.centre, ends, *seen))
    costs = DegreeCosts.of_pairs(scaled.centre, ends, seen, (pull, noise), degree)
    simpler, reasons = costs.simpler(), tuple[str, ...]()
    if choose:
        wanted, reasons = costs.chosen()
        degree = np.minimum(degree, wanted[costs.component])
    equations = PlaneEquations.of_pairs(scaled.centre, *ends, *seen, degree)
    planes = equations.solve(equations.gathered(pull[:, :, None]))[:, :, 0]
    left = scaled.left(planes, (a, b))
    chi2, dof = chi2_of(equations, left[used], seen[0], noise)
    held, curved = common_curvature(equations, planes)
    if held.any():
        equations = replace(equations, held=held)
        planes = equations.centred(planes[:, :, None])[:, :, 0]
        left = scaled.left(planes, (a, b))
    covariance, exact = equations.covariance()
    residual = left[:, 0] / np.where(scaled.moment[:, 0, 0] > 0, scaled.moment[:, 0, 0], np.nan)
    more = np.where(chi2 > dof, chi2 / dof, 1.0)[equations.graph.component]  # what overlaps contradict (Birge 1932)
    variance = np.stack([covariance[:, 0, 0] * more, covariance[:, 0, 0]])
    per, graph = scaled.per, equations.graph
    return FittedPlanes(
        offsets=_offsets(graph, planes[:, 0], variance, residual, used=used, fit=(chi2, dof), exact=exact),
        shape=planes[:, 1:] / per[1:],
        covariance=covariance / (per[:, None] * per) * more[:, None, None],
        noise=1 / more,
        residual=residual,
        loss=_loss(graph, covariance[:, 0, 0], residual[used]),
        degree=degree,
        held=held,
        curved=curved,
        simpler=simpler[0],
        spared=simpler[1],
        reasons=reasons,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Scaled:
    """Differences in a unit of length in which coefficients are comparable; ``per``: its powers in the terms."""

    centre: FloatArray
    position: FloatArray
    moment: FloatArray
    pull: FloatArray
    noise: FloatArray
    per: FloatArray

    @classmethod
    def of_differences(
        cls, centre: FloatArray, ends: tuple[IntArray, IntArray], measured: PlaneDifferences, used: BoolArray
    ) -> _Scaled:
        a, b = (end[used] for end in ends)
        unit = _typical_length(centre, a, b, measured.position[used])
        per = unit ** totals(measured.pull.shape[1])
        moment, noise = (each / (per[:, None] * per) for each in (measured.moment, measured.noise))
        return cls(centre / unit, measured.position / unit, moment, measured.pull / per, noise, per)

    def left(self, planes: FloatArray, ends: tuple[IntArray, IntArray]) -> FloatArray:
        """What polynomials (G, k) leave of the pulls, (M, k)."""
        degree = degree_of(planes.shape[1])
        at_pair = (carried(self.position - self.centre[end], degree) @ planes[end][:, :, None] for end in ends)
        return np.asarray(self.pull - (self.moment @ np.subtract(*at_pair))[:, :, 0])


def _offsets(
    graph: PairGraph,
    level: FloatArray,
    variance: FloatArray,
    residual: FloatArray,
    *,
    used: BoolArray,
    fit: tuple[FloatArray, FloatArray],
    exact: bool,
) -> Offsets:
    """The levels (G,) with their variances (2, G), all and without scatter; ``fit``: chi2 and degrees of freedom."""
    sigma = np.sqrt(np.maximum(variance, 0.0))
    return Offsets(
        offset=level,
        sigma=sigma[0],
        sigma_noise=sigma[1],
        component=graph.component,
        residual=np.where(used, residual, np.nan),
        chi2=fit[0],
        dof=fit[1],
        scatter=np.zeros(len(graph.size)),
        sigma_exact=exact,
    )


def _loss(graph: PairGraph, variance: FloatArray, residual: FloatArray) -> FloatArray:
    """Errors of the levels of each component over those of constants, NaN where these have none."""
    constant = graph.component_sums(solve_offsets(graph.n, graph.a, graph.b, residual, graph.weight).sigma ** 2)
    ratio = graph.component_sums(variance) / np.where(constant > 0, constant, 1)
    return np.where(constant > 0, np.sqrt(np.maximum(ratio, 0.0)), np.nan)


def common_curvature(equations: PlaneEquations, planes: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Whether the highest terms of each component (C,) follow a curvature that all frames share, and what it does.

    They do where the curvature stands out of the noise, and takes so much of them away as it would, by chance,
    of terms that have nothing to do with positions in one run of a thousand. The second array has the largest change
    of a level; NaN where there are too few groups to tell shapes from a curvature, and it stands out.
    """
    graph, lowest = equations.graph, least(equations.graph, equations.degree)
    n_more = lowest + 2
    common = equations.curvature(np.concatenate([planes[:, :, None], equations.probes()], axis=2))
    noise = common[:, :, 1:]
    covariance = noise @ noise.swapaxes(1, 2) / noise.shape[2]
    deviate = np.einsum("ci,cij,cj->c", common[:, :, 0], np.linalg.pinv(covariance, hermitian=True), common[:, :, 0])
    stands_out = (deviate > _SIGNIFICANT + n_more) & (graph.size > 1) & (lowest > 0)
    if not stands_out.any():
        return stands_out, np.zeros(len(graph.size))
    without = replace(equations, held=np.ones(len(graph.size), np.bool_)).centred(planes[:, :, None])[:, :, 0]
    highest = totals(equations.n_terms) == lowest[graph.component, None]
    before, after = (graph.component_sums((p**2 * highest).sum(axis=1)) for p in (planes, without))
    free = (lowest + 1) * (graph.size - 1) - n_more
    share = np.clip(after / np.where(before > 0, before, 1.0), 0.0, 1.0)
    # The tail of shares of independent terms is never less than that for n_more of 2.
    few = _FOLLOWS / max(int(np.count_nonzero(graph.size > 1)), 1)
    held = stands_out & (free > 0) & (share ** (0.5 * np.maximum(free, 1)) < few)
    if held.any():
        from scipy.special import betainc  # takes time to load, and few runs need it

        held &= betainc(0.5 * np.maximum(free, 1), 0.5 * n_more, share) < few
    moved = np.zeros(len(graph.size))
    np.maximum.at(moved, graph.component, np.abs(planes[:, 0] - without[:, 0]))
    moved = np.where(stands_out & (free <= 0), np.nan, np.where(held, moved, 0.0))
    return held, moved


def _typical_length(centre: FloatArray, a: IntArray, b: IntArray, position: FloatArray) -> float:
    """Root mean square distance of overlaps from the centres of their groups: coefficients per unit are comparable."""
    if not len(a):
        return 1.0
    square = ((position - centre[a]) ** 2 + (position - centre[b]) ** 2).sum(axis=1).mean() / 2
    return float(np.sqrt(square)) or 1.0
