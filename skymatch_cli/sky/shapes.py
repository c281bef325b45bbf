"""Convert polygons to shapely objects and back, with the same vertices in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.model.polygons import Polygons

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
