"""Intersect footprint parts as polygons of a tangent plane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.footprint import FootprintPart
from skymatch_cli.sky.quadrangles import counter_clockwise, intersect_quadrangles
from skymatch_cli.sky.shapes import Shapes, polygons_of
from skymatch_cli.sky.tangent import project

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
