"""The sky of one image as a function of the pixel: a level at the centre, a tilt per pixel, and higher terms.

Values at pixels are the same to the last bit however they are computed, so that a subtracted sky can be added back.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from skymatch_cli.model.arrays import FloatArray, IntArray

Shape = tuple[int, int]
Positions = IntArray | FloatArray

SHAPE_TERMS = "dx", "dy", "c20", "c11", "c02", "c30", "c21", "c12", "c03"
"""Coefficients of a sky beyond its level: the first two are those of a plane, five of degree 2, nine of degree 3."""
_shape_of = attrgetter(*SHAPE_TERMS)
_LARGEST = {"c20": 1.5, "c02": 1.5}  # of the terms over an image; 1 of the others


@dataclass(frozen=True, slots=True)
class SkyPlane:
    """``level + dx * (x - xc) + dy * (y - yc)`` and, beyond planes, the sum of ``cij * (Pi(u) Pj(v) - Pi(0) Pj(0))``.

    ``xc = (nx - 1) / 2``, ``u = (x - xc) / xc``, and the same for y and v: u and v run from -1 to 1 over the image. Pi
    is the Legendre polynomial of degree i. ``level`` and ``cij`` are in the image's unit, ``dx`` and ``dy`` in that
    unit per pixel.

    Examples
    --------
    >>> SkyPlane(10.0, c20=2.0).at(np.array([0, 50, 100]), np.array([7, 7, 7]), (15, 101)).tolist()
    [13.0, 10.0, 13.0]
    """

    level: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    c20: float = 0.0
    c11: float = 0.0
    c02: float = 0.0
    c30: float = 0.0
    c21: float = 0.0
    c12: float = 0.0
    c03: float = 0.0

    def __bool__(self) -> bool:
        """Whether it is not zero everywhere."""
        return bool(self.level) or not self.is_level

    def __sub__(self, other: SkyPlane) -> SkyPlane:
        terms = zip((self.level, *self.shape), (other.level, *other.shape), strict=True)
        return SkyPlane(*(a - b for a, b in terms))

    @property
    def shape(self) -> tuple[float, ...]:
        """All coefficients but the level."""
        shape: tuple[float, ...] = _shape_of(self)
        return shape

    @property
    def is_level(self) -> bool:
        """Whether it is constant."""
        return not any(self.shape)

    def largest(self, shape: Shape) -> float:
        """Return an upper limit of the absolute values in an image of (ny, nx) pixels."""
        ny, nx = shape
        tilt = abs(self.dx) * 0.5 * (nx - 1) + abs(self.dy) * 0.5 * (ny - 1)
        bends = zip(SHAPE_TERMS[2:], self.shape[2:], strict=True)
        return abs(self.level) + tilt + sum(_LARGEST.get(name, 1.0) * abs(value) for name, value in bends)

    def rows(self, y0: int, y1: int, shape: Shape) -> float | FloatArray:
        """Values in rows y0 to y1 of an image of (ny, nx) pixels: (y1 - y0, nx), or one number without a shape."""
        return self.level if self.is_level else self.at(np.arange(shape[1]), np.arange(y0, y1)[:, None], shape)

    def along(self, first: int, n: int, shape: Shape) -> float | FloatArray:
        """Values at n pixels from the one that is number ``first`` in the file on: (n,), or one number.

        Images that follow upon one another (further axes) have the same sky each.
        """
        if self.is_level:
            return self.level
        y, x = np.divmod(np.arange(first, first + n), shape[1])
        return self.at(x, y % shape[0], shape)

    def at(self, x: Positions, y: Positions, shape: Shape) -> FloatArray:
        """Values at pixels (x, y) of an image of (ny, nx) pixels."""
        ny, nx = shape
        from_xc, from_yc = x - 0.5 * (nx - 1), y - 0.5 * (ny - 1)
        values: FloatArray = self.level + self.dx * from_xc + self.dy * from_yc
        if any(self.shape[2:]):
            for value, term in zip(self.shape[2:], bends(from_xc, from_yc, shape), strict=True):
                if value:
                    values = values + value * term
        return values


def bends(from_xc: npt.NDArray[np.floating], from_yc: npt.NDArray[np.floating], shape: Shape) -> tuple[FloatArray, ...]:
    """Return the terms of `SkyPlane` beyond a plane, at places from the centre of an image of (ny, nx) pixels."""
    u, v = (at / max(0.5 * (n - 1), 0.5) for at, n in ((from_xc, shape[1]), (from_yc, shape[0])))
    p2u, p2v = 1.5 * u * u - 0.5, 1.5 * v * v - 0.5
    p3u, p3v = (2.5 * u * u - 1.5) * u, (2.5 * v * v - 1.5) * v
    zero = 0.0 * (u + v)
    return 1.5 * u * u + zero, u * v, 1.5 * v * v + zero, p3u + zero, p2u * v, u * p2v, p3v + zero
