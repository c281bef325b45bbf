"""Footprint parts as shapely polygons in a tangent plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .footprint import FootprintPart
from .model import TangentPlane
from .plane import project


def part_polygons(parts: Sequence[FootprintPart], plane: TangentPlane) -> npt.NDArray[Any]:
    """Footprint parts as shapely polygons of a plane, (n,), all of whose vertices are on its side of the sky."""
    import shapely

    rings = [ring for part in parts for ring in part.rings]
    ring_of = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    closed = shapely.linearrings(project(plane, np.concatenate(rings)), indices=ring_of)
    polygons = shapely.polygons(closed, indices=np.repeat(np.arange(len(parts)), [len(p.rings) for p in parts]))
    folded = ~shapely.is_valid(polygons)  # by rounding only: footprint() has refused what really folds
    polygons[folded] = polygons_only(shapely.make_valid(polygons[folded]))
    return np.asarray(polygons)


def polygons_only(geometries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Geometries without their points and lines; what has no area becomes an empty polygon."""
    import shapely

    kind = shapely.get_type_id(geometries)
    odd = np.flatnonzero((kind != shapely.GeometryType.POLYGON) & (kind != shapely.GeometryType.MULTIPOLYGON))
    for row in odd:
        pieces = [p for p in shapely.get_parts(geometries[row]) if p.geom_type in ("Polygon", "MultiPolygon")]
        geometries[row] = shapely.union_all(pieces) if pieces else shapely.Polygon()
    return geometries
