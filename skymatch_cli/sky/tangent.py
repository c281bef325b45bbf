"""Choose gnomonic planes, project the sky to them and back, and measure solid angles of polygons in them.

A gnomonic projection maps great circles to straight lines, so polygons with great-circle sides may be intersected with
plane geometry, and the result is exact on the sphere. Planes are taken from fixed lattices on the sky, not from the
exact positions of the images, so that adding a few images does not change the planes of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skymatch_cli.model import FloatArray, IntArray, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.sphere import angle_rad, lon_lat, normalised, unit_vectors

if TYPE_CHECKING:
    from pyproj import Transformer

SR_TO_ARCMIN2 = (180.0 * 60.0 / np.pi) ** 2


@lru_cache(maxsize=4096)
def _transformer(plane: TangentPlane) -> Transformer:
    # A Transformer keeps one context per thread, so it may be shared.
    from pyproj import Transformer

    return Transformer.from_pipeline(f"+proj=gnom +R=1 +lat_0={plane.dec_deg!r} +lon_0={plane.ra_deg!r}")


@lru_cache(maxsize=4096)
def tangent_axes(lon_rad: float, lat_rad: float) -> FloatArray:
    """Return unit vectors to the east, to the north and to a position itself, as rows of (3, 3)."""
    east = np.array([-np.sin(lon_rad), np.cos(lon_rad), 0.0])
    centre = unit_vectors(np.asarray(lon_rad), np.asarray(lat_rad))
    axes = np.stack([east, np.cross(centre, east), centre])
    axes.setflags(write=False)
    return axes


def flattened(axes: FloatArray, vectors: FloatArray) -> FloatArray:
    """Project unit vectors (n, 3) to the plane of `tangent_axes`, (n, 2); they must lie on its side of the sky."""
    u, v, w = np.einsum("ij,nj->in", axes, vectors)
    return np.stack([u / w, v / w], axis=-1)


def project(plane: TangentPlane, vectors: FloatArray) -> FloatArray:
    """Project unit vectors (n, 3) to plane coordinates (n, 2), in radians, x to the east.

    NaN for positions 90 degrees or more from the centre of the plane, and for NaN vectors.
    """
    lon, lat = lon_lat(vectors)
    x, y = _transformer(plane).transform(lon, lat, radians=True)
    xy: FloatArray = np.stack([x, y], axis=-1)
    xy[~np.isfinite(xy).all(axis=-1)] = np.nan
    return xy


def unproject(plane: TangentPlane, xy: FloatArray) -> FloatArray:
    """Convert plane coordinates (n, 2) to unit vectors (n, 3).

    Computed with vectors: PROJ's inverse takes an arcsine for the latitude, and loses half of the digits near the
    poles.
    """
    east, north, centre = tangent_axes(np.radians(plane.ra_deg), np.radians(plane.dec_deg))
    return normalised(centre + xy[..., :1] * east + xy[..., 1:] * north)


def plane_wcs(centre_deg: Sequence[float], crpix: Sequence[float], cd: FloatArray, projection: str = "TAN") -> Any:
    """Make the astropy WCS of a zenithal projection about an ICRS position; ``cd`` (2, 2) in degrees per pixel."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = list(centre_deg), list(crpix), cd
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def solid_angle_sr(polygons: Polygons) -> FloatArray:
    """Return the solid angles, (N,) in steradian, of polygons in a gnomonic plane.

    Each ring is cut into triangles from its first vertex, and each triangle is measured on the sphere
    with the formula of van Oosterom & Strackee (1983, IEEE Trans. Biomed. Eng. 30, 125); the triple
    product of (x, y, 1) vectors is twice the plane area of the triangle, so nothing cancels for small
    polygons.
    """
    xy, ring = polygons.xy, polygons.ring_of_vertex()
    p = np.flatnonzero(ring[1:] == ring[:-1])
    origin = polygons.ring_offset[ring[p]]
    signed = np.bincount(ring[p], _triangle_sr(xy[origin], xy[p], xy[p + 1]), minlength=len(polygons.outer))
    return polygons.without_holes(np.abs(signed))


def _triangle_sr(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Return signed solid angles of triangles with corners (n, 2) in the plane."""
    u, v = b - a, c - a
    triple = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    aa, bb, cc, ab, bc, ca = (_scalar_product(*both) for both in ((a, a), (b, b), (c, c), (a, b), (b, c), (c, a)))
    na, nb, nc = np.sqrt(aa), np.sqrt(bb), np.sqrt(cc)
    angle: FloatArray = 2.0 * np.arctan2(triple, na * nb * nc + ab * nc + bc * na + ca * nb)
    return angle


def _scalar_product(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return scalar products of the vectors (x, y, 1) of points (n, 2) in the plane."""
    product: FloatArray = 1.0 + (p[:, 0] * q[:, 0] + p[:, 1] * q[:, 1])
    return product


NARROW_RAD = np.radians(10.0)  # a field within this radius gets one plane
_NARROW_STEP_DEG = 1.0
_WIDE_STEP_DEG = 20.0  # no point is more than 15 degrees from the centre of its plane
# From a point to the far end of a footprint, so that all of it is on this side of the sky.
_REACH_RAD = np.radians(65.0)


def assign_planes(
    centres: FloatArray, radii_rad: FloatArray, image: IntArray, i: IntArray, j: IntArray
) -> tuple[IntArray, tuple[TangentPlane, ...]]:
    """Choose a plane for every pair (i, j) of touching caps; return indices, (m,), into the planes, and these.

    If all caps lie within `NARROW_RAD` of their mean there is one plane. Otherwise each connected set of caps that is
    that narrow has one plane, and the pairs of wider sets take a plane near their overlap: the same for all parts of
    two images, if it can hold them. ``image`` says to which image each cap belongs; radii are at most 30 degrees, or a
    little more.
    """
    middle = _mean_direction(centres)
    if len(i) == 0 or (angle_rad(centres, middle) + radii_rad).max() <= NARROW_RAD:
        ra, dec = _lattice(middle[None], _NARROW_STEP_DEG)
        return np.zeros(len(i), np.int64), (TangentPlane(float(ra[0]), float(dec[0])),)
    ra, dec = _lattice(_places(centres, radii_rad, image, i, j), _WIDE_STEP_DEG)
    for members, pairs in _connected(len(centres), i, j):
        middle = _mean_direction(centres[members])
        if (angle_rad(centres[members], middle) + radii_rad[members]).max() <= NARROW_RAD:
            ra[pairs], dec[pairs] = _lattice(middle[None], _NARROW_STEP_DEG)
    places, plane = np.unique(ra + 1j * dec, return_inverse=True)
    return plane.astype(np.int64), tuple(TangentPlane(float(p.real), float(p.imag)) for p in places)


def _mean_direction(vectors: FloatArray) -> FloatArray:
    """Return the mean direction of unit vectors (n, 3), exactly the same in any order."""
    if not len(vectors):
        return np.array([1.0, 0.0, 0.0])
    total = normalised(np.array([math.fsum(column) for column in vectors.T]))
    return total if np.isfinite(total).all() else np.array([1.0, 0.0, 0.0])


def _lattice(vectors: FloatArray, step_deg: float) -> tuple[FloatArray, FloatArray]:
    """Return the lattice point (RA, Dec in degrees) near each vector: rings of declination, even steps on each."""
    lon, lat = lon_lat(vectors)
    bands = round(90.0 / step_deg)
    dec = np.round(np.degrees(lat) * bands / 90.0) * 90.0 / bands
    count = np.maximum(1.0, np.round(360.0 * np.cos(np.radians(dec)) / step_deg))
    ra = np.round(np.degrees(lon) * count / 360.0) % count * 360.0 / count
    return ra, dec


def _places(centres: FloatArray, radii_rad: FloatArray, image: IntArray, i: IntArray, j: IntArray) -> FloatArray:
    """Return a point in the overlap of each pair of caps; one for all pairs of two images that a plane can hold."""
    lens = _lens_centre(centres, radii_rad, i, j)
    low, high = np.minimum(image[i], image[j]), np.maximum(image[i], image[j])
    _, pair = np.unique(low * (high.max() + 1) + high, return_inverse=True)
    total: FloatArray = np.stack([np.bincount(pair, lens[:, axis]) for axis in range(3)], axis=1).astype(np.float64)
    common = normalised(total)[pair]
    reach = np.fmax(angle_rad(common, centres[i]) + radii_rad[i], angle_rad(common, centres[j]) + radii_rad[j])
    farthest = np.zeros(len(total))
    np.maximum.at(farthest, pair, np.where(np.isnan(reach), np.inf, reach))
    return np.where((farthest <= _REACH_RAD)[pair, None], common, lens)


def _lens_centre(centres: FloatArray, radii_rad: FloatArray, i: IntArray, j: IntArray) -> FloatArray:
    """Return the middle of the intersection of two caps, on the great circle through their centres."""
    apart = angle_rad(centres[i], centres[j])
    low = np.maximum(apart - radii_rad[j], -radii_rad[i])
    high = np.minimum(radii_rad[i], apart + radii_rad[j])
    from_i = np.clip(0.5 * (low + high), 0.0, apart)
    # Rounding makes the weights differ by 1e-16 when i and j change places: less than the lattice can see.
    sin_apart = np.maximum(np.sin(apart), 1e-12)
    weight_j = np.where(apart > 1e-9, np.sin(from_i) / sin_apart, 0.5)
    weight_i = np.where(apart > 1e-9, np.sin(apart - from_i) / sin_apart, 0.5)
    return normalised(weight_i[:, None] * centres[i] + weight_j[:, None] * centres[j])


def _connected(n: int, i: IntArray, j: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Yield the caps and the pairs of each connected set that has pairs."""
    _, label = connected_components(coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n)), directed=False)
    caps, pairs = np.argsort(label, kind="stable"), np.argsort(label[i], kind="stable")
    used = np.unique(label[i])
    cap_from, cap_to = (np.searchsorted(label[caps], used, side) for side in ("left", "right"))
    pair_from, pair_to = (np.searchsorted(label[i][pairs], used, side) for side in ("left", "right"))
    return [(caps[a:b], pairs[c:d]) for a, b, c, d in zip(cap_from, cap_to, pair_from, pair_to, strict=True)]
