"""The sky of one image as a plane: a level at the centre of the image and a tilt per pixel.

Values at pixels are the same to the last bit whoever asks for them and in whatever pieces, so that what is
subtracted can be put back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skymatch_cli.model.arrays import FloatArray, IntArray

Shape = tuple[int, int]
Positions = IntArray | FloatArray


@dataclass(frozen=True, slots=True)
class SkyPlane:
    """``level + dx * (x - xc) + dy * (y - yc)``, with ``xc = (nx - 1) / 2`` and ``yc = (ny - 1) / 2``.

    ``level`` is in the image's unit, ``dx`` and ``dy`` in that unit per pixel.
    """

    level: float = 0.0
    dx: float = 0.0
    dy: float = 0.0

    def __bool__(self) -> bool:
        """Whether it is anything but zero everywhere."""
        return bool(self.level or self.dx or self.dy)

    def __sub__(self, other: SkyPlane) -> SkyPlane:
        return SkyPlane(self.level - other.level, self.dx - other.dx, self.dy - other.dy)

    @property
    def is_level(self) -> bool:
        """Whether it has no tilt."""
        return not (self.dx or self.dy)

    def largest(self, shape: Shape) -> float:
        """Largest absolute value in an image of (ny, nx) pixels."""
        ny, nx = shape
        return abs(self.level) + abs(self.dx) * 0.5 * (nx - 1) + abs(self.dy) * 0.5 * (ny - 1)

    def rows(self, y0: int, y1: int, shape: Shape) -> float | FloatArray:
        """Values in rows y0 to y1 of an image of (ny, nx) pixels: (y1 - y0, nx), or one number without a tilt."""
        return self.level if self.is_level else self.at(np.arange(shape[1]), np.arange(y0, y1)[:, None], shape)

    def along(self, first: int, n: int, shape: Shape) -> float | FloatArray:
        """Values at n pixels from the one that is number ``first`` in the file on: (n,), or one number.

        Images that follow upon one another (further axes) have the same plane each.
        """
        if self.is_level:
            return self.level
        y, x = np.divmod(np.arange(first, first + n), shape[1])
        return self.at(x, y % shape[0], shape)

    def at(self, x: Positions, y: Positions, shape: Shape) -> FloatArray:
        """Values at pixels (x, y) of an image of (ny, nx) pixels."""
        ny, nx = shape
        values: FloatArray = self.level + self.dx * (x - 0.5 * (nx - 1)) + self.dy * (y - 0.5 * (ny - 1))
        return values
