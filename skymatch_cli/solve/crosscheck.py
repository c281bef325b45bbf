"""Compare the same overlaps by mesh and pooled, solve both, and name the images on which they disagree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.choices import Method, WarningName
from skymatch_cli.errors import NoOverlapError
from skymatch_cli.model import FloatArray, ImageInfo, IntArray, Measurements, SkyWarning
from skymatch_cli.solve.methods import solve_skies
from skymatch_cli.solve.naming import NAMED, few, largest_first

_DISAGREE = 3.0  # errors of both; generous, for both use the same pixels


def cross_check(
    images: Sequence[ImageInfo], mesh: Measurements, pooled: Measurements, *, robust: bool
) -> tuple[SkyWarning, ...]:
    """Warnings that name the images on which two ways of comparing the same overlaps disagree.

    Both are solved as offsets, whatever the method of the run, and compared where the mean of a component is zero. The
    check looks for the effect of stars and structure on pooled statistics: of their errors only the noise counts.
    """
    try:
        found = [solve_skies(Method.MATCH, images, m, robust=robust) for m in (mesh, pooled)]
    except NoOverlapError:
        text = "mesh and pooled can't be checked against each other: one of them has no usable overlap"
        return (SkyWarning(WarningName.CROSS_CHECK, text),)
    together = np.unique(np.stack([s.component for s in found]), axis=1, return_inverse=True)[1].reshape(-1)
    factor = np.array([info.to_comparison for info in images])
    apart = _centred((found[0].sky - found[1].sky) * factor, together) / factor
    return _disagreement(images, apart, np.hypot(found[0].sky_err, found[1].sky_err_noise))


def _centred(difference: FloatArray, together: IntArray) -> FloatArray:
    """Differences (N,) less the mean of the images that both solutions connect; NaN where there is none."""
    known = np.isfinite(difference)
    n = np.bincount(together, known)
    mean = np.bincount(together, np.where(known, difference, 0.0)) / np.maximum(n, 1)
    return np.where(known, difference - mean[together], np.nan)


def _disagreement(images: Sequence[ImageInfo], apart: FloatArray, err: FloatArray) -> tuple[SkyWarning, ...]:
    """Images whose skies by mesh and by pooled statistics are apart by more than the errors of both (N,) allow."""
    size = np.divide(np.abs(apart), err, out=np.zeros_like(err), where=err > 0)
    above = largest_first(size, size > _DISAGREE)
    if not len(above):
        return ()
    names = [f"{images[i].ref.label} by {apart[i]:.3g} ({size[i]:.1f} sigma)" for i in above[:NAMED]]
    text = f"mesh and pooled disagree by more than the noise ({len(above)}): {few(names, ', ', len(above))}"
    worst = above[np.argmax(np.abs(apart[above]))]
    return (SkyWarning(WarningName.CROSS_CHECK, text, float(abs(apart[worst])), images[worst].unit),)
