"""Unit vectors on the celestial sphere: positions, angles, bounding caps. Pure numpy."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import CelestialWcs, FloatArray


def unit_vectors(lon_rad: FloatArray, lat_rad: FloatArray) -> FloatArray:
    """Convert longitudes and latitudes, (n,) in radians, to unit vectors (n, 3).

    Examples
    --------
    >>> unit_vectors(np.radians([0.0, 90.0]), np.zeros(2)).round(12)
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    cos_lat = np.cos(lat_rad)
    return np.stack([cos_lat * np.cos(lon_rad), cos_lat * np.sin(lon_rad), np.sin(lat_rad)], axis=-1)


def lon_lat(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Convert vectors (n, 3) of any length to longitude and latitude in radians, accurately at the poles too."""
    # Copies: for strided arguments the last digit of numpy before 2 depends on their place in memory.
    x, y, z = np.moveaxis(vectors, -1, 0).copy(order="C")
    return np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))


def normalised(vectors: FloatArray) -> FloatArray:
    """Scale vectors (..., 3) to unit length; NaN where the length is 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: FloatArray = vectors / length
    return unit


def angle_rad(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return the angle between unit vectors (..., 3), from the chord, so that small angles keep their digits."""
    chord = np.linalg.norm(np.asarray(u) - np.asarray(v), axis=-1)
    angle: FloatArray = 2.0 * np.arcsin(np.minimum(0.5 * chord, 1.0))
    return angle


def bounding_cap(vectors: FloatArray) -> tuple[FloatArray, float]:
    """Return a cap that contains the points: its centre, (3,), and its angular radius in radians.

    The centre is the mean direction, so the cap is not the smallest one. A region whose border is made
    of great-circle arcs between the points lies in the cap as long as the radius is below 90 degrees.
    """
    centre = normalised(vectors.sum(axis=0))
    if not np.isfinite(centre).all():  # the points cancel out: they surround the sphere
        return np.array([0.0, 0.0, 1.0]), np.pi
    # The margin covers the rounding of the vectors.
    return centre, float(angle_rad(vectors, centre).max()) + 1e-15


def ring_sr(ring: FloatArray) -> float:
    """Return the solid angle in steradian inside a ring of unit vectors (n, 3) joined by great circles.

    The ring is cut into triangles from its first vertex, each measured with the formula of van Oosterom &
    Strackee (1983, IEEE Trans. Biomed. Eng. 30, 125). It must lie within a hemisphere of that vertex.
    """
    a, b, c = ring[0], ring[1:-1], ring[2:]
    p, q = b - a, c - a  # differences first: nothing cancels in a small ring
    triple = (p[:, [1, 2, 0]] * q[:, [2, 0, 1]] - p[:, [2, 0, 1]] * q[:, [1, 2, 0]]) @ a
    halves = np.arctan2(triple, 1.0 + b @ a + (b * c).sum(axis=1) + c @ a)
    return abs(2.0 * float(halves.sum()))


_SR_TO_ARCSEC2 = (180.0 * 3600.0 / np.pi) ** 2


def pixel_area_arcsec2(wcs: CelestialWcs) -> float:
    """Return the mean solid angle of a pixel in the middle tenth of the image, in arcsec2; NaN off the sky.

    Measured on the sky, so it is right far from the reference point of the projection too.
    """
    ny, nx = wcs.shape
    half_x, half_y = max(0.05 * nx, 0.5), max(0.05 * ny, 0.5)
    x, y = 0.5 * (nx - 1), 0.5 * (ny - 1)
    corners = wcs.to_sky(
        np.array([x - half_x, x + half_x, x + half_x, x - half_x]),
        np.array([y - half_y, y - half_y, y + half_y, y + half_y]),
    )
    return float(ring_sr(corners) * _SR_TO_ARCSEC2 / (4.0 * half_x * half_y))


def pixel_area_ratio(wcs: CelestialWcs) -> float:
    """Return the largest solid angle of a pixel over the smallest, from a grid of 3 x 3 pixels; 1 off the sky."""
    ny, nx = wcs.shape
    y, x = (grid.ravel() for grid in np.meshgrid(np.linspace(0, ny - 1, 3), np.linspace(0, nx - 1, 3), indexing="ij"))
    corner, right, upper = wcs.to_sky(
        np.concatenate([x - 0.5, x + 0.5, x - 0.5]), np.concatenate([y - 0.5, y - 0.5, y + 0.5])
    ).reshape(3, -1, 3)
    area = np.linalg.norm(np.cross(right - corner, upper - corner), axis=1)
    area = area[area > 0]
    return float(area.max() / area.min()) if len(area) else 1.0
