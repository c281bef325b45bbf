"""Differences of polynomials to the polynomials themselves: weighted least squares with k unknowns a group.

A pair of groups says ``pull = M (p_a - p_b)`` about its own position: p are the coefficients there of a polynomial (a
plane: level and tilts), M the (k, k) matrix of weighted moments of the places where both were compared. Which
polynomial is common to all groups of a component nobody can tell; here it is the one that leaves their shapes (all
but the levels) smallest and the mean level at their centres zero, in the solution and in its covariance.

One thing more only looks determined: if all frames have the same curvature, of one degree more than the model, its
differences are those of shapes of the model that grow with the position of the frame. Where the shapes of a component
follow such a growth and little else, it is taken off (``held``).

The normal matrix is sparse and factorised once. Directions that the pairs leave all but free (an overlap that
is a line says nothing about the tilt across it) are held by a ridge of 1e-12 of the diagonal, and the
refinement that follows takes its effect away wherever the pairs do say something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import SuperLU, splu

from skymatch_cli.model import BoolArray, FloatArray, IntArray, Offsets, PlaneDifferences
from skymatch_cli.model.monomials import carried, degree_of, exponents, n_terms
from skymatch_cli.run.threads import one_thread
from skymatch_cli.solve.offsets import solve_offsets
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.probes import N_BLOCKS, sign_columns

_RIDGE = 1e-12
_STEP_RIDGE = 1e-6  # for the steps of an iteration, which must not run away along what hardly matters
_REFINEMENTS = 3
_LEAST_DOF = 0.5
_DENSE = 1200  # unknowns up to which the whole covariance is computed; beyond, errors are good to 9 %
_MOST_LOSS = 30.0  # error of a level with a higher degree over that of a constant
_HOPELESS = 300.0  # the same of a whole component: beyond, it has a lower degree, also where another was asked for
_FOLLOWS = (
    1e-3  # chance by which shapes that have nothing to do with positions follow a curvature as well, in any component
)
_SIGNIFICANT = 25.0  # square of the deviate of the common part


@dataclass(frozen=True, slots=True, eq=False)
class PlaneEquations:
    """Normal equations of polynomials of k terms, factorised.

    Attributes
    ----------
    graph : PairGraph
        n groups (unknowns), m pairs.
    centre : (n, 2) float64
        Positions of the groups: polynomials are given about these.
    degree : (n,) int64
        Of the polynomial of every group, at most that of the k terms; its other terms are 0.
    held : (C,) bool
        Components in which a curvature that all frames may have in common is taken off.
    root : (m, k, k) float64
        M = root root^T.
    to_a, to_b : (m, k, k) float64
        Polynomial about a group's centre to polynomial about the pair's position.
    matrix : (k n, k n) csc_array
        Normal matrix, scaled to a unit diagonal; rows and columns of the first group of each component are empty.
    scale : (k n,) float64
        1 / square root of its diagonal; 0 for those groups.
    factors : SuperLU
    """

    graph: PairGraph
    centre: FloatArray
    degree: IntArray
    held: BoolArray
    root: FloatArray
    to_a: FloatArray
    to_b: FloatArray
    matrix: csc_array
    scale: FloatArray
    factors: SuperLU

    @classmethod
    def of_pairs(  # noqa: PLR0917 - columns of pairs
        cls,
        centre: FloatArray,
        a: IntArray,
        b: IntArray,
        moment: FloatArray,
        position: FloatArray,
        degree: IntArray | None = None,
        ridge: float = _RIDGE,
    ) -> PlaneEquations:
        """For n groups at ``centre`` and m pairs (a, b), a != b, with moments (m, k, k) about ``position`` (m, 2).

        ``degree`` (n,): of every group, where it is less than the k terms allow.
        """
        n, k = len(centre), moment.shape[1]
        degree = np.full(n, degree_of(k)) if degree is None else degree
        graph = PairGraph.of_pairs(n, a, b, moment[:, 0, 0])
        to_a, to_b = (carried(position - centre[end], degree_of(k)) for end in (a, b))
        blocks, rows, columns = [], [], []
        for one, there, sign, other, here in (
            (a, to_a, 1.0, a, to_a),
            (b, to_b, 1.0, b, to_b),
            (a, to_a, -1.0, b, to_b),
            (b, to_b, -1.0, a, to_a),
        ):
            blocks.append(sign * there.swapaxes(1, 2) @ moment @ here)
            rows.append(np.broadcast_to(k * one[:, None, None] + np.arange(k)[:, None], blocks[-1].shape))
            columns.append(np.broadcast_to(k * other[:, None, None] + np.arange(k), blocks[-1].shape))
        entries = tuple(np.concatenate(part).ravel() for part in (blocks, rows, columns))
        normal = coo_array((entries[0], entries[1:]), shape=(k * n, k * n)).tocsc()
        diagonal = normal.diagonal()
        absent = _totals(k) > degree[:, None]
        first = np.unique(graph.component, return_index=True)[1]
        absent[first] |= _totals(k) <= _least(graph, degree)[:, None]  # the common part is free
        diagonal[absent.ravel()] = 0.0
        scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
        matrix = csc_array(diags_array(scale) @ normal @ diags_array(scale))
        ridges = np.where(scale > 0, ridge, 1.0)
        factors = splu(
            csc_array(matrix + diags_array(ridges)),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        none = np.zeros(len(graph.size), np.bool_)
        return cls(graph, centre, degree, none, _root(moment), to_a, to_b, matrix, scale, factors)

    @property
    def n_terms(self) -> int:
        """Terms of the polynomials, k."""
        return int(self.root.shape[1])

    def gathered(self, pull: FloatArray) -> FloatArray:
        """Pulls of the pairs (m, k, p) as right-hand sides of the groups, (n, k, p)."""
        out = np.zeros((self.graph.n, self.n_terms, pull.shape[2]))
        np.add.at(out, self.graph.a, self.to_a.swapaxes(1, 2) @ pull)
        np.add.at(out, self.graph.b, -(self.to_b.swapaxes(1, 2) @ pull))
        return out

    def solve(self, rhs: FloatArray, refinements: int = _REFINEMENTS) -> FloatArray:
        """Polynomials (n, k, p) for right-hand sides (n, k, p), in the common gauge."""
        scaled = self.scale[:, None] * rhs.reshape(len(self.scale), -1)
        x = self.factors.solve(scaled)
        for _ in range(refinements):
            x = x + self.factors.solve(scaled - self.matrix @ x)
        return self.centred((self.scale[:, None] * x).reshape(rhs.shape))

    def centred(self, planes: FloatArray) -> FloatArray:
        """Polynomials (n, k, p) without the common part of each component, and without the part that is held there."""
        if self.n_terms > 1:
            planes = planes - self._commons() @ self.common(planes)[self.graph.component]
        level = planes[:, 0] - self._means(planes[:, 0])[self.graph.component]
        return np.concatenate([level[:, None], planes[:, 1:]], axis=1)

    def common(self, planes: FloatArray) -> FloatArray:
        """Coefficients (C, q, p) of the common part of the shapes of each component, about its middle.

        The first k - 1 are a polynomial of the sky, the others a curvature of the frames, 0 where it isn't held.
        """
        graph, shapes = self.graph, planes[:, 1:]
        commons = self._commons()[:, 1:]
        normal = graph.component_sums((commons.swapaxes(1, 2) @ commons).reshape(graph.n, -1))
        right = graph.component_sums((commons.swapaxes(1, 2) @ shapes).reshape(graph.n, -1))
        q = commons.shape[2]
        inverse = np.linalg.pinv(normal.reshape(-1, q, q), rcond=1e-10, hermitian=True)
        return np.asarray(inverse @ right.reshape(len(graph.size), q, -1))

    def _commons(self) -> FloatArray:
        """What unit coefficients of the common polynomials add to those of every group: (n, k, q)."""
        k, degree = self.n_terms, degree_of(self.n_terms)
        middle = self._means(self.centre)[self.graph.component]
        moved = carried(self.centre - middle, degree + 1)[:, :k, 1:]
        lowest = _least(self.graph, self.degree)
        shared = _totals(moved.shape[2] + 1)[1:] <= np.where(self.held, lowest + 1, lowest)[:, None]
        moved *= shared[self.graph.component][:, None, :]
        moved *= (_totals(k) <= self.degree[:, None])[:, :, None]
        return moved

    def differences(self, planes: FloatArray) -> FloatArray:
        """Differences (m, k) of polynomials (n, k), about the positions of the pairs."""
        a, b = (
            np.einsum("mij,mj->mi", to, planes[end])
            for to, end in ((self.to_a, self.graph.a), (self.to_b, self.graph.b))
        )
        return np.asarray(a - b)

    def covariance(self) -> tuple[FloatArray, bool]:
        """Covariance (n, k, k) of every polynomial in the common gauge, and whether it is more than an estimate."""
        n, k = self.graph.n, self.n_terms
        if k * n <= _DENSE:
            inverse = self.scale[:, None] * self.factors.solve(np.diag(self.scale))
            half = self.centred(inverse.reshape(n, k, k * n)).reshape(k * n, k * n)
            whole = self.centred(half.T.reshape(n, k, k * n)).reshape(n, k, n, k)
            each = np.arange(n)
            return whole[each, :, each], True
        answers = self.probes()
        return answers @ answers.swapaxes(1, 2) / answers.shape[2], False

    def probes(self) -> FloatArray:
        """Answers (n, k, 64) to artificial noise of the pairs: the mean of their products is the covariance."""
        m, k = self.root.shape[:2]
        signs = (sign_columns(k * m, block).reshape(m, k, -1) for block in range(N_BLOCKS))
        return np.concatenate([self.solve(self.gathered(self.root @ some), refinements=1) for some in signs], axis=2)

    def _means(self, x: FloatArray) -> FloatArray:
        flat = self.graph.component_sums(x.reshape(len(x), -1)) / self.graph.size[:, None]
        return flat.reshape(-1, *x.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class FittedPlanes:
    """Polynomials of k terms of G groups, in comparison units; positions are in radians on the tangent plane.

    Attributes
    ----------
    offsets : Offsets
        Levels at the groups' centres and what the fit says about pairs and components.
    shape : (G, k - 1) float64
        The other coefficients, per power of a radian; nothing in them is common to all groups of a component.
    covariance : (G, k, k) float64
        Of level and shape, including the scatter between overlaps.
    noise : (G,) float64
        Factor by which the variances would be less without that.
    residual : (M,) float64
        Mean of every pair's difference minus that of the polynomials, also of the pairs that were not used.
    loss : (C,) float64
        Errors of the levels over those that constants would have; NaN in components of one group.
    degree : (G,) int64
        Of the polynomials: less than asked for where the overlaps of a group can't carry it, or where less will do.
    held : (C,) bool
        Components whose shapes followed a curvature that all frames have in common: it was taken off.
    curved : (C,) float64
        Largest change of a level by that curvature, also where shapes can't be told from it; 0 where there is none.
    reasons : tuple of str
        Why each component has its degree, where it was chosen.
    """

    offsets: Offsets
    shape: FloatArray
    covariance: FloatArray
    noise: FloatArray
    residual: FloatArray
    loss: FloatArray
    degree: IntArray
    held: BoolArray
    curved: FloatArray
    reasons: tuple[str, ...] = ()


@one_thread()
def image_planes(  # noqa: PLR0917 - three columns of numbers of pairs
    centre: FloatArray, a: IntArray, b: IntArray, moment: FloatArray, position: FloatArray, pull: FloatArray
) -> FloatArray:
    """Polynomials (n, k) about ``centre`` (n, 2) that agree best with the pulls (m, k) of pairs, in the common gauge.

    What the pairs hardly determine is kept small: it makes no difference in the overlaps.
    ``moment`` (m, k, k) and ``pull`` are about ``position`` (m, 2), in any unit of length.
    """
    if not len(a):
        return np.zeros((len(centre), pull.shape[1]))
    unit = _typical_length(centre, a, b, position)
    per = unit ** _totals(pull.shape[1])
    moment, pull = moment / (per[:, None] * per), pull / per
    equations = PlaneEquations.of_pairs(centre / unit, a, b, moment, position / unit, ridge=_STEP_RIDGE)
    return equations.solve(equations.gathered(pull[:, :, None]), refinements=0)[:, :, 0] / per


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
    measured : PlaneDifferences
    weight : (M,) float64
        A pair with weight 0 isn't used, nor is one within a group.
    choose : bool
        Take the lowest degree that the data ask for, in each component (`chosen_degrees`).

    Returns
    -------
    FittedPlanes
    """
    used = (weight > 0) & (a != b)
    unit = _typical_length(centre, a[used], b[used], measured.position[used])
    per = unit ** _totals(measured.pull.shape[1])
    centre, position = centre / unit, measured.position / unit
    moment, pull = measured.moment / (per[:, None] * per), measured.pull / per
    noise = (measured.noise / (per[:, None] * per))[used]
    ends, seen = (a[used], b[used]), (moment[used], position[used])
    degree = determined_degrees(centre, ends, seen, carried_degrees(centre, ends, *seen))
    reasons: tuple[str, ...] = ()
    if choose:
        degree, reasons = chosen_degrees(centre, ends, seen, (pull[used], noise), degree)
    equations = PlaneEquations.of_pairs(centre, *ends, *seen, degree)
    planes = equations.solve(equations.gathered(pull[used][:, :, None]))[:, :, 0]
    apart = _apart(planes, centre, a, b, position)
    left = pull - (moment @ apart[:, :, None])[:, :, 0]
    chi2, dof = _chi2(equations, left[used], moment[used], noise)
    held, curved = common_curvature(equations, planes)
    if held.any():
        equations = replace(equations, held=held)
        planes = equations.centred(planes[:, :, None])[:, :, 0]
        left = pull - (moment @ _apart(planes, centre, a, b, position)[:, :, None])[:, :, 0]
    covariance, exact = equations.covariance()
    graph = equations.graph
    residual = left[:, 0] / np.where(moment[:, 0, 0] > 0, moment[:, 0, 0], np.nan)
    level = solve_offsets(len(centre), a[used], b[used], residual[used], moment[used, 0, 0])
    of_pair = graph.component[a[used]]
    square = np.bincount(of_pair, residual[used] ** 2, minlength=len(graph.size))
    count = np.bincount(of_pair, minlength=len(graph.size))
    variance = covariance[:, 0, 0]
    constant = graph.component_sums(level.sigma**2)
    more = np.where(chi2 > dof, chi2 / dof, 1.0)[graph.component]  # what overlaps contradict (Birge 1932)
    offsets = Offsets(
        offset=planes[:, 0],
        sigma=np.sqrt(np.maximum(variance * more, 0.0)),
        sigma_noise=np.sqrt(np.maximum(variance, 0.0)),
        component=graph.component,
        residual=np.where(used, residual, np.nan),
        rms_residual=np.sqrt(np.where(count > 0, square / np.maximum(count, 1), np.nan)),
        chi2=chi2,
        dof=dof,
        scatter=np.zeros(len(graph.size)),
        sigma_exact=exact,
    )
    loss = np.where(constant > 0, np.sqrt(graph.component_sums(variance) / np.where(constant > 0, constant, 1)), np.nan)
    covariance = covariance / (per[:, None] * per) * more[:, None, None]
    return FittedPlanes(
        offsets, planes[:, 1:] / per[1:], covariance, 1 / more, residual, loss, degree, held, curved, reasons
    )


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
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", own), np.finfo(float).tiny))
    own /= scale[:, :, None] * scale[:, None, :]
    degree = np.full(n, min(degree_of(k), 1))
    for higher in range(2, degree_of(k) + 1):
        terms = n_terms(higher)
        inverse = np.linalg.inv(own[:, :terms, :terms] + _RIDGE * np.eye(terms))
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


def chosen_degrees(
    centre: FloatArray,
    ends: tuple[IntArray, IntArray],
    seen: tuple[FloatArray, FloatArray],
    pulls: tuple[FloatArray, FloatArray],
    most: IntArray,
) -> tuple[IntArray, tuple[str, ...]]:
    """Degree (n,), at most ``most``, that the data ask for, the same in each component, and why.

    The one with the smallest chi2 plus log(m) for each coefficient (Schwarz 1978, Ann. Statist. 6, 461). Where chi2 of
    the highest is above its expectation, all are taken in units of that. Degrees that make errors of levels more
    than thirty times those of constants are left out.
    """
    pull, noise = pulls
    costs, errors, ratios, spread = [], [], [], None
    degrees = range(int(most.max(initial=0)), -1, -1)
    for highest in degrees:
        equations = PlaneEquations.of_pairs(centre, *ends, *seen, np.minimum(most, highest))
        planes = equations.solve(equations.gathered(pull[:, :, None]))[:, :, 0]
        left = pull - (seen[0] @ equations.differences(planes)[:, :, None])[:, :, 0]
        chi2, dof = (np.nan_to_num(x) for x in _chi2(equations, left, seen[0], noise))
        if spread is None:
            spread = np.where(chi2 > dof, chi2 / np.where(dof > 0, dof, np.inf), 1.0)
            spread = np.where(spread > 0, spread, 1.0)
        seen_by = np.maximum(equations.graph.pair_sums(np.full(len(pull), float(pull.shape[1]))), 2.0)
        known = dof > 0
        costs.append(np.where(known, chi2 / spread, 0.0) + np.log(seen_by) * _coefficients(equations))
        errors.append(_level_variance(equations))
        ratios.append(np.where(known, chi2 / np.where(known, dof, 1.0), np.nan))
    weak = np.array(errors) > _MOST_LOSS**2 * errors[-1]
    wanted = np.argmin(np.where(weak, np.inf, np.array(costs))[::-1], axis=0)
    graph = equations.graph
    chosen = np.asarray(np.minimum(most, wanted[graph.component]))
    reasons = tuple(
        f"degree {wanted[c]} of --model auto; chi2/dof is "
        + ", ".join(
            f"{ratios[-1 - d][c]:.3g} with {d}{' (too weak)' if weak[-1 - d][c] else ''}" for d in reversed(degrees)
        )
        for c in range(len(graph.size))
    )
    return chosen, reasons


def common_curvature(equations: PlaneEquations, planes: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Whether the shapes of each component (C,) follow a curvature that all frames have in common, and what it does.

    They do where the curvature stands out of the noise, and takes so much of the shapes away as it would, by chance,
    of shapes that have nothing to do with positions in one run of a thousand. The second array has the largest change
    of a level; NaN where there are too few groups to tell shapes from a curvature, and it stands out.
    """
    graph, lowest = equations.graph, _least(equations.graph, equations.degree)
    n_more = lowest + 2
    all_held = replace(equations, held=np.ones(len(graph.size), np.bool_))
    both = np.concatenate([planes[:, :, None], equations.probes()], axis=2)
    common = all_held.common(both)
    common = common * (_totals(n_terms(degree_of(equations.n_terms) + 1))[1:] == lowest[:, None] + 1)[:, :, None]
    without = all_held.centred(planes[:, :, None])[:, :, 0]
    noise = common[:, :, 1:]
    covariance = noise @ noise.swapaxes(1, 2) / noise.shape[2]
    deviate = np.einsum("ci,cij,cj->c", common[:, :, 0], np.linalg.pinv(covariance, hermitian=True), common[:, :, 0])
    before, after = (graph.component_sums((p[:, 1:] ** 2).sum(axis=1)) for p in (planes, without))
    free = (n_more * (lowest + 1) / 2 - 1) * (graph.size - 1) - n_more
    tail = np.where(free > 0, (after / np.where(before > 0, before, 1.0)) ** (0.5 * np.maximum(free, 0)), 1.0)
    moved = np.zeros(len(graph.size))
    np.maximum.at(moved, graph.component, np.abs(planes[:, 0] - without[:, 0]))
    stands_out = (deviate > _SIGNIFICANT + n_more) & (graph.size > 1) & (lowest > 0)
    held = stands_out & (tail < _FOLLOWS / max(int(np.count_nonzero(graph.size > 1)), 1))
    moved = np.where(stands_out & (free <= 0), np.nan, np.where(held, moved, 0.0))
    return held, moved


def _apart(planes: FloatArray, centre: FloatArray, a: IntArray, b: IntArray, position: FloatArray) -> FloatArray:
    """Differences (M, k) of the polynomials (G, k) of both groups of every pair, about its position."""
    degree = degree_of(planes.shape[1])
    at_pair = (carried(position - centre[end], degree) @ planes[end][:, :, None] for end in (a, b))
    return np.asarray(np.subtract(*at_pair))[:, :, 0]


def _typical_length(centre: FloatArray, a: IntArray, b: IntArray, position: FloatArray) -> float:
    """Root mean square distance of overlaps from the centres of their groups: coefficients per unit are comparable."""
    if not len(a):
        return 1.0
    square = ((position - centre[a]) ** 2 + (position - centre[b]) ** 2).sum(axis=1).mean() / 2
    return float(np.sqrt(square)) or 1.0


def _least(graph: PairGraph, degree: IntArray) -> IntArray:
    """Lowest degree of the groups of every component, (C,)."""
    lowest = np.full(len(graph.size), np.iinfo(np.int64).max)
    np.minimum.at(lowest, graph.component, degree)
    return lowest


def _totals(k: int) -> FloatArray:
    """Sums of the exponents of k terms."""
    return np.array([sum(each) for each in exponents(degree_of(k))], float)


def _chi2(
    equations: PlaneEquations, left: FloatArray, moment: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """chi² of the residual pulls (m, k), and its expectation, in each component; NaN where nothing is left.

    The polynomials take one of the expectation for each coefficient that isn't common; where all pairs see the same
    places, as in a stack, nothing remains.
    """
    graph = equations.graph
    scale = np.sqrt(np.maximum(np.einsum("mii->mi", moment), np.finfo(float).tiny))
    both = scale[:, :, None] * scale[:, None, :]
    inverse = np.linalg.pinv(moment / both, rcond=1e-6, hermitian=True)
    unit = left / scale
    chi2 = graph.pair_sums(np.einsum("mi,mij,mj->m", unit, inverse, unit))
    dof = graph.pair_sums(np.einsum("mij,mji->m", inverse, noise / both)) - _coefficients(equations)
    some = dof > _LEAST_DOF
    return np.where(some, chi2, np.nan), np.where(some, dof, np.nan)


def _coefficients(equations: PlaneEquations) -> FloatArray:
    """Coefficients of every component that differences determine, (C,)."""
    each = (equations.degree + 1) * (equations.degree + 2) / 2
    lowest = _least(equations.graph, equations.degree)
    return equations.graph.component_sums(each) - (lowest + 1) * (lowest + 2) / 2


def _root(moment: FloatArray) -> FloatArray:
    """A square root of positive semi-definite matrices, (m, k, k)."""
    scale = np.sqrt(np.maximum(np.einsum("mii->mi", moment), np.finfo(float).tiny))
    value, vector = np.linalg.eigh(moment / (scale[:, :, None] * scale[:, None, :]))
    root: FloatArray = scale[:, :, None] * vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]
    return root
