"""The degrees of polynomials that overlaps can carry, that components determine, and that the data ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.model import FloatArray, IntArray
from skymatch_cli.model.monomials import carried, degree_of, n_terms
from skymatch_cli.solve.tiltequations import RIDGE, PlaneEquations, least, with_unit_diagonal

_LEAST_DOF = 0.5
_MOST_LOSS = 30.0  # error of a level with a higher degree over that of a constant
_HOPELESS = 300.0  # the same of a whole component: beyond, it has a lower degree, also where another was asked for


def carried_degrees(
    centre: FloatArray, ends: tuple[IntArray, IntArray], moment: FloatArray, position: FloatArray
) -> IntArray:
    """Degree (n,), at most that of the moments (m, k, k), that the overlaps of every group can carry.

    Beyond a plane a degree is carried where the level at the group's centre, were all its neighbours known, has an
    error of no more than 30 times that of a constant.
    """
    n, k = len(centre), moment.shape[1]
    own = np.zeros((n, k, k))
    for end in ends:
        there = carried(position - centre[end], degree_of(k))
        np.add.at(own, end, there.swapaxes(1, 2) @ moment @ there)
    own, _ = with_unit_diagonal(own)
    degree = np.full(n, min(degree_of(k), 1))
    for higher in range(2, degree_of(k) + 1):
        terms = n_terms(higher)
        inverse = np.linalg.inv(own[:, :terms, :terms] + RIDGE * np.eye(terms))
        degree = np.where((degree == higher - 1) & (inverse[:, 0, 0] < _MOST_LOSS**2), higher, degree)
    return degree


def determined_degrees(
    centre: FloatArray, ends: tuple[IntArray, IntArray], seen: tuple[FloatArray, FloatArray], most: IntArray
) -> IntArray:
    """Degree (n,), at most ``most``, that every component determines: to 300 times the errors of constants."""
    for highest in range(int(most.max(initial=0)), 1, -1):
        equations, constants = (
            PlaneEquations.of_pairs(centre, *ends, *seen, np.minimum(most, degree)) for degree in (highest, 0)
        )
        lost = _level_variance(equations) > _HOPELESS**2 * _level_variance(constants)
        most = np.where(lost[equations.graph.component], np.minimum(most, highest - 1), most)
    return most


def _level_variance(equations: PlaneEquations) -> FloatArray:
    """Sum of the variances of the levels in each component, (C,)."""
    return equations.graph.component_sums(equations.covariance()[0][:, 0, 0])


@dataclass(frozen=True, slots=True, eq=False)
class DegreeCosts:
    """Fits of the degrees 0 to D - 1 to the same differences, in each of C components."""

    # (D, C): chi2 plus log(m) for each coefficient, with m moments of the overlaps (Schwarz 1978, Ann. Statist. 6,
    # 461). Where chi2 of the highest is above its expectation, all are taken in units of that.
    cost: FloatArray
    variance: FloatArray  # (D, C): sum of the variances of the levels
    ratio: FloatArray  # (D, C): chi2 over degrees of freedom, NaN where nothing is left
    component: IntArray  # (n,)

    @classmethod
    def of_pairs(
        cls,
        centre: FloatArray,
        ends: tuple[IntArray, IntArray],
        seen: tuple[FloatArray, FloatArray],
        pulls: tuple[FloatArray, FloatArray],
        most: IntArray,
    ) -> DegreeCosts:
        """Of groups that have at most the degrees ``most`` (n,)."""
        pull, noise = pulls
        costs, variances, ratios, spread = [], [], [], None
        for highest in range(int(most.max(initial=0)), -1, -1):
            equations = PlaneEquations.of_pairs(centre, *ends, *seen, np.minimum(most, highest))
            planes = equations.solve(equations.gathered(pull[:, :, None]))[:, :, 0]
            left = pull - (seen[0] @ equations.differences(planes)[:, :, None])[:, :, 0]
            chi2, dof = (np.nan_to_num(x) for x in chi2_of(equations, left, seen[0], noise))
            if spread is None:
                spread = np.where(chi2 > dof, chi2 / np.where(dof > 0, dof, np.inf), 1.0)
                spread = np.where(spread > 0, spread, 1.0)
            n_moments = np.maximum(equations.graph.pair_sums(np.full(len(pull), float(pull.shape[1]))), 2.0)
            costs.append(np.where(dof > 0, chi2 / spread, 0.0) + np.log(n_moments) * _coefficients(equations))
            variances.append(_level_variance(equations))
            ratios.append(np.where(dof > 0, chi2 / np.where(dof > 0, dof, 1.0), np.nan))
        cost, variance, ratio = (np.array(each[::-1]) for each in (costs, variances, ratios))
        return cls(cost, variance, ratio, equations.graph.component)

    def chosen(self) -> tuple[IntArray, tuple[str, ...]]:
        """The degree of each component that the data ask for, and why.

        Degrees that make errors of levels more than thirty times those of constants are left out.
        """
        weak = self.variance > _MOST_LOSS**2 * self.variance[0]
        wanted = np.argmin(np.where(weak, np.inf, self.cost), axis=0)
        reasons = tuple(
            f"degree {degree} of --model auto; chi2/dof is "
            + ", ".join(f"{r:.3g} with {d}{' (too weak)' * w}" for d, (r, w) in enumerate(zip(ratio, bad, strict=True)))
            for degree, ratio, bad in zip(wanted.tolist(), self.ratio.T.tolist(), weak.T.tolist(), strict=True)
        )
        return wanted, reasons

    def simpler(self) -> tuple[IntArray, FloatArray]:
        """The lower degree that fits each component as well (-1: none), and the errors of its levels over those here.

        Lower degrees whose chi2 is not known fit nothing.
        """
        top = len(self.cost) - 1
        known = np.isfinite(self.ratio)
        known[top] = True
        best = np.argmin(np.where(known, self.cost, np.inf), axis=0)
        spared = self.variance[best, np.arange(len(best))] / np.where(self.variance[top] > 0, self.variance[top], 1.0)
        return np.where(best < top, best, -1), np.sqrt(spared)


def chi2_of(
    equations: PlaneEquations, left: FloatArray, moment: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """chi² of the residual pulls (m, k), and its expectation, in each component; NaN where nothing is left.

    The polynomials take one of the expectation for each coefficient that isn't common; where all pairs see the same
    places, as in a stack, nothing remains.
    """
    graph = equations.graph
    scaled, scale = with_unit_diagonal(moment)
    inverse = np.linalg.pinv(scaled, rcond=1e-6, hermitian=True)
    unit, both = left / scale, scale[:, :, None] * scale[:, None, :]
    chi2 = graph.pair_sums(np.einsum("mi,mij,mj->m", unit, inverse, unit))
    dof = graph.pair_sums(np.einsum("mij,mji->m", inverse, noise / both)) - _coefficients(equations)
    some = dof > _LEAST_DOF
    return np.where(some, chi2, np.nan), np.where(some, dof, np.nan)


def _coefficients(equations: PlaneEquations) -> FloatArray:
    """Coefficients of every component that differences determine, (C,)."""
    each = (equations.degree + 1) * (equations.degree + 2) / 2
    lowest = least(equations.graph, equations.degree)
    return equations.graph.component_sums(each) - (lowest + 1) * (lowest + 2) / 2
