"""Project the sky to gnomonic planes and back, and measure solid angles of polygons in them.

A gnomonic projection maps great circles to straight lines, so polygons with great-circle sides may be
intersected with plane geometry, and the result is exact on the sphere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.model import FloatArray, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.sphere import lon_lat, normalised, unit_vectors

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
