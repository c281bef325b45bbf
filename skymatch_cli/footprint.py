"""Where an image lies on the sky: rings of great circles along the border of its frame.

An image up to 60 degrees wide with all of its frame on the sky is one part with one ring. Wider ones are
cut along rows and columns into parts of up to 40 degrees, each with its own ring; where some pixels are
off the sky (the corners of an all-sky map), only cells of 1/128 of the frame (at least one pixel) that are on the sky
with all four corners belong to the footprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .border import sky_border
from .errors import InputError
from .model import BoolArray, CelestialWcs, FloatArray, IntArray
from .sphere import bounding_cap, normalised

MAX_RADIUS_RAD = np.radians(30.0)  # of an image in one part
_BLOCK_RADIUS_RAD = np.radians(20.0)  # of the parts of others
CELLS = 128  # a side of the frame, where it is followed in cells
_PROBES = 9  # a side of the frame, to see what kind of image it is
_HINT = "check its WCS, or leave the image out"


@dataclass(frozen=True, slots=True, eq=False)
class FootprintPart:
    """A piece of a footprint, at most 60 degrees wide.

    Attributes
    ----------
    rings : tuple of (n, 3) float64
        Open rings of ICRS unit vectors joined by great circles: the outer one, then holes.
    centre : (3,) float64
    radius : float
        The cap about ``centre`` that holds the part, in radians.
    box : (x0, y0, x1, y1)
        The rectangle of pixel coordinates that holds the part.
    """

    rings: tuple[FloatArray, ...]
    centre: FloatArray
    radius: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """The sky that an image covers: one part, or several that share no area."""

    parts: tuple[FootprintPart, ...]


def footprint(wcs: CelestialWcs, where: str = "image") -> Footprint:
    """Trace the border of an image on the sky.

    The border is that of the pixels' outer edges, from -0.5 to n - 0.5. It is followed to better than
    0.05 pixels. Images over a pole or across RA 0 are like any other.

    Raises
    ------
    InputError
        No pixel is on the sky, or the WCS maps different pixels to the same place.
    """
    ny, nx = wcs.shape
    frame = np.array([[-0.5, -0.5], [nx - 0.5, -0.5], [nx - 0.5, ny - 0.5], [-0.5, ny - 0.5]])
    if getattr(wcs, "straight", False):
        corners = wcs.to_sky(frame[:, 0], frame[:, 1])
        centre, radius = bounding_cap(corners)
        if radius <= MAX_RADIUS_RAD:
            return Footprint((FootprintPart((corners,), centre, radius, (-0.5, -0.5, nx - 0.5, ny - 0.5)),))
    if fits_one_part(wcs):
        return Footprint((_part(wcs, (frame,), where),))
    return Footprint(tuple(_wide_parts(wcs, where)))


def fits_one_part(wcs: CelestialWcs) -> bool:
    """True where the whole frame is on the sky, and at most 60 degrees wide."""
    sky = _grid(wcs, _PROBES - 1)[2].reshape(-1, 3)
    return bool(np.isfinite(sky).all()) and bounding_cap(sky)[1] <= MAX_RADIUS_RAD


def _grid(wcs: CelestialWcs, cells: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Grid lines x and y from edge to edge of the frame, and the sky at their crossings, (y, x, 3).

    The lines run between pixels, so that where parts meet no pixel centre is on the seam.
    """
    ny, nx = wcs.shape
    x, y = (np.linspace(0, n, min(n, cells) + 1).round() - 0.5 for n in (nx, ny))
    at_x, at_y = np.meshgrid(x, y)
    return x, y, wcs.to_sky(at_x.ravel(), at_y.ravel()).reshape(len(y), len(x), 3)


def _part(wcs: CelestialWcs, rings: tuple[FloatArray, ...], where: str) -> FootprintPart:
    """The part inside rings of pixel coordinates, (n, 2) each."""
    on_sky = tuple(sky_border(wcs, ring) for ring in rings)
    centre, radius = bounding_cap(on_sky[0])
    if len(on_sky[0]) < 3 or radius > 2.0 * MAX_RADIUS_RAD:
        raise InputError.at(where, "its border on the sky can't be followed", _HINT)
    _check_simple(on_sky[0], centre, where)
    low, high = rings[0].min(axis=0), rings[0].max(axis=0)
    return FootprintPart(on_sky, centre, radius, (low[0], low[1], high[0], high[1]))


def _check_simple(ring: FloatArray, centre: FloatArray, where: str) -> None:
    """Refuse a ring that crosses itself by more than rounding: the WCS folds over."""
    import shapely

    east = normalised(np.cross([0.0, 0.0, 1.0] if abs(centre[2]) < 0.9 else [1.0, 0.0, 0.0], centre))
    north = np.cross(centre, east)
    flat = np.stack([ring @ east, ring @ north], axis=1) / (ring @ centre)[:, None]
    polygon = shapely.polygons(flat)
    if not shapely.is_valid(polygon):
        area = shapely.area(shapely.make_valid(polygon))
        # A ring that crosses itself runs around its lobes in opposite senses, and they cancel in its area.
        if abs(area - shapely.area(polygon)) > 1e-3 * area:
            raise InputError.at(where, "its WCS maps different pixels to the same place on the sky", _HINT)


def _wide_parts(wcs: CelestialWcs, where: str) -> list[FootprintPart]:
    """Cut the frame into blocks of at most 40 degrees, and keep of each what is on the sky."""
    x, y, sky = _grid(wcs, CELLS)
    known = np.asarray(np.isfinite(sky).all(axis=2))
    valid = known[:-1, :-1] & known[:-1, 1:] & known[1:, :-1] & known[1:, 1:]
    if not valid.any():
        raise InputError.at(where, "none of its pixels is on the sky", _HINT)
    columns, rows = _block_edges(sky, valid)
    return [
        _part(wcs, rings, where)
        for y0, y1 in pairwise(rows)
        for x0, x1 in pairwise(columns)
        for rings in _outlines(x[x0 : x1 + 1], y[y0 : y1 + 1], valid[y0:y1, x0:x1])
    ]


def _block_edges(sky: FloatArray, valid: BoolArray) -> tuple[IntArray, IntArray]:
    """Grid lines (x, y) that cut the frame into blocks small enough on the sky."""
    ny, nx = valid.shape
    across = down = 1
    while True:
        columns = np.unique(np.linspace(0, nx, across + 1).round().astype(np.int64))
        rows = np.unique(np.linspace(0, ny, down + 1).round().astype(np.int64))
        if _largest_radius(sky, valid, columns, rows) <= _BLOCK_RADIUS_RAD or (len(columns) > nx and len(rows) > ny):
            return columns, rows
        # Cut the side that is longer on the sky, as its steps from node to node add up.
        wide = _length(np.diff(sky, axis=1)) / across
        high = _length(np.diff(sky, axis=0).swapaxes(0, 1)) / down
        if (wide >= high or down >= ny) and across < nx:
            across *= 2
        else:
            down *= 2


def _length(steps: FloatArray) -> float:
    """The longest of several lines of steps, (line, step, 3)."""
    return float(np.nansum(np.linalg.norm(steps, axis=2), axis=1).max())


def _largest_radius(sky: FloatArray, valid: BoolArray, columns: IntArray, rows: IntArray) -> float:
    largest = 0.0
    for y0, y1 in pairwise(rows):
        for x0, x1 in pairwise(columns):
            if valid[y0:y1, x0:x1].any():
                inside = sky[y0 : y1 + 1, x0 : x1 + 1].reshape(-1, 3)
                inside = inside[np.isfinite(inside).all(axis=1)]
                largest = max(largest, bounding_cap(inside)[1])
    return largest


def _outlines(x: FloatArray, y: FloatArray, valid: BoolArray) -> list[tuple[FloatArray, ...]]:
    """Outlines in pixel coordinates, outer ring and holes, of the valid cells between grid lines."""
    import shapely

    if valid.all():
        return [(np.array([[x[0], y[0]], [x[-1], y[0]], [x[-1], y[-1]], [x[0], y[-1]]]),)]
    down, across = np.nonzero(valid)
    cells = shapely.box(x[across], y[down], x[across + 1], y[down + 1])
    merged = shapely.get_parts(shapely.union_all(cells))
    return [tuple(shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(part)) for part in merged]
