"""Offsets of groups, and the sky of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from skymatch_cli.model.arrays import FloatArray, IntArray, StrArray
from skymatch_cli.model.warning import SkyWarning

LEAST_KEPT = 0.5
"""Share of its weight below which an overlap of a robust solution counts as down-weighted."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """Least-squares offsets of the unknowns (groups), in comparison units, mean zero in every component.

    Attributes
    ----------
    offset, sigma : (G,) float64
        Offset and its 1-sigma error in the gauge where the component's mean is zero.
    sigma_noise : (G,) float64
        The part of the error that the noise of the pixels makes.
    component : (G,) int64
        Component of every group; numbered from 0 by the first group that is in it.
    residual : (M,) float64
        ``delta - (offset_a - offset_b)`` for every measured pair (NaN where not used).
    rms_residual, chi2, dof : (C,) float64
        Per component, ``chi2`` and ``dof`` by the errors of the differences alone; ``dof`` counts independent
        information, NaN where there is none.
    scatter : (C,) float64
        Error that every overlap of a component has beyond its own, because the overlaps contradict each other; 0
        where they don't.
    sigma_exact : bool
        False where the errors are estimates (very large components).
    kept : (M,) float64 or None
        Part of its weight, 1e-6 to 1, that each pair kept in a robust solution; None for a plain one.
    closure : (C,) float64 or None
        Rms by which loops of differences fail to close, NaN where there is no loop; None for planes.
    n_loops : (C,) int64 or None
    """

    offset: FloatArray
    sigma: FloatArray
    sigma_noise: FloatArray
    component: IntArray
    residual: FloatArray
    rms_residual: FloatArray
    chi2: FloatArray
    dof: FloatArray
    scatter: FloatArray
    sigma_exact: bool = True
    kept: FloatArray | None = None
    closure: FloatArray | None = None
    n_loops: IntArray | None = None

    @property
    def errors(self) -> FloatArray:
        """``sigma`` and ``sigma_noise``, (2, G)."""
        return np.stack([self.sigma, self.sigma_noise])


@dataclass(frozen=True, slots=True)
class Solution:
    """The sky of every image; columns over the N images, M pairs and C components.

    Attributes
    ----------
    sky, sky_err : (N,) float64
        Value to subtract from the original pixels, in the image's own unit, and one sigma of all that is known about
        it; NaN where there is none.
    sky_err_noise : (N,) float64
        The part of the error that the noise of the pixels makes.
    status : (N,) object
        Status words.
    component : (N,) int64
        Component of every image.
    residual : (M,) float64
        In comparison units.
    anchor : (C,) object
        What holds each component: ``lowest = 0``, ``highest = 0``, the label of the reference image, …
    n_images : (C,) int64
    rms_residual, chi2, dof : (C,) float64
        ``chi2`` and ``dof`` by the errors of the overlaps alone.
    scatter : (C,) float64 or None
        Error that every overlap of a component has beyond its own, in comparison units, because the overlaps
        contradict each other; None where none were followed.
    step_before, step_after : (C,) float64
        Largest step between overlapping images as they are, and with their skies subtracted, in comparison units.
    warnings : tuple of SkyWarning
    kept : (M,) float64 or None
        Part of its weight that each pair kept in a robust solution; None for a plain one.
    sigma_exact : bool
        False where ``sky_err`` is an estimate (components of more than 5,000 groups).
    tilt : (N, 2) float64 or None
        With the model ``plane``: of every image's sky along x and y, per pixel; ``sky`` is at the image's centre.
    closure : (C,) float64 or None
        Rms by which loops of differences fail to close, NaN where there is no loop; None where none were followed.
    n_loops : (C,) int64 or None
    reasons : tuple of str
        Why each component has its degree, with the model ``auto``.
    """

    sky: FloatArray
    sky_err: FloatArray
    sky_err_noise: FloatArray
    status: StrArray
    component: IntArray
    residual: FloatArray
    anchor: StrArray
    n_images: IntArray
    rms_residual: FloatArray
    chi2: FloatArray
    dof: FloatArray
    step_before: FloatArray
    step_after: FloatArray
    warnings: tuple[SkyWarning, ...] = ()
    kept: FloatArray | None = None
    sigma_exact: bool = True
    tilt: FloatArray | None = None
    closure: FloatArray | None = None
    n_loops: IntArray | None = None
    scatter: FloatArray | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of a run that changes files: its path and its writer (None: it already exists)."""

    path: str
    write: Callable[[BinaryIO], object] | None
