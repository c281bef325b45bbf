"""Intersect footprint parts as polygons of a tangent plane: convex quadrangles many at once, others by shapely.

Nearly all footprints are quadrangles (undistorted gnomonic images), and for a million pairs this is nine times as fast
as shapely's general polygons. It can't fail: each step cuts off a half plane, so rounding only moves vertices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, FloatArray, IntArray, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.footprint import FootprintPart
from skymatch_cli.sky.tangent import project

Shapes = npt.NDArray[Any]
"""Shapely polygons and multi-polygons."""


def polygons_of(shapes: Shapes | Sequence[Any]) -> Polygons:
    """Return the columns of shapely polygons and multi-polygons, (N,)."""
    import shapely

    parts, row_of = shapely.get_parts(np.asarray(shapes, dtype=object), return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    return Polygons(
        xy,
        np.searchsorted(ring_of, np.arange(len(rings) + 1)),
        np.append(True, part_of[1:] != part_of[:-1])[: len(rings)],
        np.searchsorted(row_of[part_of], np.arange(len(shapes) + 1)),
    )


def shapes_of(polygons: Polygons) -> Shapes:
    """Return shapely polygons, or multi-polygons where there are several parts, (N,)."""
    import shapely

    rings = shapely.linearrings(polygons.xy, indices=polygons.ring_of_vertex())
    parts = shapely.polygons(rings, indices=np.cumsum(polygons.outer) - 1)
    row_of = polygons.row_of_ring()[polygons.outer]
    single = np.bincount(row_of, minlength=len(polygons))[row_of] == 1
    shapes: Shapes = np.full(len(polygons), shapely.Polygon(), dtype=object)
    shapes[row_of[single]] = parts[single]
    several, at = np.unique(row_of[~single], return_inverse=True)
    if len(several):
        shapes[several] = shapely.multipolygons(parts[~single], indices=at)
    return shapes


_CHUNK = 4096  # pairs at a time, as many as fit in the cache
_MOST = 8  # vertices of an intersection of two quadrangles


def counter_clockwise(quads: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Turn quadrangles (n, 4, 2) counter-clockwise, and return which of them are convex."""
    edges = np.roll(quads, -1, axis=1) - quads
    turn = _cross(edges, np.roll(edges, -1, axis=1))
    clockwise = turn.sum(axis=1) < 0.0
    turned = np.where(clockwise[:, None, None], quads[:, ::-1], quads)
    return turned, np.asarray((turn > 0.0).all(axis=1) | (turn < 0.0).all(axis=1))


def intersect_quadrangles(subject: FloatArray, clip: FloatArray) -> tuple[FloatArray, IntArray]:
    """Intersect convex, counter-clockwise quadrangles, (n, 4, 2) each: vertices (n, 8, 2), and their number, (n,).

    The algorithm is that of Sutherland & Hodgman (1974, Comm. ACM 17, 32): the subject is cut along each side of the
    clip in turn. Vertices may repeat; rows beyond the number are undefined. It is 0 where the two are apart.
    """
    n = len(subject)
    vertices, count = np.zeros((n, _MOST, 2)), np.zeros(n, np.int64)
    for low in range(0, n, _CHUNK):
        rows = np.arange(low, min(low + _CHUNK, n))
        x, y = np.zeros((len(rows), _MOST)), np.zeros((len(rows), _MOST))
        x[:, :4], y[:, :4] = subject[rows, :, 0], subject[rows, :, 1]
        left = np.full(len(rows), 4)
        for side in range(4):
            x, y, left = _cut(x, y, left, clip[rows, side], clip[rows, (side + 1) % 4])
            alive = left > 0
            x, y, left, rows = x[alive], y[alive], left[alive], rows[alive]
        vertices[rows, :, 0], vertices[rows, :, 1], count[rows] = x, y, left
    return vertices, count


def _cut(
    x: FloatArray, y: FloatArray, count: IntArray, start: FloatArray, end: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Keep what is left of the line from start to end, (n, 2) each, of figures that are rows of (n, 8)."""
    along = end - start
    off = along[:, :1] * (y - start[:, 1:]) - along[:, 1:] * (x - start[:, :1])
    last = (np.arange(len(x)), count - 1)
    x_after, y_after, off_after = (_following(values, last) for values in (x, y, off))
    real = np.arange(_MOST) < count[:, None]
    stays = real & (off >= 0.0)
    crosses = real & ((off >= 0.0) != (off_after >= 0.0))
    t = off / np.where(crosses, off - off_after, 1.0)
    # Each vertex gives itself, then the crossing after it; a convex figure has two crossings at most.
    given = stays.astype(np.int64) + crosses
    at = np.cumsum(given, axis=1) - given
    row, column = np.nonzero(stays)
    # One column more than a convex figure can fill, should rounding make a third crossing.
    to = np.minimum(at[row, column], _MOST)
    cut_x, cut_y = np.zeros((len(x), _MOST + 1)), np.zeros((len(x), _MOST + 1))
    cut_x[row, to], cut_y[row, to] = x[row, column], y[row, column]
    row, column = np.nonzero(crosses)
    to = np.minimum(at[row, column] + stays[row, column], _MOST)
    part = t[row, column]
    cut_x[row, to] = x[row, column] + part * (x_after - x)[row, column]
    cut_y[row, to] = y[row, column] + part * (y_after - y)[row, column]
    return cut_x[:, :_MOST], cut_y[:, :_MOST], np.minimum(given.sum(axis=1), _MOST)


def _following(values: FloatArray, last: tuple[IntArray, IntArray]) -> FloatArray:
    """Return the next vertex after each vertex of each row; the first follows the last."""
    after = np.empty_like(values)
    after[:, :-1] = values[:, 1:]
    after[last] = values[:, 0]
    after[:, -1] = np.where(last[1] == _MOST - 1, values[:, 0], 0.0)
    return after


def _cross(u: FloatArray, v: FloatArray) -> FloatArray:
    product: FloatArray = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    return product


# Overlays of GEOS in plain floating point may return a whole polygon as the intersection of two that only
# touch along almost the same edge (https://github.com/locationtech/jts/issues/1000); on a lattice they
# don't. A step is 1.5e-9 arcsec.
_LATTICE_RAD = 2.0**-47
SLIVER_RAD = 1e-13  # mean width below which a polygon is rounding
_PAIRS = 16384  # pairs at a time; more would be no faster


def part_polygons(parts: Sequence[FootprintPart], plane: TangentPlane) -> Shapes:
    """Project footprint parts to shapely polygons of a plane, (n,); all are on its side of the sky."""
    import shapely

    rings = [ring for part in parts for ring in part.rings]
    ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    closed = shapely.linearrings(project(plane, np.concatenate(rings)), indices=ring_of)
    polygons = shapely.polygons(closed, indices=np.repeat(np.arange(len(parts)), [len(p.rings) for p in parts]))
    folded = ~shapely.is_valid(polygons)  # by rounding only: `footprint` refuses a WCS that folds
    polygons[folded] = _areas_only(shapely.make_valid(polygons[folded]))
    return np.asarray(polygons)


def shared_polygons(
    parts: Sequence[FootprintPart], plane: TangentPlane, i: IntArray, j: IntArray
) -> Iterator[tuple[slice, Polygons]]:
    """Intersect pairs (i, j) of parts, (m,) each, in a plane, some thousand at a time; empty where they are apart."""
    quads, simple = _quadrangles(parts, plane)
    for low in range(0, len(i), _PAIRS):
        batch = slice(low, low + _PAIRS)
        quick = simple[i[batch]] & simple[j[batch]]
        rows = np.concatenate([np.flatnonzero(quick), np.flatnonzero(~quick)])
        one, other = i[batch][rows], j[batch][rows]
        n = np.count_nonzero(quick)
        cut = Polygons.of_vertices(*intersect_quadrangles(quads[one[:n]], quads[other[:n]]))
        if n < len(rows):
            used, at = np.unique([one[n:], other[n:]], return_inverse=True)
            shapes = part_polygons([parts[p] for p in used.tolist()], plane)[at.reshape(2, -1)]
            cut = Polygons.joined([cut, polygons_of(overlay(*shapes))]).part(np.argsort(rows))
        yield batch, cut


def overlay(a: Shapes, b: Shapes) -> Shapes:
    """Intersect shapely polygons element by element; points and lines are left out."""
    import shapely

    return _areas_only(np.asarray(shapely.intersection(a, b, grid_size=_LATTICE_RAD), dtype=object))


def joined(polygons: Shapes) -> Any:
    """Return the union of shapely polygons of one plane."""
    import shapely

    return shapely.union_all(_areas_only(shapely.make_valid(polygons)), grid_size=_LATTICE_RAD)


def _quadrangles(parts: Sequence[FootprintPart], plane: TangentPlane) -> tuple[FloatArray, BoolArray]:
    """Return the corners (n, 4, 2) of parts in the plane, and which parts are convex with four corners."""
    quads = np.zeros((len(parts), 4, 2))
    simple = np.array([len(part.rings) == 1 and len(part.rings[0]) == 4 for part in parts], dtype=bool)
    rows = np.flatnonzero(simple)
    if len(rows):
        corners = project(plane, np.concatenate([parts[row].rings[0] for row in rows.tolist()])).reshape(-1, 4, 2)
        quads[rows], simple[rows] = counter_clockwise(corners)
    return quads, simple


def _areas_only(geometries: Shapes) -> Shapes:
    """Remove points and lines from geometries; those without area become empty polygons."""
    import shapely

    flat = geometries.reshape(-1)
    kind = shapely.get_type_id(flat)
    odd = np.flatnonzero((kind != shapely.GeometryType.POLYGON) & (kind != shapely.GeometryType.MULTIPOLYGON))
    for row in odd:
        pieces = [p for p in shapely.get_parts(flat[row]) if p.geom_type in ("Polygon", "MultiPolygon")]
        flat[row] = shapely.union_all(pieces) if pieces else shapely.Polygon()
    return flat.reshape(geometries.shape)
