"""Differences of planes to the planes themselves: weighted least squares with three unknowns a group.

A pair of groups says ``pull = M (p_a - p_b)`` about its own position: p is a plane (level there, tilts), M the
(3, 3) matrix of weighted moments of the places where both were compared. Which plane is common to all groups of
a component nobody can tell; here it is the one that leaves the mean tilt and the mean level at the groups'
centres zero, in the solution and in its covariance.

The normal matrix is sparse and factorised once. Directions that the pairs leave all but free (an overlap that
is a line says nothing about the tilt across it) are held by a ridge of 1e-12 of the diagonal, and the
refinement that follows takes its effect away wherever the pairs do say something.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import SuperLU, splu

from skymatch_cli.model import FloatArray, IntArray, Offsets, PlaneDifferences
from skymatch_cli.run.threads import one_thread
from skymatch_cli.solve.offsets import solve_offsets
from skymatch_cli.solve.pairgraph import PairGraph
from skymatch_cli.solve.probes import sign_columns

_RIDGE = 1e-12
_REFINEMENTS = 3
_LEAST_DOF = 0.5
_DENSE = 400  # groups up to which the whole covariance is computed
_PROBE_BLOCKS = 8  # of eight probes: errors good to 9 %


@dataclass(frozen=True, slots=True, eq=False)
class PlaneEquations:
    """Normal equations of planes, factorised.

    Attributes
    ----------
    graph : PairGraph
        n groups (unknowns), m pairs.
    centre : (n, 2) float64
        Positions of the groups: planes are given as level there and tilts.
    root : (m, 3, 3) float64
        M = root root^T.
    to_a, to_b : (m, 3, 3) float64
        Plane about a group's centre to plane about the pair's position.
    matrix : (3 n, 3 n) csc_array
        Normal matrix, scaled to a unit diagonal; rows and columns of the first group of each component are empty.
    scale : (3 n,) float64
        1 / square root of its diagonal; 0 for those groups.
    factors : SuperLU
    """

    graph: PairGraph
    centre: FloatArray
    root: FloatArray
    to_a: FloatArray
    to_b: FloatArray
    matrix: csc_array
    scale: FloatArray
    factors: SuperLU

    @classmethod
    def of_pairs(
        cls, centre: FloatArray, a: IntArray, b: IntArray, moment: FloatArray, position: FloatArray
    ) -> PlaneEquations:
        """For n groups at ``centre`` and m pairs (a, b), a != b, with moments (m, 3, 3) about ``position`` (m, 2)."""
        n = len(centre)
        graph = PairGraph.of_pairs(n, a, b, moment[:, 0, 0])
        to_a, to_b = (_carried(position - centre[end]) for end in (a, b))
        blocks, rows, columns = [], [], []
        for one, there, sign, other, here in (
            (a, to_a, 1.0, a, to_a),
            (b, to_b, 1.0, b, to_b),
            (a, to_a, -1.0, b, to_b),
            (b, to_b, -1.0, a, to_a),
        ):
            blocks.append(sign * there.swapaxes(1, 2) @ moment @ here)
            rows.append(np.broadcast_to(3 * one[:, None, None] + np.arange(3)[:, None], blocks[-1].shape))
            columns.append(np.broadcast_to(3 * other[:, None, None] + np.arange(3), blocks[-1].shape))
        entries = tuple(np.concatenate(part).ravel() for part in (blocks, rows, columns))
        normal = coo_array((entries[0], entries[1:]), shape=(3 * n, 3 * n)).tocsc()
        diagonal = normal.diagonal()
        held = np.unique(graph.component, return_index=True)[1]
        diagonal[(3 * held[:, None] + np.arange(3)).ravel()] = 0.0
        scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
        matrix = csc_array(diags_array(scale) @ normal @ diags_array(scale))
        ridge = np.where(scale > 0, _RIDGE, 1.0)
        factors = splu(
            csc_array(matrix + diags_array(ridge)),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return cls(graph, centre, _root(moment), to_a, to_b, matrix, scale, factors)

    def gathered(self, pull: FloatArray) -> FloatArray:
        """Pulls of the pairs (m, 3, p) as right-hand sides of the groups, (n, 3, p)."""
        out = np.zeros((self.graph.n, 3, pull.shape[2]))
        np.add.at(out, self.graph.a, self.to_a.swapaxes(1, 2) @ pull)
        np.add.at(out, self.graph.b, -(self.to_b.swapaxes(1, 2) @ pull))
        return out

    def solve(self, rhs: FloatArray, refinements: int = _REFINEMENTS) -> FloatArray:
        """Planes (n, 3, p) for right-hand sides (n, 3, p), in the common gauge."""
        scaled = self.scale[:, None] * rhs.reshape(len(self.scale), -1)
        x = self.factors.solve(scaled)
        for _ in range(refinements):
            x = x + self.factors.solve(scaled - self.matrix @ x)
        return self.centred((self.scale[:, None] * x).reshape(rhs.shape))

    def centred(self, planes: FloatArray) -> FloatArray:
        """Planes (n, 3, p) without the plane that is common to each component."""
        tilt = planes[:, 1:] - self._means(planes[:, 1:])[self.graph.component]
        taken = planes[:, 1:] - tilt
        level = planes[:, 0] - (taken * self.centre[:, :, None]).sum(axis=1)
        level = level - self._means(level)[self.graph.component]
        return np.concatenate([level[:, None], tilt], axis=1)

    def differences(self, planes: FloatArray) -> FloatArray:
        """Differences (m, 3) of planes (n, 3), about the positions of the pairs."""
        a, b = (
            np.einsum("mij,mj->mi", to, planes[end])
            for to, end in ((self.to_a, self.graph.a), (self.to_b, self.graph.b))
        )
        return np.asarray(a - b)

    def covariance(self) -> tuple[FloatArray, bool]:
        """Covariance (n, 3, 3) of every plane in the common gauge, and whether it is more than an estimate."""
        n = self.graph.n
        if n <= _DENSE:
            inverse = self.scale[:, None] * self.factors.solve(np.diag(self.scale))
            half = self.centred(inverse.reshape(n, 3, 3 * n)).reshape(3 * n, 3 * n)
            whole = self.centred(half.T.reshape(n, 3, 3 * n)).reshape(n, 3, n, 3)
            each = np.arange(n)
            return whole[each, :, each], True
        total = np.zeros((n, 3, 3))
        for k in range(_PROBE_BLOCKS):
            signs = sign_columns(3 * len(self.root), k).reshape(len(self.root), 3, -1)
            answer = self.solve(self.gathered(self.root @ signs), refinements=1)
            total += answer @ answer.swapaxes(1, 2) / (8 * _PROBE_BLOCKS)
        return total, False

    def _means(self, x: FloatArray) -> FloatArray:
        flat = self.graph.component_sums(x.reshape(len(x), -1)) / self.graph.size[:, None]
        return flat.reshape(-1, *x.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class FittedPlanes:
    """Planes of G groups, in comparison units; positions are those of the tangent plane, in radians.

    Attributes
    ----------
    offsets : Offsets
        Levels at the groups' centres and what the fit says about pairs and components.
    tilt : (G, 2) float64
        Per radian; mean 0 in every component.
    covariance : (G, 3, 3) float64
        Of level and tilts.
    residual : (M,) float64
        Mean of every pair's difference minus that of the planes, also of the pairs that were not used.
    loss : (C,) float64
        Errors of the levels over those that constants would have; NaN in components of one group.
    """

    offsets: Offsets
    tilt: FloatArray
    covariance: FloatArray
    residual: FloatArray
    loss: FloatArray


@one_thread()
def image_planes(  # noqa: PLR0917 - three columns of numbers of pairs
    centre: FloatArray, a: IntArray, b: IntArray, moment: FloatArray, position: FloatArray, pull: FloatArray
) -> FloatArray:
    """Planes (n, 3) about ``centre`` (n, 2) that agree best with the pulls (m, 3) of pairs (a, b), in the common gauge.

    ``moment`` (m, 3, 3) and ``pull`` are about ``position`` (m, 2), in any unit of length.
    """
    if not len(a):
        return np.zeros((len(centre), 3))
    equations = PlaneEquations.of_pairs(centre, a, b, moment, position)
    return equations.solve(equations.gathered(pull[:, :, None]))[:, :, 0]


@one_thread()
def fit_planes(
    centre: FloatArray, a: IntArray, b: IntArray, measured: PlaneDifferences, weight: FloatArray
) -> FittedPlanes:
    """Planes of the groups that agree best, in the weighted least-squares sense, with the differences.

    Parameters
    ----------
    centre : (G, 2) float64
        Positions of the groups on the tangent plane, radians.
    a, b : (M,) int64
        Groups that each pair compares.
    measured : PlaneDifferences
    weight : (M,) float64
        A pair with weight 0 isn't used, nor is one within a group.

    Returns
    -------
    FittedPlanes
    """
    used = (weight > 0) & (a != b)
    moment, pull = measured.moment[used], measured.pull[used]
    equations = PlaneEquations.of_pairs(centre, a[used], b[used], moment, measured.position[used])
    planes = equations.solve(equations.gathered(pull[:, :, None]))[:, :, 0]
    covariance, exact = equations.covariance()
    graph = equations.graph
    size = np.where(measured.moment[:, 0, 0] > 0, measured.moment[:, 0, 0], np.nan)
    at_pair = (_carried(measured.position - centre[end]) @ planes[end][:, :, None] for end in (a, b))
    apart = np.subtract(*at_pair)
    left = measured.pull - (measured.moment @ apart)[:, :, 0]
    residual = left[:, 0] / size
    level = solve_offsets(len(centre), a[used], b[used], residual[used], moment[:, 0, 0])
    of_pair = graph.component[a[used]]
    square = np.bincount(of_pair, residual[used] ** 2, minlength=len(graph.size))
    count = np.bincount(of_pair, minlength=len(graph.size))
    chi2, dof = _chi2(graph, left[used], moment, measured.noise[used])
    variance = covariance[:, 0, 0]
    constant = graph.component_sums(level.sigma**2)
    offsets = Offsets(
        offset=planes[:, 0],
        sigma=np.sqrt(np.maximum(variance, 0.0)),
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
    return FittedPlanes(offsets, planes[:, 1:], covariance, residual, loss)


def _chi2(graph: PairGraph, left: FloatArray, moment: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """chi² of what is left of the pulls (m, 3), and its expectation, in each component; NaN where that is nothing.

    The planes take three of the expectation for each group but one; where all pairs see the same places, as in a
    stack, nothing remains.
    """
    scale = np.sqrt(np.maximum(np.einsum("mii->mi", moment), np.finfo(float).tiny))
    both = scale[:, :, None] * scale[:, None, :]
    inverse = np.linalg.pinv(moment / both, rcond=1e-6, hermitian=True)
    unit = left / scale
    chi2 = graph.pair_sums(np.einsum("mi,mij,mj->m", unit, inverse, unit))
    dof = graph.pair_sums(np.einsum("mij,mji->m", inverse, noise / both)) - 3.0 * (graph.size - 1.0)
    some = dof > _LEAST_DOF
    return np.where(some, chi2, np.nan), np.where(some, dof, np.nan)


def _carried(shift: FloatArray) -> FloatArray:
    """Planes about one position to planes about another that is (m, 2) from it: (m, 3, 3)."""
    out = np.tile(np.eye(3), (len(shift), 1, 1))
    out[:, 0, 1:] = shift
    return out


def _root(moment: FloatArray) -> FloatArray:
    """A square root of positive semi-definite matrices, (m, 3, 3)."""
    scale = np.sqrt(np.maximum(np.einsum("mii->mi", moment), np.finfo(float).tiny))
    value, vector = np.linalg.eigh(moment / (scale[:, :, None] * scale[:, None, :]))
    root: FloatArray = scale[:, :, None] * vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]
    return root
