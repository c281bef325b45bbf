"""Convert polygons in pixel coordinates to rows of pixels (spans) of one image.

A pixel belongs to a polygon when its centre lies inside, by the even-odd rule over all rings. Ties are
half-open (a centre on an edge belongs to the polygon on one definite side), and an edge gives the same crossings in
either direction, so of polygons with a common edge each pixel belongs to exactly one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from skymatch_cli.errors import SkymatchError
from skymatch_cli.model import BoolArray, FloatArray, IntArray

_TOGETHER = 16  # polygons whose crossings fit in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Pixels of one image as runs along rows, sorted by ``y``, then ``x0``; runs do not overlap."""

    y: IntArray  # (n,): row of each run
    x0: IntArray  # (n,): its first column
    x1: IntArray  # (n,): the column after its last one

    @classmethod
    def full(cls, shape: tuple[int, int]) -> Spans:
        """Return every pixel of a frame of ``shape`` (ny, nx)."""
        ny, nx = shape
        rows = np.arange(ny if nx else 0, dtype=np.int64)
        return cls(rows, np.zeros_like(rows), np.full_like(rows, nx))

    @property
    def n_pixels(self) -> int:
        """The number of pixels in the runs."""
        return int((self.x1 - self.x0).sum())

    def mask(self, shape: tuple[int, int]) -> BoolArray:
        """Return (ny, nx) bool, True for the pixels in the runs."""
        ny, nx = shape
        # Where one run ends and the next begins the two changes cancel: they are added (add.at), not set.
        change = np.zeros((ny, nx + 1), dtype=np.int8)
        np.add.at(change, (self.y, self.x0), 1)
        np.add.at(change, (self.y, self.x1), -1)
        return np.cumsum(change, axis=1, dtype=np.int8)[:, :nx].astype(bool)


def spans_of_polygons(
    polygons: Sequence[Sequence[FloatArray]], shape: tuple[int, int], rows: IntArray | None = None
) -> list[Spans]:
    """Find the pixels of a frame of ``shape`` (ny, nx) whose centres lie inside polygons.

    A polygon is given by the rings, (n, 2) in pixels, of its exteriors and holes, in any order and direction, closed or
    not. Runs are those where ``x_in <= x < x_out`` along each row, for edges with ``y_low <= y < y_high``: scan
    conversion by sorted edge crossings (Foley et al., Computer Graphics, ch. 3.6), all rows of all polygons at once;
    the cost is the length of the borders in rows, not the area. If ``rows`` are given, ascending, only these are found,
    with runs that have no pixel. SkymatchError if a coordinate is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    >>> spans = spans_of_polygons([[square]], (4, 4))[0]
    >>> spans.y.tolist(), spans.x0.tolist(), spans.x1.tolist()
    ([1, 2], [1, 1], [3, 3])
    """
    parts = [_spans(polygons[k : k + _TOGETHER], shape, rows) for k in range(0, len(polygons), _TOGETHER)]
    return [spans for part in parts for spans in part]


def _spans(polygons: Sequence[Sequence[FloatArray]], shape: tuple[int, int], some: IntArray | None) -> list[Spans]:
    ny, nx = shape
    rows = np.arange(ny) if some is None else some
    low, high, polygon = _edges(polygons)
    first, last = (np.searchsorted(rows, end[:, 1]) for end in (low, high))
    n_rows = last - first
    x_low, y_low, width, height = (np.repeat(c, n_rows) for c in (*low.T, *(high - low).T))
    y = rows[np.arange(y_low.size) - np.repeat(np.cumsum(n_rows) - n_rows - first, n_rows)]
    along = (y - y_low) / height  # 0..1, for any slope of the edge
    x = np.ceil(x_low + along * width)
    column = np.clip(x, 0, nx, out=x).astype(np.int64)
    # One integer holds polygon, row and column; closed rings cross every row an even number of times, so that
    # pairs of the sorted crossings never straddle two rows.
    line, bits = np.repeat(polygon * ny, n_rows) + y, nx.bit_length()
    fits = (len(polygons) * ny) << bits <= np.iinfo(np.int32).max  # sorted in half the time
    crossings = ((line << bits) | column).astype(np.int32 if fits else np.int64, copy=False)
    crossings.sort()
    start, stop = crossings[::2], crossings[1::2]
    inside = (stop > start) | (some is not None)
    start, stop = start[inside].astype(np.int64), stop[inside].astype(np.int64)
    line, x0, x1 = start >> bits, start & ~(-1 << bits), stop & ~(-1 << bits)
    ends = np.searchsorted(line, np.arange(len(polygons) + 1) * ny)
    pieces = [slice(start, stop) for start, stop in pairwise(ends.tolist())]
    return [Spans(line[piece] - k * ny, x0[piece], x1[piece]) for k, piece in enumerate(pieces)]


def _edges(polygons: Sequence[Sequence[FloatArray]]) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return lower and upper ends, (n, 2) each, of all edges that are not horizontal, and the polygon of each, (n,)."""
    corners = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for rings in polygons for ring in rings]
    start = np.concatenate([np.empty((0, 2)), *corners])
    of_ring = np.repeat(np.arange(len(polygons)), [len(rings) for rings in polygons])
    n_corners = np.array([len(ring) for ring in corners], dtype=np.int64)
    polygon, last = np.repeat(of_ring, n_corners), np.cumsum(n_corners)[n_corners > 0] - 1
    following = np.arange(1, len(start) + 1)
    following[last] = last + 1 - n_corners[n_corners > 0]
    end = start[following]
    if not np.isfinite(start).all():
        raise SkymatchError(
            "a polygon has corners that are not finite in pixel coordinates",
            "the WCS of the image can't be inverted over the whole overlap",
        )
    keep = start[:, 1] != end[:, 1]
    start, end = start[keep], end[keep]
    upward = (start[:, 1] < end[:, 1])[:, None]
    return np.where(upward, start, end), np.where(upward, end, start), polygon[keep]
