"""Steps of an iteration towards polynomials of images: weights of the pairs change from step to step, places do not."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray
from skymatch_cli.solve.tiltequations import PlaneEquations, totals

_RIDGE = 1e-6  # steps must not run away along what hardly matters
_FEW = 300  # unknowns up to which matrices of all of them are kept


class PlaneSteps:
    """Polynomials of n images that agree best with the pulls of pairs, in the common gauge.

    What the pairs hardly determine is kept small: it makes no difference in the overlaps.

    Parameters
    ----------
    centre : (n, 2) float64
        Places of the images, which the polynomials are about, in any unit of length.
    a, b : (m,) int64
        Images that each pair compares.
    position : (m, 2) float64
        Places that moments and pulls of the pairs are about.
    """

    def __init__(self, centre: FloatArray, a: IntArray, b: IntArray, position: FloatArray) -> None:
        self._unit = float(np.abs(position - centre[a]).max(initial=0)) or 1.0  # so that coefficients are comparable
        self._places = centre / self._unit, a, b, position / self._unit
        self._used: BoolArray = np.zeros(len(a), np.bool_)
        self._kept: tuple[FloatArray, BoolArray, FloatArray]

    def __call__(self, moment: FloatArray, pull: FloatArray) -> FloatArray:
        """Return the polynomials (n, k) for moments (m, k, k) and pulls (m, k) of the pairs."""
        used, n, k = moment[:, 0, 0] > 0, len(self._places[0]), pull.shape[1]
        if not used.any():
            return np.zeros((n, k))
        moment, pull = moment[used], pull[used]
        if n * k > _FEW:
            per = self._unit ** totals(k)
            equations = self._equations(used, moment / (per[:, None] * per))
            return equations.solve(equations.gathered((pull / per)[:, :, None]), refinements=0)[:, :, 0] / per
        if not np.array_equal(used, self._used):
            self._used, self._kept = used, self._prepared(used, moment)
        design, free, gauge = self._kept
        normal = design.T @ (moment @ design.reshape(-1, k, n * k)).reshape(design.shape)
        known = (normal.diagonal() > 0) & free
        scale = np.where(known, 1.0 / np.sqrt(np.where(known, normal.diagonal(), 1.0)), 0.0)
        normal *= scale * scale[:, None]
        normal.reshape(-1)[:: n * k + 1] += np.where(known, _RIDGE, 1.0)
        found = gauge @ (scale * np.linalg.solve(normal, scale * (pull.reshape(-1) @ design)))
        return np.asarray(found, float).reshape(n, k)

    def _prepared(self, used: BoolArray, moment: FloatArray) -> tuple[FloatArray, BoolArray, FloatArray]:
        """What polynomials make of differences (m k, n k), unknowns that are not held (n k,), and the gauge (n k, n k).

        Unknowns are in units of the places, differences and results are not.
        """
        (m, k), (centre, a, b, _) = moment.shape[:2], self._places
        n, pair, per = len(centre), np.arange(m), self._unit ** totals(k)
        equations = self._equations(used, moment)
        design = np.zeros((m, k, n, k))
        design[pair, :, a[used]] = equations.to_a / per[:, None]
        design[pair, :, b[used]] = -equations.to_b / per[:, None]
        free = np.diff(np.maximum.accumulate(equations.graph.component), prepend=-1) == 0
        gauge = equations.centred(np.eye(n * k).reshape(n, k, n * k)) / per[:, None]
        return design.reshape(m * k, n * k), np.repeat(free, k), gauge.reshape(n * k, n * k)

    def _equations(self, used: BoolArray, moment: FloatArray) -> PlaneEquations:
        centre, a, b, position = self._places
        return PlaneEquations.of_pairs(centre, a[used], b[used], moment, position[used], ridge=_RIDGE)
