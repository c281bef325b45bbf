"""Convert overlaps to the pixel coordinates of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.errors import InputError
from skymatch_cli.model import BoolArray, CelestialWcs, FloatArray, IntArray, OverlapGraph, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.sky.footprint import fits_one_part, footprint, halved
from skymatch_cli.sky.intersections import SLIVER_RAD, Shapes, overlay, part_polygons, polygons_of, shapes_of
from skymatch_cli.sky.inverse import refine_pixels
from skymatch_cli.sky.sphere import angle_rad
from skymatch_cli.sky.tangent import unproject

_BEND_PIX = 0.04  # largest distance between an edge and the straight line in pixels that replaces it
_SHORTEST_PIX = 0.5
_SQUEEZED_PIX = 2.0
_OUTSIDE_PIX = 0.1  # more than the error of a footprint's border: the inverse has found another point
_GRID = 32  # cells along a side, from which a lost vertex is searched
_CHECKS = np.array([0.25, 0.5, 0.75])


def pixel_rings(graph: OverlapGraph, i: int, wcs: CelestialWcs, where: str = "image") -> list[list[FloatArray]]:
    """Return the overlaps of image i of the graph as polygons in its own pixel coordinates.

    For each of its pairs, in the order of the graph: open rings, (n, 2), outer ones and holes (a point is inside if an
    odd number of rings surrounds it). Great circles that are curves in pixels (distortion, other projections) are
    followed to better than 0.05 pixels. Vertices on the border of the image are returned on the border of the frame.
    InputError: the WCS has no inverse at a point inside its own border.
    """
    rows = graph.pairs_of(i)
    if not len(rows):
        return []
    polygon, plane = graph.polygon.part(rows), graph.plane[rows]
    if fits_one_part(wcs):
        ny, nx = wcs.shape
        box = np.tile([-0.5, -0.5, nx - 0.5, ny - 0.5], (len(rows), 1))
        pieces = _Pieces(polygon, np.arange(len(rows)), plane, box, graph.planes)
    else:
        pieces = _cut_at_parts(graph, shapes_of(polygon), plane, wcs, where)
    edges = _Edges.of(pieces)
    at = np.arange(len(edges.ring))
    pixels = edges.to_pixel(wcs, edges.start, at, where)
    if not getattr(wcs, "straight", False):
        pixels, at = _followed(wcs, edges, pixels, where)
    rings = np.split(pixels, np.flatnonzero(np.diff(edges.ring[at])) + 1) if len(pixels) else []
    found: list[list[FloatArray]] = [[] for _ in rows]
    first = np.searchsorted(edges.ring, np.unique(edges.ring))
    for row, vertices in zip(pieces.row[edges.piece[first]], rings, strict=True):
        found[row].append(vertices)
    return found


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Polygons (n,), each with its row among the image's pairs, its plane, and the box of pixels that holds it."""

    polygon: Polygons
    row: IntArray
    plane: IntArray
    box: FloatArray
    planes: tuple[TangentPlane, ...]


def _cut_at_parts(graph: OverlapGraph, shapes: Shapes, plane: IntArray, wcs: CelestialWcs, where: str) -> _Pieces:
    """Cut polygons of a wide image where its parts meet: the two sides may be far apart in pixels."""
    import shapely

    parts = np.array(footprint(wcs, where).parts, dtype=object)
    centres, radii = np.array([p.centre for p in parts]), np.array([p.radius for p in parts])
    cut: list[Any] = []
    row_of, part_of = [], []
    for k in np.unique(plane):
        middle = unproject(graph.planes[k], np.zeros((1, 2)))
        near = np.flatnonzero(angle_rad(centres, middle) + radii < 0.5 * np.pi)
        in_plane = np.flatnonzero(plane == k)
        shared = overlay(shapes[in_plane][:, None], part_polygons(list(parts[near]), graph.planes[k])[None])
        at_row, at_part = np.nonzero(shapely.area(shared) > SLIVER_RAD * shapely.length(shared))
        cut.extend(shared[at_row, at_part])
        row_of.append(in_plane[at_row])
        part_of.append(near[at_part])
    order = np.argsort(np.concatenate(row_of), kind="stable")
    row = np.concatenate(row_of)[order]
    box = np.array([p.box for p in parts])[np.concatenate(part_of)[order]]
    polygon = polygons_of([cut[k] for k in order.tolist()])
    return _Pieces(polygon, row, plane[row], box, graph.planes)


@dataclass(frozen=True, slots=True)
class _Edges:
    """All edges of all rings, one after the other: from ``start`` to ``end`` in the plane, (n, 2)."""

    start: FloatArray
    end: FloatArray
    ring: IntArray
    piece: IntArray
    pieces: _Pieces

    @classmethod
    def of(cls, pieces: _Pieces) -> _Edges:
        xy, ring_of = pieces.polygon.xy, pieces.polygon.ring_of_vertex()
        inside = np.flatnonzero(ring_of[1:] == ring_of[:-1])  # the last vertex of a ring repeats the first
        ring = ring_of[inside]
        return cls(xy[inside], xy[inside + 1], ring, pieces.polygon.row_of_ring()[ring], pieces)

    def to_pixel(self, wcs: CelestialWcs, xy: FloatArray, edge: IntArray, where: str) -> FloatArray:
        """Convert positions (n, 2) in the planes of edges (n,) to pixels (n, 2) inside their boxes."""
        piece = self.piece[edge]
        plane = self.pieces.plane[piece]
        vectors = np.empty((len(xy), 3))
        for k in np.unique(plane):
            vectors[plane == k] = unproject(self.pieces.planes[k], xy[plane == k])
        return _pixels_in_box(wcs, vectors, self.pieces.box[piece], where)


def _pixels_in_box(wcs: CelestialWcs, vectors: FloatArray, box: FloatArray, where: str) -> FloatArray:
    """Find pixels inside boxes (n, 4) of the frame, also where the library's inverse fails."""
    x, y = wcs.to_pixel(vectors)
    beyond = np.max([box[:, 0] - x, x - box[:, 2], box[:, 1] - y, y - box[:, 3]], axis=0, initial=-np.inf)
    lost = np.flatnonzero(~(beyond <= _OUTSIDE_PIX))
    if len(lost):
        found_x, found_y, failed = _searched(wcs, vectors[lost], box[lost])
        # Where the map squeezes the sky into a point, a border is followed to about a pixel.
        failed &= ~(beyond[lost] <= _SQUEEZED_PIX)
        if failed.any():
            what = f"its WCS has no inverse at {int(failed.sum())} places inside its border"
            raise InputError.at(where, what, "check its distortion terms")
        x[lost], y[lost] = found_x, found_y
    # Rounding must not move a vertex of the border outside.
    return np.stack([np.clip(x, box[:, 0], box[:, 2]), np.clip(y, box[:, 1], box[:, 3])], axis=1)


def _searched(wcs: CelestialWcs, vectors: FloatArray, box: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Find pixels by Newton's method from the nearest point of a grid over each box; also return which failed."""
    x, y = np.empty(len(box)), np.empty(len(box))
    for one in np.unique(box, axis=0):
        rows = np.flatnonzero((box == one).all(axis=1))
        # The middles of cells: the border may be a pole.
        at = (np.arange(_GRID) + 0.5) / _GRID
        gx, gy = (g.ravel() for g in np.meshgrid(one[0] + at * (one[2] - one[0]), one[1] + at * (one[3] - one[1])))
        sky = wcs.to_sky(gx, gy)
        for row in rows:
            apart = angle_rad(sky, vectors[row])
            nearest = int(np.nanargmin(apart)) if np.isfinite(apart).any() else 0
            x[row], y[row] = gx[nearest], gy[nearest]
    x, y = refine_pixels(wcs, vectors, x, y, box=box)
    found = wcs.to_sky(x, y)
    aside = wcs.to_sky(x + np.where(x > box[:, 0] + 1.0, -1.0, 1.0), y)
    above = wcs.to_sky(x, y + np.where(y > box[:, 1] + 1.0, -1.0, 1.0))
    pixel_rad = np.fmax(angle_rad(found, aside), angle_rad(found, above))
    return x, y, np.asarray(~(angle_rad(found, vectors) <= _OUTSIDE_PIX * pixel_rad))


def _followed(wcs: CelestialWcs, edges: _Edges, pixels: FloatArray, where: str) -> tuple[FloatArray, IntArray]:
    """Add vertices where edges are curved in pixels; return the vertices in order, and the edge of each."""

    def middles(low: FloatArray, high: FloatArray, edge: IntArray) -> tuple[FloatArray, BoolArray]:
        xy = low[:, :2] + _CHECKS[:, None, None] * (high - low)[:, :2]
        at = edges.to_pixel(wcs, xy.reshape(-1, 2), np.tile(edge, len(_CHECKS)), where).reshape(xy.shape)
        bent = _off_line(low[:, 2:], high[:, 2:], at) > _BEND_PIX
        return np.hstack([xy[1], at[1]]), bent & (np.linalg.norm((high - low)[:, 2:], axis=1) > _SHORTEST_PIX)

    last = np.append(edges.ring[1:] != edges.ring[:-1], True) if len(edges.ring) else np.empty(0, bool)
    after = np.where(last, np.searchsorted(edges.ring, edges.ring), np.arange(len(pixels)) + 1)
    nodes, edge = halved(np.hstack([edges.start, pixels]), np.hstack([edges.end, pixels[after]]), middles)
    return nodes[:, 2:], edge


def _off_line(low: FloatArray, high: FloatArray, at: FloatArray) -> FloatArray:
    """Return the largest distance in pixels of points (k, n, 2) from the line between low and high, (n, 2)."""
    along = high - low
    length = np.linalg.norm(along, axis=1)
    to = at - low
    across = np.abs(to[..., 0] * along[:, 1] - to[..., 1] * along[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.where(length > 1e-9, across / length, np.linalg.norm(to, axis=2))
    worst: FloatArray = off.max(axis=0)
    return worst
