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
    """Least-squares offsets of the unknowns (groups), in comparison units, mean zero in every component."""

    offset: FloatArray  # (G,): in the gauge where the component's mean is zero
    sigma: FloatArray  # (G,): its 1-sigma error
    sigma_noise: FloatArray  # (G,): the part of the error that the noise of the pixels makes
    component: IntArray  # (G,): component of every group; numbered from 0 by the first group that is in it
    residual: FloatArray  # (M,): ``delta - (offset_a - offset_b)`` for every measured pair (NaN where not used)
    chi2: FloatArray  # (C,): by the errors of the differences alone
    dof: FloatArray  # (C,): independent information that goes with it, NaN where there is none
    # (C,): error that every overlap of a component has beyond its own, because the overlaps contradict each other; 0
    # where they don't
    scatter: FloatArray
    sigma_exact: bool = True  # False where the errors are estimates (very large components)
    # (G,): what a gradient that all images have in common may do beyond ``sigma``: it can't be told from one of the sky
    common_gradient: FloatArray | None = None
    # (M,): part of its weight, 1e-6 to 1, that each pair kept in a robust solution; None for a plain one
    kept: FloatArray | None = None
    # (C,): rms by which loops of differences fail to close, NaN where there is no loop; None for planes
    closure: FloatArray | None = None
    n_loops: IntArray | None = None  # (C,)

    @property
    def errors(self) -> FloatArray:
        """``sigma`` and ``sigma_noise``, (2, G)."""
        return np.stack([self.sigma, self.sigma_noise])


@dataclass(frozen=True, slots=True)
class Solution:
    """The sky of every image; columns over the N images, M pairs and C components."""

    sky: FloatArray  # (N,): to subtract from the original pixels, in the image's own unit; NaN where there is none
    sky_err: FloatArray  # (N,): one sigma of all that is known about it
    sky_err_noise: FloatArray  # (N,): the part of the error that the noise of the pixels makes
    status: StrArray  # (N,): status words
    component: IntArray  # (N,): component of every image
    residual: FloatArray  # (M,): in comparison units
    # (C,): what holds each component: ``lowest = 0``, ``highest = 0``, the label of the reference image, …
    anchor: StrArray
    n_images: IntArray  # (C,)
    rms_residual: FloatArray  # (C,)
    chi2: FloatArray  # (C,): by the errors of the overlaps alone
    dof: FloatArray  # (C,)
    step_before: FloatArray  # (C,): largest step between overlapping images as they are, in comparison units
    step_after: FloatArray  # (C,): the same with their skies subtracted
    warnings: tuple[SkyWarning, ...] = ()
    # (M,): part of its weight that each pair kept in a robust solution; None for a plain one
    kept: FloatArray | None = None
    sigma_exact: bool = True  # False where ``sky_err`` is an estimate (components of more than 5,000 groups)
    # (N, 2, 5 or 9): shape of every image's sky, see `SkyPlane`; ``sky`` is then its value at the image's centre
    tilt: FloatArray | None = None
    # (C,): rms by which loops of differences fail to close, NaN where there is no loop; None where none were followed
    closure: FloatArray | None = None
    n_loops: IntArray | None = None  # (C,)
    # (C,): error that every overlap of a component has beyond its own, in comparison units, because the overlaps
    # contradict each other; None where none were followed
    scatter: FloatArray | None = None
    reasons: tuple[str, ...] = ()  # why each component has its degree, with the model ``auto``


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of a run that changes files: its path and its writer (None: it already exists)."""

    path: str
    write: Callable[[BinaryIO], object] | None
