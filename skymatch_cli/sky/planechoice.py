"""Choose the tangent plane in which each overlap is computed.

Planes are taken from fixed lattices on the sky, not from the exact positions of the images, so that adding a few images
does not change the planes of the others.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skymatch_cli.model import FloatArray, IntArray, TangentPlane
from skymatch_cli.sky.sphere import angle_rad, lon_lat, normalised

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
