"""Footprints to the graph of overlaps: which images share sky, and the polygon that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.geometry.footprint import Footprint, FootprintPart
from skymatch_cli.geometry.neighbours import touching_caps
from skymatch_cli.geometry.plane import SR_TO_ARCMIN2, solid_angle_sr
from skymatch_cli.geometry.planes import assign_planes
from skymatch_cli.geometry.polygons import SLIVER_RAD, joined, shared_polygons
from skymatch_cli.geometry.rings import pixel_rings
from skymatch_cli.model import FloatArray, IntArray, OverlapGraph, TangentPlane

__all__ = ["overlap_graph", "pixel_rings"]


def overlap_graph(footprints: Sequence[Footprint]) -> OverlapGraph:
    """Find all pairs of images that share sky.

    Neighbours are found on the unit sphere, and their footprints are cut by shapely in a gnomonic plane
    that is common to the neighbourhood, where great circles are straight. Images that only touch don't
    overlap. The order of the footprints changes nothing but the indices.

    Returns
    -------
    OverlapGraph
        One row for each pair; a pair whose overlap is too wide for one plane (two all-sky maps) has one
        row for each plane that it needs, and these rows share no area.
    """
    parts = _Parts.of(footprints)
    i, j = touching_caps(parts.centre, parts.radius)
    other = parts.image[i] != parts.image[j]
    i, j = i[other], j[other]
    plane, planes = assign_planes(parts.centre, parts.radius, parts.image, i, j)
    i, j = _canonical(parts, i, j)
    shared = _intersections(parts, i, j, plane, planes)
    solid = solid_angle_sr(shared)
    import shapely

    real = solid > SLIVER_RAD * shapely.length(shared)
    a, b = np.sort(np.stack([parts.image[i[real]], parts.image[j[real]]]), axis=0)
    graph = OverlapGraph(len(footprints), a, b, solid[real] * SR_TO_ARCMIN2, shared[real], plane[real], planes)
    return _joined(graph)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of all footprints, as columns."""

    part: list[FootprintPart]
    image: IntArray
    centre: FloatArray
    radius: FloatArray

    @classmethod
    def of(cls, footprints: Sequence[Footprint]) -> _Parts:
        part = [p for f in footprints for p in f.parts]
        image = np.repeat(np.arange(len(footprints)), [len(f.parts) for f in footprints])
        centre = np.array([p.centre for p in part]).reshape(-1, 3)
        return cls(part, image.astype(np.int64), centre, np.array([p.radius for p in part], dtype=float))


def _canonical(parts: _Parts, i: IntArray, j: IntArray) -> tuple[IntArray, IntArray]:
    """The two of each pair in an order that depends on where they lie, not on their numbers.

    The vertices of an intersection depend, in their rounding, on which polygon is named first.
    """
    key = np.column_stack([parts.centre, parts.radius])
    different = key[i] != key[j]
    first = different.argmax(axis=1)
    rows = np.arange(len(i))
    swap = key[i][rows, first] > key[j][rows, first]
    return np.where(swap, j, i), np.where(swap, i, j)


def _intersections(
    parts: _Parts, i: IntArray, j: IntArray, plane: IntArray, planes: tuple[TangentPlane, ...]
) -> npt.NDArray[Any]:
    """What each pair of parts shares, as polygons or multi-polygons of its plane, (m,)."""
    shared = np.empty(len(i), dtype=object)
    by_plane = np.argsort(plane, kind="stable")
    edges = np.searchsorted(plane[by_plane], np.arange(len(planes) + 1))
    for k, where in enumerate(planes):
        rows = by_plane[edges[k] : edges[k + 1]]
        if len(rows):
            used, at = np.unique(np.concatenate([i[rows], j[rows]]), return_inverse=True)
            here = [parts.part[p] for p in used]
            shared[rows] = shared_polygons(here, where, at[: len(rows)], at[len(rows) :])
    return shared


def _joined(graph: OverlapGraph) -> OverlapGraph:
    """The rows sorted, and the pieces of one pair that lie in the same plane joined."""
    order = np.lexsort((graph.plane, graph.b, graph.a))
    a, b, plane = graph.a[order], graph.b[order], graph.plane[order]
    polygon, area = graph.polygon[order], graph.area_arcmin2[order]
    new = np.ones(len(a), dtype=bool)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1]) | (plane[1:] != plane[:-1])
    start = np.flatnonzero(new)
    end = np.append(start[1:], len(a))
    for low, high in zip(start[end - start > 1], end[end - start > 1], strict=True):
        polygon[low] = joined(polygon[low:high])
        area[low] = solid_angle_sr(polygon[low : low + 1])[0] * SR_TO_ARCMIN2
    return OverlapGraph(graph.n_images, a[start], b[start], area[start], polygon[start], plane[start], graph.planes)
