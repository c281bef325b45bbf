"""The skies of images as planes: where images lie on the tangent plane, and what the fit says about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, ImageInfo, IntArray, Measurements, Offsets, PlaneDifferences
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.sky.tangent import project
from skymatch_cli.solve.tiltfit import fit_planes

_STEP_PIX = 1.0  # for derivatives


@dataclass(frozen=True, slots=True, eq=False)
class PlaneSkies:
    """A plane for each of N images, in comparison units, on one tangent plane.

    Attributes
    ----------
    place : (N, 2) float64
        Centres of the images on the tangent plane, radians.
    per_pixel : (N, 2, 2) float64
        There: how the place changes with x and y, ``per_pixel[:, i, j] = d place_i / d pixel_j``.
    value : (N,) float64
        At the image's centre.
    err : (2, N) float64
        One sigma of all that is known, and the part that the noise of the pixels makes, where mean level
        and mean tilt of the component are zero.
    tilt : (N, 2) float64
        Per radian.
    component : (N,) int64
    offsets : Offsets
        Of the groups.
    residual : (M,) float64
        Of all pairs, used or not.
    loss : (C,) float64
        Errors over those that constants would have.
    held : (C,) bool
    curved : (C,) float64
        See `FittedPlanes`.
    """

    place: FloatArray
    per_pixel: FloatArray
    value: FloatArray
    err: FloatArray
    tilt: FloatArray
    component: IntArray
    offsets: Offsets
    residual: FloatArray
    loss: FloatArray
    held: BoolArray
    curved: FloatArray

    def raised(self, by: FloatArray) -> PlaneSkies:
        """The same with a level added to each of the C components."""
        return replace(self, value=self.value + by[self.component])

    def held_at(self, image: int, sky: SkyPlane) -> PlaneSkies:
        """The same with the plane added to the component of an image that makes its sky (comparison unit) this."""
        mine = self.component == self.component[image]
        tilt = np.linalg.solve(self.per_pixel[image].T, np.array([sky.dx, sky.dy])) - self.tilt[image]
        level = (sky.level - self.value[image]) + (self.place - self.place[image]) @ tilt
        return replace(
            self,
            value=self.value + np.where(mine, level, 0.0),
            tilt=self.tilt + np.where(mine[:, None], tilt, 0.0),
        )

    def tilt_per_pixel(self) -> FloatArray:
        """(N, 2): along x and y of each image."""
        return np.asarray(np.einsum("nij,ni->nj", self.per_pixel, self.tilt))


def plane_skies(
    images: Sequence[ImageInfo],
    group: IntArray,
    measurements: Measurements,
    differences: PlaneDifferences,
    used: BoolArray,
) -> PlaneSkies:
    """Fit one plane to every group and give each image its own.

    Parameters
    ----------
    images : sequence of ImageInfo, length N
    group : (N,) int64
        Numbered from 0, without a gap.
    measurements : Measurements
    differences : PlaneDifferences
        Those of the measurements.
    used : (M,) bool
        Pairs that the fit rests on.

    Returns
    -------
    PlaneSkies
        With mean level and mean tilt of every component 0.
    """
    place, per_pixel = _places(images, differences)
    count = np.bincount(group)
    centre = np.stack([np.bincount(group, c) / count for c in place.T], axis=1)
    weight = np.where(used, measurements.weight, 0.0)
    fit = fit_planes(centre, group[measurements.a], group[measurements.b], differences, weight)
    towards = np.concatenate([np.ones((len(place), 1)), place - centre[group]], axis=1)
    planes = np.concatenate([fit.offsets.offset[:, None], fit.shape], axis=1)[group]
    variance = np.einsum("ni,nij,nj->n", towards, fit.covariance[group], towards)
    return PlaneSkies(
        place=place,
        per_pixel=per_pixel,
        value=(towards * planes).sum(axis=1),
        err=np.sqrt(np.maximum(np.stack([variance, variance * fit.noise[group]]), 0.0)),
        tilt=fit.shape[group],
        component=fit.offsets.component[group],
        offsets=fit.offsets,
        residual=fit.residual,
        loss=fit.loss,
        held=fit.held,
        curved=fit.curved,
    )


def _places(images: Sequence[ImageInfo], differences: PlaneDifferences) -> tuple[FloatArray, FloatArray]:
    """Centres of images on the tangent plane (N, 2), and derivatives there by x and y (N, 2, 2)."""
    step = _STEP_PIX * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], float)
    place, per_pixel = np.zeros((len(images), 2)), np.tile(np.eye(2), (len(images), 1, 1))
    for k, info in enumerate(images):
        if info.wcs is None:
            continue
        ny, nx = info.shape
        x, y = (step + 0.5 * np.array([nx - 1.0, ny - 1.0])).T
        found = project(differences.plane, info.wcs.to_sky(x, y))
        if np.isfinite(found).all():
            place[k] = found[0]
            per_pixel[k] = (found[[1, 3]] - found[[2, 4]]).T / (2.0 * _STEP_PIX)
    return place, per_pixel
