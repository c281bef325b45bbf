"""The WCS of a section of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skymatch_cli.images.formats.gwcs import GwcsWcs
from skymatch_cli.model import FloatArray, Section
from skymatch_cli.sky.celestial import FitsWcs


@dataclass(frozen=True, slots=True)
class SectionWcs:
    """The WCS of a section: that of the whole image, with pixels counted from the corner of the section."""

    whole: FitsWcs | GwcsWcs
    section: Section

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the section."""
        return self.section.shape

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the whole image."""
        return self.whole.notes

    @property
    def frame(self) -> Any:
        """That of the whole image; None where it has none."""
        return getattr(self.whole, "frame", None)

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Convert pixels of the section to ICRS unit vectors, (n, 3)."""
        return self.whole.to_sky(x + self.section.x0, y + self.section.y0)

    def to_pixel(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Convert ICRS unit vectors (n, 3) to pixels of the section; NaN where no pixel has that position."""
        x, y = self.whole.to_pixel(vectors)
        return x - self.section.x0, y - self.section.y0
