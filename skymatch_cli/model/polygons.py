"""Polygons of tangent planes as columns: four million of them are a few arrays, not as many objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skymatch_cli.model.arrays import BoolArray, FloatArray, IntArray


class PolygonRows(Protocol):
    """Polygons, one a row, wherever they are kept: in memory (`Polygons`) or in a file."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def part(self, rows: IntArray) -> Polygons:
        """Some of the rows, in the order of ``rows``, in memory."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """N polygons, which may have holes and several parts, made of R rings with V vertices in all."""

    xy: FloatArray  # (V, 2): the rings one after the other; the last vertex of each repeats the first
    ring_offset: IntArray  # (R + 1,): the first vertex of every ring, and V
    outer: BoolArray  # (R,): True where a part begins, with its outer ring; False for a hole in the part before it
    row_offset: IntArray  # (N + 1,): the first ring of every row, and R. A row without rings is empty

    @classmethod
    def of_vertices(cls, vertices: FloatArray, count: IntArray) -> Polygons:
        """Polygons of one ring: the first ``count`` (n,) of the vertices (n, k, 2); empty where these are below three.

        Rings are closed where they aren't yet, as shapely does it.
        """
        n, most, _ = vertices.shape
        row = np.arange(n)
        size = np.where(count >= 3, count, 0)
        last = vertices[row, size - 1]
        size[(size == 3) | ((size > 3) & (last != vertices[:, 0]).any(axis=1))] += 1
        closed = np.concatenate([vertices, np.zeros((n, 1, 2))], axis=1)
        closed[row, size - 1] = vertices[:, 0]
        solid = size > 0
        return cls(
            closed[np.arange(most + 1) < size[:, None]],
            _offsets(size[solid]),
            np.ones(np.count_nonzero(solid), dtype=bool),
            _offsets(solid),
        )

    @classmethod
    def joined(cls, several: Sequence[Polygons]) -> Polygons:
        """Rows one after another."""
        several = (cls(np.empty((0, 2)), _offsets([]), np.empty(0, dtype=bool), _offsets([])), *several)
        return cls(
            np.concatenate([one.xy for one in several]),
            _offsets(np.concatenate([np.diff(one.ring_offset) for one in several])),
            np.concatenate([one.outer for one in several]),
            _offsets(np.concatenate([np.diff(one.row_offset) for one in several])),
        )

    def __len__(self) -> int:
        return len(self.row_offset) - 1

    def part(self, rows: IntArray) -> Polygons:
        """Some of the rows, in the order of ``rows``."""
        rings, row_offset = _taken(self.row_offset, rows)
        vertices, ring_offset = _taken(self.ring_offset, rings)
        return Polygons(self.xy[vertices], ring_offset, self.outer[rings], row_offset)

    def row_of_ring(self) -> IntArray:
        """The row of every ring, (R,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.row_offset))

    def ring_of_vertex(self) -> IntArray:
        """The ring of every vertex, (V,)."""
        return np.repeat(np.arange(len(self.outer)), np.diff(self.ring_offset))

    def without_holes(self, size: FloatArray) -> FloatArray:
        """Sum the sizes of rings, (R,), to those of rows, (N,), less holes."""
        signed = np.where(self.outer, size, -size)
        return np.bincount(self.row_of_ring(), signed, minlength=len(self)).astype(np.float64)

    def area(self) -> FloatArray:
        """Area of every row in its plane, (N,)."""
        ring = self.ring_of_vertex()
        inner = np.flatnonzero(ring[2:] == ring[:-2]) + 1
        x, y = self.xy.T
        # From the first vertex of the ring, so that little cancels far from the origin.
        across = (x[inner] - x[self.ring_offset[ring[inner]]]) * (y[inner - 1] - y[inner + 1])
        return self.without_holes(np.abs(np.bincount(ring[inner], across, minlength=len(self.outer)) / 2))

    def perimeter(self) -> FloatArray:
        """Length of the border of every row in its plane, (N,)."""
        ring = self.ring_of_vertex()
        inside = ring[1:] == ring[:-1]
        dx, dy = np.diff(self.xy, axis=0)[inside].T
        by_ring = np.bincount(ring[1:][inside], np.sqrt(dx * dx + dy * dy), minlength=len(self.outer))
        return np.bincount(self.row_of_ring(), by_ring, minlength=len(self)).astype(np.float64)


def _offsets(sizes: Sequence[int] | IntArray | BoolArray) -> IntArray:
    """Where each of some neighbours begins, and the end of the last."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _taken(offset: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """What some rows hold of that which ``offset`` divides: indices, and the offsets among these."""
    size = offset[rows + 1] - offset[rows]
    new = _offsets(size)
    index = np.repeat(offset[rows] - new[:-1], size)
    index += np.arange(len(index))
    return index, new
