"""Tangent planes: the sky to a gnomonic plane and back, and solid angles of polygons in it.

A gnomonic projection maps great circles to straight lines, so polygons with great-circle sides may be
cut with plane geometry, and the result is exact on the sphere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.geometry.sphere import lon_lat, normalised, unit_vectors
from skymatch_cli.model import FloatArray, TangentPlane

if TYPE_CHECKING:
    from pyproj import Transformer

SR_TO_ARCMIN2 = (180.0 * 60.0 / np.pi) ** 2


@lru_cache(maxsize=4096)
def _transformer(plane: TangentPlane) -> Transformer:
    # A Transformer keeps one context per thread, so it may be shared.
    from pyproj import Transformer

    return Transformer.from_pipeline(f"+proj=gnom +R=1 +lat_0={plane.dec_deg!r} +lon_0={plane.ra_deg!r}")


@lru_cache(maxsize=4096)
def plane_axes(plane: TangentPlane) -> FloatArray:
    """Rows: unit vectors to the east, to the north and to the centre of the plane, (3, 3)."""
    ra, dec = np.radians(plane.ra_deg), np.radians(plane.dec_deg)
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    centre = unit_vectors(ra, dec)
    axes = np.stack([east, np.cross(centre, east), centre])
    axes.setflags(write=False)
    return axes


def project(plane: TangentPlane, vectors: FloatArray) -> FloatArray:
    """Unit vectors (n, 3) to plane coordinates (n, 2), in radians, x to the east.

    NaN for positions 90 degrees or more from the centre of the plane, and for NaN vectors.
    """
    lon, lat = lon_lat(vectors)
    x, y = _transformer(plane).transform(lon, lat, radians=True)
    xy: FloatArray = np.stack([x, y], axis=-1)
    xy[~np.isfinite(xy).all(axis=-1)] = np.nan
    return xy


def unproject(plane: TangentPlane, xy: FloatArray) -> FloatArray:
    """Plane coordinates (n, 2) to unit vectors (n, 3).

    Written with vectors because PROJ's inverse takes an arcsine for the latitude and so loses half of
    the digits near the poles.
    """
    east, north, centre = plane_axes(plane)
    return normalised(centre + xy[..., :1] * east + xy[..., 1:] * north)


def solid_angle_sr(polygons: npt.NDArray[Any] | Sequence[Any]) -> FloatArray:
    """Solid angle, (n,) in steradian, of shapely polygons (or multi-polygons) in a gnomonic plane.

    Each ring is cut into triangles from its first vertex, and each triangle is measured on the sphere
    with the formula of van Oosterom & Strackee (1983, IEEE Trans. Biomed. Eng. 30, 125); the triple
    product of (x, y, 1) vectors is twice the plane area of the triangle, so nothing cancels for small
    polygons.
    """
    import shapely

    parts, part_of = shapely.get_parts(np.asarray(polygons, dtype=object), return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    xy, of = shapely.get_coordinates(rings, return_index=True)
    if len(xy) == 0:
        return np.zeros(len(polygons))
    first = np.concatenate([[True], of[1:] != of[:-1]])
    origin = xy[np.flatnonzero(first)][of]
    inside = ~first[1:]
    p, q, o = xy[:-1][inside], xy[1:][inside], origin[1:][inside]
    signed = np.bincount(of[1:][inside], _triangle_sr(o, p, q), minlength=len(rings))
    # Outer rings count, holes are taken off; the first ring of a polygon is the outer one.
    outer = np.concatenate([[True], ring_of[1:] != ring_of[:-1]])
    by_ring = np.where(outer, np.abs(signed), -np.abs(signed))
    return np.bincount(part_of[ring_of], by_ring, minlength=len(polygons)).astype(np.float64)


def _triangle_sr(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Signed solid angle of triangles with corners (n, 2) in the plane."""
    u, v = b - a, c - a
    triple = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    na, nb, nc = (np.sqrt(1.0 + (p * p).sum(axis=1)) for p in (a, b, c))
    ab, bc, ca = (1.0 + (p * q).sum(axis=1) for p, q in ((a, b), (b, c), (c, a)))
    angle: FloatArray = 2.0 * np.arctan2(triple, na * nb * nc + ab * nc + bc * na + ca * nb)
    return angle
