"""The skies of the planes of a cube, each a function of the pixel of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from skymatch_cli.model.arrays import FloatArray
from skymatch_cli.model.section import SectionSkies
from skymatch_cli.model.skyplane import Shape, SkyPlane


@dataclass(frozen=True, slots=True)
class SkyCube:
    """The sky of every plane of a cube; None for a plane that has none, which stays as it is.

    Examples
    --------
    >>> SkyCube((SkyPlane(1.0), None)).along(3, 4, (2, 3)).tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    planes: tuple[SkyPlane | None, ...]

    def __bool__(self) -> bool:
        """Whether it is not zero everywhere."""
        return any(self.planes)

    def largest(self, shape: Shape) -> float:
        """Return an upper limit of the absolute values in planes of (ny, nx) pixels."""
        return max((plane.largest(shape) for plane in self.planes if plane is not None), default=0.0)

    def along(self, first: int, n: int, shape: Shape) -> float | FloatArray:
        """Values at n pixels from the one that is number ``first`` in the file on: (n,), or one number."""
        size = shape[0] * shape[1]
        values: list[FloatArray] = []
        while n > 0:
            k, start = divmod(first, size)
            count = min(n, size - start)
            value = of_plane(self, k).along(start, count, shape)
            if count == n and not values:
                return value
            values.append(np.broadcast_to(value, count))
            first, n = first + count, n - count
        return np.concatenate(values)


Sky = SkyPlane | SectionSkies | SkyCube
"""The sky subtracted from the pixels of an HDU."""


def of_plane(sky: Sky, plane: int | None) -> SkyPlane:
    """Return the sky of one plane, zero where it has none; of a two-dimensional image its own."""
    if isinstance(sky, SectionSkies):
        raise TypeError("sections are parts of one plane")
    own = sky.planes[plane or 0] if isinstance(sky, SkyCube) else sky
    return own or SkyPlane()


def difference(sky: Sky, other: Sky) -> Sky:
    """Return one sky less another; of cubes zero (a `SkyPlane`) where all planes are."""
    if isinstance(sky, SkyPlane) and isinstance(other, SkyPlane):
        return sky - other
    n_planes = max((len(one.planes) for one in (sky, other) if isinstance(one, SkyCube)), default=0)
    return joined(of_plane(sky, k) - of_plane(other, k) for k in range(n_planes)) if n_planes else sky


def joined(planes: Iterable[SkyPlane | None]) -> Sky:
    """Return the skies of planes as one; nothing at all where no plane has one."""
    cube = SkyCube(tuple(planes))
    return cube if cube else SkyPlane()
