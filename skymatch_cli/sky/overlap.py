"""Make the graph of overlaps from footprints: which images overlap, and in which polygon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.model import FloatArray, IntArray, OverlapGraph, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.footprint import Footprint, FootprintPart
from skymatch_cli.sky.intersections import SLIVER_RAD, joined, polygons_of, shapes_of, shared_polygons
from skymatch_cli.sky.sphere import angle_rad
from skymatch_cli.sky.tangent import SR_TO_ARCMIN2, assign_planes, solid_angle_sr

_FEW = 300  # caps of which all pairs are tested in less time than it takes to import KD-trees


def touching_caps(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """Find all pairs i < j of caps (centres (n, 3), angular radii (n,)) that touch, sorted by i, then j.

    Examples
    --------
    >>> import numpy as np
    >>> from skymatch_cli.sky.sphere import unit_vectors
    >>> ra = np.radians([359.9, 0.1, 5.0])
    >>> touching_caps(unit_vectors(ra, np.zeros(3)), np.radians([0.15, 0.15, 0.15]))
    (array([0]), array([1]))
    """
    i, j = _near_pairs(centres, radii_rad)
    touch = angle_rad(centres[i], centres[j]) <= radii_rad[i] + radii_rad[j]
    i, j = i[touch], j[touch]
    order = np.lexsort((j, i))
    return i[order].astype(np.int64), j[order].astype(np.int64)


def _near_pairs(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """Find pairs i < j of caps that may touch, in any order.

    Many caps are searched in classes of radii within a factor of two, so that one wide image does not make all others
    candidates.
    """
    if len(centres) <= _FEW:
        i, j = np.triu_indices(len(centres), 1)
        return i, j
    from scipy.spatial import cKDTree

    size = np.floor(np.log2(np.maximum(radii_rad, 1e-9))).astype(np.int64)
    classes = [np.flatnonzero(size == s) for s in np.unique(size)]
    trees = [cKDTree(centres[members]) for members in classes]
    found = [np.empty((0, 2), np.int64)]
    for k, (members, tree) in enumerate(zip(classes, trees, strict=True)):
        reach = _chord(2.0 * radii_rad[members].max())
        found.append(members[tree.query_pairs(reach, output_type="ndarray")])
        for others, other_tree in zip(classes[:k], trees[:k], strict=True):
            reach = _chord(radii_rad[members].max() + radii_rad[others].max())
            near = tree.sparse_distance_matrix(other_tree, reach, output_type="ndarray")
            found.append(np.stack([members[near["i"]], others[near["j"]]], axis=1))
    i, j = np.sort(np.concatenate(found), axis=1).T
    return i, j


def _chord(angle: float) -> float:
    """Return the chord of an angle with a margin for rounding; 2 where caps reach around the sphere."""
    return 2.0 * float(np.sin(0.5 * min(angle, np.pi))) + 1e-12


def overlap_graph(footprints: Sequence[Footprint]) -> OverlapGraph:
    """Find all pairs of images that share sky; images that only touch don't overlap.

    Neighbours are found on the unit sphere. Their footprints are intersected in a gnomonic plane that is common to the
    neighbourhood, where great circles are straight. A pair whose overlap is too wide for one plane (two all-sky maps)
    has one row per plane, without common area. The order of the footprints only changes the indices.
    """
    parts = _Parts.of(footprints)
    i, j = touching_caps(parts.centre, parts.radius)
    other = parts.image[i] != parts.image[j]
    i, j = i[other], j[other]
    plane, planes = assign_planes(parts.centre, parts.radius, parts.image, i, j)
    i, j = _canonical(parts, i, j)
    row, polygon, area_arcmin2 = _intersections(parts, i, j, plane, planes)
    a, b = np.sort(np.stack([parts.image[i[row]], parts.image[j[row]]]), axis=0)
    return _joined(OverlapGraph(len(footprints), a, b, area_arcmin2, polygon, plane[row], planes), polygon)


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
    """Order the two of each pair by their positions, not by their numbers.

    The rounding of the vertices of an intersection depends on which polygon comes first.
    """
    key = np.column_stack([parts.centre, parts.radius])
    different = key[i] != key[j]
    first = different.argmax(axis=1)
    rows = np.arange(len(i))
    swap = key[i][rows, first] > key[j][rows, first]
    return np.where(swap, j, i), np.where(swap, i, j)


def _intersections(
    parts: _Parts, i: IntArray, j: IntArray, plane: IntArray, planes: tuple[TangentPlane, ...]
) -> tuple[IntArray, Polygons, FloatArray]:
    """Intersect the pairs of parts: those that overlap, in any order, their polygons and areas in arcmin2."""
    rows, polygons, solid_angles = [np.empty(0, np.int64)], [], [np.empty(0)]
    by_plane = np.argsort(plane, kind="stable")
    edges = np.searchsorted(plane[by_plane], np.arange(len(planes) + 1))
    for k, where in enumerate(planes):
        pairs = by_plane[edges[k] : edges[k + 1]]
        used, at = np.unique(np.concatenate([i[pairs], j[pairs]]), return_inverse=True)
        own = [parts.part[p] for p in used.tolist()]
        for some, shared in shared_polygons(own, where, at[: len(pairs)], at[len(pairs) :]):
            solid = solid_angle_sr(shared)
            real = np.flatnonzero(solid > SLIVER_RAD * shared.perimeter())
            rows.append(pairs[some][real])
            polygons.append(shared.part(real))
            solid_angles.append(solid[real])
    return np.concatenate(rows), Polygons.joined(polygons), np.concatenate(solid_angles) * SR_TO_ARCMIN2


def _joined(pieces: OverlapGraph, polygon: Polygons) -> OverlapGraph:
    """Sort the pieces (rows of parts of images, with their polygons), and join those of one pair in one plane."""
    order = np.lexsort((pieces.plane, pieces.b, pieces.a))
    a, b, plane, area = pieces.a[order], pieces.b[order], pieces.plane[order], pieces.area_arcmin2[order]
    new = np.ones(len(a), dtype=bool)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1]) | (plane[1:] != plane[:-1])
    start = np.flatnonzero(new)
    n_pieces = np.diff(np.append(start, len(a)))
    row = order[start]
    several = np.flatnonzero(n_pieces > 1)
    if len(several):
        found = (order[low : low + n] for low, n in zip(start[several], n_pieces[several], strict=True))
        whole = polygons_of([joined(shapes_of(polygon.part(rows))) for rows in found])
        area[start[several]] = solid_angle_sr(whole) * SR_TO_ARCMIN2
        row[several] = len(polygon) + np.arange(len(whole))
        polygon = Polygons.joined([polygon, whole])
    if not np.array_equal(row, np.arange(len(polygon))):  # pieces of one plane are in order
        polygon = polygon.part(row)
    return replace(pieces, a=a[start], b=b[start], area_arcmin2=area[start], polygon=polygon, plane=plane[start])
