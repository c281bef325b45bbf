"""The skies of images as planes or polynomials, on the tangent plane and in their own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, ImageInfo, IntArray, Measurements, PlaneDifferences, TangentPlane
from skymatch_cli.model.monomials import carried, degree_of, exponents
from skymatch_cli.model.skyplane import SkyPlane, bends
from skymatch_cli.sky.tangent import project
from skymatch_cli.solve.tiltfit import FittedPlanes, fit_planes

_STEP_PIX = 1.0  # for derivatives
_NODES = 9  # a side, at which a polynomial of the sky becomes one of the pixels


@dataclass(frozen=True, slots=True, eq=False)
class PlaneSkies:
    """A polynomial of k terms for each of N images, in comparison units, on one tangent plane."""

    place: FloatArray  # (N, 2): centres of the images on the tangent plane, radians
    planes: FloatArray  # (N, k): coefficients about these, per powers of a radian
    to_pixels: FloatArray  # (N, k, k): what makes of them the coefficients of a `SkyPlane`
    # (2, N): one sigma at the image's centre, of all that is known and of the noise of the pixels alone, where nothing
    # is common to the shapes of the component and its mean level is zero
    err: FloatArray
    component: IntArray  # (N,)
    degree: IntArray  # (N,)
    fit: FittedPlanes  # of the groups
    reasons: tuple[str, ...] = ()  # why each component of several images has its degree, where it was chosen

    @property
    def value(self) -> FloatArray:
        """Sky at the centre of every image, (N,)."""
        return np.asarray((self.to_pixels[:, 0] * self.planes).sum(axis=1))

    def raised(self, by: FloatArray) -> PlaneSkies:
        """The same with a level added to each of the C components."""
        planes = self.planes.copy()
        planes[:, 0] += by[self.component]
        return replace(self, planes=planes)

    def held_at(self, image: int, sky: SkyPlane) -> PlaneSkies:
        """The same with the polynomial added to the component of an image that makes its sky (comparison unit) this."""
        k = self.planes.shape[1]
        wanted = np.linalg.solve(self.to_pixels[image], np.array([sky.level, *sky.shape[: k - 1]]))
        added = carried(self.place - self.place[image], degree_of(k)) @ (wanted - self.planes[image])
        mine = self.component == self.component[image]
        return replace(self, planes=self.planes + np.where(mine[:, None], added, 0.0))

    def shapes(self) -> FloatArray | None:
        """Shapes of the skies as those of a `SkyPlane`, (N, 2, 5 or 9) by the highest degree; None for constants."""
        if not (highest := int(self.degree.max(initial=0))):
            return None
        totals = np.array([sum(each) for each in exponents(highest)][1:])
        found = (self.to_pixels @ self.planes[:, :, None])[:, 1 : len(totals) + 1, 0]
        return np.asarray(np.where(totals <= self.degree[:, None], found, 0.0))


def plane_skies(
    images: Sequence[ImageInfo],
    group: IntArray,
    measurements: Measurements,
    differences: PlaneDifferences,
    used: BoolArray,
    *,
    choose: bool = False,
) -> PlaneSkies:
    """Fit one polynomial to every group and give each image its own, with nothing common to the shapes of a component.

    Parameters
    ----------
    group : (N,) int64
        Numbered from 0, without a gap.
    used : (M,) bool
        Pairs that the fit rests on.
    choose : bool
        Take the lowest degree that the data ask for, in each component.
    """
    degree = degree_of(differences.pull.shape[1])
    place, to_pixels = _places(images, differences, degree)
    count = np.bincount(group)
    centre = np.stack([np.bincount(group, c) / count for c in place.T], axis=1)
    weight = np.where(used, measurements.weight, 0.0)
    fit = fit_planes(centre, group[measurements.a], group[measurements.b], differences, weight, choose=choose)
    towards = carried(place - centre[group], degree)
    planes = np.concatenate([fit.offsets.offset[:, None], fit.shape], axis=1)[group]
    variance = np.einsum("ni,nij,nj->n", towards[:, 0], fit.covariance[group], towards[:, 0])
    return PlaneSkies(
        place=place,
        planes=(towards @ planes[:, :, None])[:, :, 0],
        to_pixels=to_pixels,
        err=np.sqrt(np.maximum(np.stack([variance, variance * fit.noise[group]]), 0.0)),
        component=fit.offsets.component[group],
        degree=fit.degree[group],
        fit=fit,
        reasons=_named(images, fit.offsets.component[group], fit.reasons),
    )


def _named(images: Sequence[ImageInfo], component: IntArray, reasons: Sequence[str]) -> tuple[str, ...]:
    """The reasons of components (C,) of several images, with the name of the first of them."""
    _, first, count = np.unique(component, return_index=True, return_counts=True)
    both = zip(reasons, first.tolist(), count.tolist(), strict=False)
    return tuple(f"{images[i].ref.label} and {n - 1} more: {reason}" for reason, i, n in both if n > 1)


def chosen_degree(
    images: Sequence[ImageInfo], group: IntArray, measurements: Measurements
) -> tuple[int, tuple[str, ...]]:
    """The highest degree that the differences of any component ask for, and why (`DegreeCosts.chosen`)."""
    _, number = np.unique(group, return_inverse=True)
    used = (measurements.weight > 0) & (group[measurements.a] != group[measurements.b])
    if measurements.planes is None or not used.any():
        return 0, ()
    found = plane_skies(images, number, measurements, measurements.planes, used, choose=True)
    connected = np.bincount(found.component)[found.component] > 1
    return int(found.degree.max(initial=0, where=connected)), found.reasons


def _places(images: Sequence[ImageInfo], differences: PlaneDifferences, degree: int) -> tuple[FloatArray, FloatArray]:
    """Centres of images on the tangent plane (N, 2), and what makes polynomials of pixels of those there (N, k, k)."""
    found: list[tuple[FloatArray, FloatArray]] = []
    last = None
    for info in images:  # planes of a cube follow each other, and share a WCS
        same = last is not None and info.wcs is last
        found.append(found[-1] if same else _place(info, differences.plane, degree))
        last = info.wcs
    place, to_pixels = zip(*found, strict=True)
    return np.array(place), np.array(to_pixels)


def _place(info: ImageInfo, plane: TangentPlane, degree: int) -> tuple[FloatArray, FloatArray]:
    """The same for one image, (2,) and (k, k); its centre is 0 where it has no place on the plane."""
    k = len(exponents(degree))
    to_pixels = np.eye(k)
    if info.wcs is None:
        return np.zeros(2), to_pixels
    ny, nx = info.shape
    half = 0.5 * np.array([nx - 1.0, ny - 1.0])
    from_centre = _from_centre(info.shape, degree)
    found = project(plane, info.wcs.to_sky(*(np.vstack([[0, 0], from_centre]) + half).T))
    if not np.isfinite(found).all():
        return np.zeros(2), to_pixels
    away = found[1:] - found[0]
    if degree == 1:
        to_pixels[1:, 1:] = (away[[0, 2]] - away[[1, 3]]) / (2.0 * _STEP_PIX)
        return found[0], to_pixels
    x, y = from_centre.T
    sky = np.stack([away[:, 0] ** a * away[:, 1] ** b for a, b in exponents(degree)], axis=1)
    pixels = np.stack([np.ones(len(x)), x, y, *bends(x, y, info.shape)], axis=1)[:, :k]
    return found[0], np.linalg.lstsq(pixels, sky, rcond=None)[0]


def _from_centre(shape: tuple[int, int], degree: int) -> FloatArray:
    """Places (q, 2) in an image, pixels from its centre: for derivatives, or all over it."""
    if degree == 1:
        return _STEP_PIX * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)
    along = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    x, y = np.meshgrid(0.5 * (shape[1] - 1) * along, 0.5 * (shape[0] - 1) * along)
    return np.stack([x.ravel(), y.ravel()], axis=1)
