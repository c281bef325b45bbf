"""The sky of an HDU: one of the whole image, or those of its parts (sections, planes of a cube)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from skymatch_cli.model.arrays import FloatArray
from skymatch_cli.model.section import Part
from skymatch_cli.model.skyplane import Shape, SkyPlane


@dataclass(frozen=True, slots=True)
class PartSkies:
    """The skies of parts that share no pixel, each a function of the pixel of its own part; 0 elsewhere.

    Examples
    --------
    >>> PartSkies({Part(plane=0): SkyPlane(1.0)}).along(3, 4, (2, 3)).tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    parts: Mapping[Part, SkyPlane]

    def __post_init__(self) -> None:
        for one, other in combinations([part.section for part in self.parts if part.section is not None], 2):
            if one.overlaps(other):
                raise ValueError(f"the sections {one} and {other} overlap")

    def __bool__(self) -> bool:
        """Whether it is not zero everywhere."""
        return any(self.parts.values())

    @property
    def in_sections(self) -> bool:
        """Whether the parts are sections of an image, not planes of a cube."""
        return any(part.section is not None for part in self.parts)

    def largest(self, shape: Shape) -> float:
        """Return an upper limit of the absolute values in an image, or planes, of (ny, nx) pixels."""
        skies = self.parts.items()
        return max((sky.largest(part.section.shape if part.section else shape) for part, sky in skies), default=0.0)

    def along(self, first: int, n: int, shape: Shape) -> float | FloatArray:
        """Values at n pixels from the one that is number ``first`` in the file on: (n,), or one number."""
        values, size = np.zeros(n), shape[0] * shape[1]
        if self.in_sections:
            y, x = np.divmod(np.arange(first, first + n), shape[1])
            y %= shape[0]
            for part, sky in self.parts.items():
                if (s := part.section) is not None:
                    inside = (x >= s.x0) & (x < s.x1) & (y >= s.y0) & (y < s.y1)
                    values[inside] = sky.level if sky.is_level else sky.at(x[inside] - s.x0, y[inside] - s.y0, s.shape)
            return values
        for plane in range(first // size, -(-(first + n) // size)):
            start, stop = max(first, plane * size), min(first + n, (plane + 1) * size)
            value = self.parts.get(Part(plane), SkyPlane()).along(start - plane * size, stop - start, shape)
            if stop - start == n:
                return value
            values[start - first : stop - first] = value
        return values


Sky = SkyPlane | PartSkies
"""The sky subtracted from the pixels of an HDU."""


def skies_of(sky: Sky) -> Mapping[Part, SkyPlane]:
    """Return the skies of all parts; one of the whole image is that of its only part."""
    return sky.parts if isinstance(sky, PartSkies) else {Part(): sky}


def joined(skies: Mapping[Part, SkyPlane]) -> Sky:
    """Return the skies of parts as one; zero (a `SkyPlane`) where all are."""
    whole = skies.get(Part(), SkyPlane())
    return whole if whole or not any(skies.values()) else PartSkies(skies)


def difference(sky: Sky, other: Sky) -> Sky:
    """Return one sky less another, of the same parts or zero."""
    ours, others = skies_of(sky), skies_of(other) if other else {}
    return joined({part: ours.get(part, SkyPlane()) - others.get(part, SkyPlane()) for part in {**ours, **others}})
