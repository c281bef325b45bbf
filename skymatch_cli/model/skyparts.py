"""The skies of the parts of an HDU: the whole image, sections of it, or planes of a cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from skymatch_cli.model.arrays import FloatArray
from skymatch_cli.model.section import WHOLE, Part
from skymatch_cli.model.skyplane import Shape, SkyPlane


@dataclass(frozen=True, slots=True)
class Skies:
    """The skies of parts that share no pixel, each a function of the pixel of its own part; 0 elsewhere.

    Examples
    --------
    >>> Skies({Part(plane=0): SkyPlane(1.0)}).along(3, 4, (2, 3)).tolist()
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

    def __sub__(self, other: Skies) -> Skies:
        """The differences, part by part; `NO_SKY` where all are zero."""
        parts = {**self.parts, **(other.parts if other else {})}
        skies = Skies({part: self.of(part) - (other.of(part) if other else SkyPlane()) for part in parts})
        return skies if skies else NO_SKY

    @property
    def are_of_sections(self) -> bool:
        """Whether the parts are sections of an image."""
        return any(part.section is not None for part in self.parts)

    def of(self, part: Part) -> SkyPlane:
        """Return the sky of a part; 0 where it is not known."""
        return self.parts.get(part, SkyPlane())

    def largest(self, shape: Shape) -> float:
        """Return an upper limit of the absolute values in an image, or planes, of (ny, nx) pixels."""
        skies = self.parts.items()
        return max((sky.largest(part.section.shape if part.section else shape) for part, sky in skies), default=0.0)

    def along(self, first: int, n: int, shape: Shape) -> float | FloatArray:
        """Values at n pixels from the one that is number ``first`` in the file on: (n,), or one number."""
        if WHOLE in self.parts:
            return self.parts[WHOLE].along(first, n, shape)
        values, size = np.zeros(n), shape[0] * shape[1]
        if self.are_of_sections:
            y, x = np.divmod(np.arange(first, first + n), shape[1])
            y %= shape[0]
            for part, sky in self.parts.items():
                if (s := part.section) is not None:
                    inside = (x >= s.x0) & (x < s.x1) & (y >= s.y0) & (y < s.y1)
                    values[inside] = sky.level if sky.is_level else sky.at(x[inside] - s.x0, y[inside] - s.y0, s.shape)
            return values
        for plane in range(first // size, -(-(first + n) // size)):
            start, stop = max(first, plane * size), min(first + n, (plane + 1) * size)
            value = self.of(Part(plane)).along(start - plane * size, stop - start, shape)
            if stop - start == n:
                return value
            values[start - first : stop - first] = value
        return values


NO_SKY = Skies({WHOLE: SkyPlane()})
"""No sky was subtracted."""
