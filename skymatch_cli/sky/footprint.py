"""Trace the footprint of an image: rings of great circles along the border of its frame.

An image up to 60 degrees wide with all of its frame on the sky is one part with one ring. Wider ones are
cut along rows and columns into parts of about 40 degrees, each with its own ring; where some pixels are
off the sky (the corners of an all-sky map), only pixels that are on the sky
with all four corners belong to the footprint (above 512 pixels a side: cells of 1/512 of the frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skymatch_cli.errors import InputError
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray
from skymatch_cli.sky.sphere import angle_rad, bounding_cap, lon_lat, normalised
from skymatch_cli.sky.tangent import flattened, tangent_axes

CHORD_PIX = 0.02  # largest distance between a border and the great circles that replace it
_CHECK_EVERY_PIX = 32.0  # distortion tables have nodes every 64 pixels or so
_SHORTEST_PIX = 0.1


def sky_borders(wcs: CelestialWcs, rings: Sequence[FloatArray]) -> list[FloatArray]:
    """Follow rings of straight lines in pixels on the sky.

    ``rings`` are open, (n, 2) each, on the sky; so are the results, (m, 3) unit vectors, the corners among them. Great
    circles between these are within `CHORD_PIX` of the border, measured in pixels across it.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    pixels, segment = halved(start, end, lambda low, high, _: (0.5 * (low + high), _bent(wcs, low, high)))
    sky = wcs.to_sky(pixels[:, 0], pixels[:, 1])
    ends = np.cumsum([len(ring) for ring in rings])[:-1]
    return [_without_repeats(ring) for ring in np.split(sky, np.searchsorted(segment, ends))]


def halved(
    start: FloatArray,
    end: FloatArray,
    middles: Callable[[FloatArray, FloatArray, IntArray], tuple[FloatArray, BoolArray]],
) -> tuple[FloatArray, IntArray]:
    """Halve segments from start to end, (n, k), until none is bent.

    Return the starts of all pieces in order, (m, k), and the segment of each, (m,). ``middles`` is given ends of pieces
    and their segments, and returns the middles of the pieces, and which of them are bent.
    """
    place = np.arange(len(start), dtype=float)
    nodes, places, span = [start], [place], 0.5
    while len(start):
        middle, bent = middles(start, end, place.astype(np.int64))
        start, end, middle, place = start[bent], end[bent], middle[bent], place[bent]
        start, end = np.concatenate([start, middle]), np.concatenate([middle, end])
        nodes.append(middle)
        places.append(place + span)
        place = np.concatenate([place, places[-1]])
        span *= 0.5
    along = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(nodes)[along], np.concatenate(places)[along].astype(np.int64)


def _bent(wcs: CelestialWcs, start: FloatArray, end: FloatArray) -> BoolArray:
    """Return which segments (n, 2) to (n, 2) depart too far from the great circle between their ends."""
    n = len(start)
    length = np.linalg.norm(end - start, axis=1)
    checks = int(max(7, np.ceil(length.max() / _CHECK_EVERY_PIX)))
    t = np.linspace(0.0, 1.0, checks + 2)[:, None, None]
    across = (end - start)[:, ::-1] * [1.0, -1.0] / length[:, None]  # one pixel to the side
    middle = 0.5 * (start + end)
    pixels = np.concatenate([start + t * (end - start), [middle + across, middle - across, middle]])
    sky = wcs.to_sky(pixels[..., 0].ravel(), pixels[..., 1].ravel()).reshape(-1, n, 3)
    on_line, left, right, centre = sky[: checks + 2], sky[-3], sky[-2], sky[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        pole = normalised(np.cross(on_line[0], on_line[-1] - on_line[0]))
        off_rad = np.nanmax(np.abs((on_line * pole).sum(axis=2)), axis=0, initial=0.0)
        # A pixel may be off the sky on one side of the border.
        scale = np.fmax(*(np.abs(((side - centre) * pole).sum(axis=1)) for side in (left, right)))
        bent = (off_rad > CHORD_PIX * scale) & (length > 2.0 * _SHORTEST_PIX)
    return np.asarray(bent, dtype=np.bool_)


def _without_repeats(vectors: FloatArray) -> FloatArray:
    """Drop vertices off the sky and those that repeat the one before (a pole that is a whole line in pixels)."""
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    apart = np.abs(vectors - np.roll(vectors, 1, axis=0)).max(axis=1, initial=0.0) > 1e-13
    kept: FloatArray = vectors[apart]
    return kept


MAX_RADIUS_RAD = np.radians(30.0)  # of an image in one part
_LARGEST_RADIUS_RAD = np.radians(36.0)  # of a cap about the border: all must be within 90 degrees of a plane's centre
_BLOCK_RADIUS_RAD = np.radians(20.0)  # of the parts of others
CELLS = 512  # a side of the frame, where it is followed in cells
_PROBES = 9  # points per side of the frame, to find the kind of image
_HINT = "check its WCS, or leave the image out"


@dataclass(frozen=True, slots=True, eq=False)
class FootprintPart:
    """A piece of a footprint, at most 60 degrees wide."""

    # (n, 3) float64: open rings of ICRS unit vectors joined by great circles: the outer one, then holes
    rings: tuple[FloatArray, ...]
    centre: FloatArray  # (3,)
    radius: float  # the cap about ``centre`` that holds the part, in radians
    box: tuple[float, float, float, float]  # (x0, y0, x1, y1): the rectangle of pixel coordinates that holds the part


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """The region of sky that an image covers: one part, or several without common area."""

    parts: tuple[FootprintPart, ...]


def footprint(wcs: CelestialWcs, where: str = "image") -> Footprint:
    """Trace the border of an image on the sky: that of the pixels' outer edges, from -0.5 to n - 0.5.

    It is followed to better than 0.05 pixels, also over a pole or across RA 0. InputError: no pixel is on the sky, or
    the WCS maps different pixels to the same place.
    """
    ny, nx = wcs.shape
    frame = _frame(wcs)
    if getattr(wcs, "straight", False):
        corners = wcs.to_sky(frame[:, 0], frame[:, 1])
        centre, radius = bounding_cap(corners)
        if radius <= MAX_RADIUS_RAD:
            return Footprint((FootprintPart((corners,), centre, radius, (-0.5, -0.5, nx - 0.5, ny - 0.5)),))
    parts = _parts(wcs, [(frame,)] if fits_one_part(wcs) else _wide_outlines(wcs, where), where)
    if not parts:
        raise InputError.at(where, "its WCS maps all pixels to one point or line on the sky", _HINT)
    return Footprint(parts)


def fits_one_part(wcs: CelestialWcs) -> bool:
    """Return whether the whole frame is on the sky, and at most 60 degrees wide."""
    if getattr(wcs, "straight", False) and bounding_cap(wcs.to_sky(*_frame(wcs).T))[1] <= MAX_RADIUS_RAD:
        return True
    sky = _grid(wcs, _PROBES - 1)[2].reshape(-1, 3)
    return bool(np.isfinite(sky).all()) and bounding_cap(sky)[1] <= MAX_RADIUS_RAD


def _frame(wcs: CelestialWcs) -> FloatArray:
    """Return the outer corners of the frame in pixels, (4, 2)."""
    ny, nx = wcs.shape
    return np.array([[-0.5, -0.5], [nx - 0.5, -0.5], [nx - 0.5, ny - 0.5], [-0.5, ny - 0.5]])


def _grid(wcs: CelestialWcs, cells: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return grid lines x and y across the frame, and the sky at their crossings, (y, x, 3).

    The lines run between pixels, so that where parts meet no pixel centre is on the seam.
    """
    ny, nx = wcs.shape
    x, y = (np.linspace(0, n, min(n, cells) + 1).round() - 0.5 for n in (nx, ny))
    at_x, at_y = np.meshgrid(x, y)
    return x, y, wcs.to_sky(at_x.ravel(), at_y.ravel()).reshape(len(y), len(x), 3)


def _parts(wcs: CelestialWcs, outlines: Sequence[tuple[FloatArray, ...]], where: str) -> tuple[FootprintPart, ...]:
    """Make parts of outlines: rings of pixel coordinates, (n, 2) each, the outer one and holes."""
    borders = iter(sky_borders(wcs, [ring for rings in outlines for ring in rings]))
    parts = []
    for rings in outlines:
        on_sky = tuple(next(borders) for _ in rings)
        if len(on_sky[0]) < 3:
            continue  # all pixels are one point, such as a pole
        centre, radius = bounding_cap(on_sky[0])
        if radius > _LARGEST_RADIUS_RAD:
            raise InputError.at(where, "the border of the image can't be traced on the sky", _HINT)
        _check_simple(on_sky[0], centre, where)
        low, high = rings[0].min(axis=0).tolist(), rings[0].max(axis=0).tolist()
        parts.append(FootprintPart(on_sky, centre, radius, (*low, *high)))
    return tuple(parts)


def _check_simple(ring: FloatArray, centre: FloatArray, where: str) -> None:
    """Refuse a ring that crosses itself by more than rounding: the WCS folds over."""
    import shapely

    polygon = shapely.polygons(flattened(tangent_axes(*map(float, lon_lat(centre))), ring))
    if not shapely.is_valid(polygon):
        area = shapely.area(shapely.make_valid(polygon))
        # A ring that crosses itself runs around its lobes in opposite directions, so their areas cancel.
        if abs(area - shapely.area(polygon)) > 1e-3 * area:
            raise InputError.at(where, "its WCS maps different pixels to the same place on the sky", _HINT)


def _wide_outlines(wcs: CelestialWcs, where: str) -> list[tuple[FloatArray, ...]]:
    """Outline the pixels that are on the sky, in blocks of at most 40 degrees."""
    x, y, sky = _grid(wcs, CELLS)
    valid = _valid_cells(wcs, x, y, sky)
    if not valid.any():
        raise InputError.at(where, "none of its pixels is on the sky", _HINT)
    outlines: list[tuple[FloatArray, ...]] = []
    todo = [(0, 0, valid.shape[1], valid.shape[0])]
    while todo:
        x0, y0, x1, y1 = block = todo.pop()
        cells = valid[y0:y1, x0:x1]
        if not cells.any():
            continue
        nodes = sky[y0 : y1 + 1, x0 : x1 + 1]
        known = nodes[np.isfinite(nodes).all(axis=2)]
        if (x1 - x0) * (y1 - y0) == 1 or bounding_cap(known)[1] <= _BLOCK_RADIUS_RAD:
            outlines.extend(_outlines(x[x0 : x1 + 1], y[y0 : y1 + 1], cells))
        else:
            todo.extend(_halves(block, nodes))
    return outlines


def _valid_cells(wcs: CelestialWcs, x: FloatArray, y: FloatArray, sky: FloatArray) -> BoolArray:
    """Return which cells between grid lines, (y, x), have corners on the sky and their middle between these.

    The middle excludes lines of spurious sky, such as wcslib's poles of PCO, which are as wide as the frame.
    """
    at_x, at_y = np.meshgrid(0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1]))
    middle = wcs.to_sky(at_x.ravel(), at_y.ravel()).reshape(*at_x.shape, 3)
    corners = np.stack([sky[:-1, :-1], sky[:-1, 1:], sky[1:, :-1], sky[1:, 1:]])
    mean = normalised(corners.sum(axis=0))
    return np.asarray(angle_rad(middle, mean) <= 0.75 * angle_rad(corners, mean).max(axis=0))


def _halves(block: tuple[int, int, int, int], nodes: FloatArray) -> list[tuple[int, int, int, int]]:
    """Halve a block of cells across the side that is longer on the sky, measured from node to node."""
    x0, y0, x1, y1 = block
    width, height = (np.nansum(np.linalg.norm(np.diff(nodes, axis=axis), axis=2), axis=axis).max() for axis in (1, 0))
    if (width >= height or y1 - y0 == 1) and x1 - x0 > 1:
        middle = (x0 + x1) // 2
        return [(x0, y0, middle, y1), (middle, y0, x1, y1)]
    middle = (y0 + y1) // 2
    return [(x0, y0, x1, middle), (x0, middle, x1, y1)]


def _outlines(x: FloatArray, y: FloatArray, valid: BoolArray) -> list[tuple[FloatArray, ...]]:
    """Outline the valid cells between grid lines in pixel coordinates: outer rings and holes."""
    import shapely

    if valid.all():
        return [(np.array([[x[0], y[0]], [x[-1], y[0]], [x[-1], y[-1]], [x[0], y[-1]]]),)]
    # Runs of valid cells in each row: many fewer boxes than cells.
    change = np.diff(np.pad(valid.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (down, first), (_, last) = np.nonzero(change == 1), np.nonzero(change == -1)
    runs = shapely.box(x[first], y[down], x[last], y[down + 1])
    merged = shapely.get_parts(shapely.union_all(runs))
    return [tuple(shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(part)) for part in merged]
