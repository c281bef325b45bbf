"""Parts of an HDU: sections, as CFITSIO and IRAF write them (``[1:2048,*]``), and planes of a cube."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLANE = re.compile(r",\s*(?P<low>\d{1,9})\s*(?::\s*(?P<high>\d{1,9})\s*)?$")
_AXIS = re.compile(r"\s*(?:(?P<all>\*)|(?P<low>\d{1,9})\s*:\s*(?P<high>\d{1,9}))\s*")
_REASONS = (
    (re.compile(r"-\s*\*"), "turns an axis round: write * for all of it"),
    (re.compile(r":[^,]*:"), "takes every n-th pixel: give first and last one alone"),
)


@dataclass(frozen=True, slots=True, order=True)
class Section:
    """Columns ``x0`` to ``x1`` and rows ``y0`` to ``y1`` (0-based, the ends excluded) of an image of (ny, nx) pixels.

    Examples
    --------
    >>> section = Section.of("1:100,*", (40, 200))
    >>> str(section), section.shape
    ('[1:100,1:40]', (40, 100))
    """

    x0: int
    x1: int
    y0: int
    y1: int
    whole: tuple[int, int]

    @classmethod
    def of(cls, text: str, whole: tuple[int, int]) -> Section:
        """Parse the text between the brackets: two axes, columns first, 1-based and with both ends.

        ValueError if it is no section, or not within the image.
        """
        axes, _ = parse_section(text)
        ends: list[int] = []
        for axis, length, name in zip(axes, whole[::-1], ("columns", "rows"), strict=True):
            low, high = axis or (1, length)
            if high > length:
                raise ValueError(f"goes beyond the {length} {name} of the image")
            ends += [low - 1, high]
        x0, x1, y0, y1 = ends
        return cls(x0, x1, y0, y1, whole)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the section."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the image."""
        return self.shape == self.whole

    def __str__(self) -> str:
        return f"[{self.x0 + 1}:{self.x1},{self.y0 + 1}:{self.y1}]"

    def overlaps(self, other: Section) -> bool:
        """Whether a pixel belongs to both."""
        apart = self.x1 <= other.x0 or other.x1 <= self.x0 or self.y1 <= other.y0 or other.y1 <= self.y0
        return not apart


def parse_section(text: str) -> tuple[list[tuple[int, int] | None], int | None]:
    """The ends of the two axes, None for all of an axis, and the plane of a cube, from 0, of a third axis or None.

    ValueError if it is no section, or names several planes (``*,*,3`` and ``*,*,3:3`` are one).
    """
    for pattern, reason in _REASONS:
        if pattern.search(text):
            raise ValueError(reason)
    plane = _PLANE.search(text) if text.count(",") == 2 else None
    matches = [_AXIS.fullmatch(axis) for axis in (text[: plane.start()] if plane else text).split(",")]
    if len(matches) != 2 or None in matches:
        raise ValueError("is not two ranges of columns and rows")
    if plane and (plane["high"] not in {None, plane["low"]} or int(plane["low"]) < 1):
        raise ValueError("is not one plane of a cube: [*,*,3]")
    axes = [None if m is None or m["all"] else (int(m["low"]), int(m["high"])) for m in matches]
    if not all(axis is None or 1 <= axis[0] <= axis[1] for axis in axes):
        raise ValueError("holds a range that is not first:last, counted from 1")
    return axes, int(plane["low"]) - 1 if plane else None


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The part of an HDU that is an image of its own.

    ``plane``: number of the plane of a cube, from 0; None where the HDU is a two-dimensional image. ``section``: some
    of the columns and rows; None for all.
    """

    plane: int | None = None
    section: Section | None = None

    def __str__(self) -> str:
        """As CFITSIO writes it: ``[*,*,3]``, ``[1:100,1:200]``; "" for all of the HDU."""
        return part_text(0 if self.plane is None else self.plane + 1, str(self.section or ""))

    def overlaps(self, other: Part) -> bool:
        """Whether a pixel belongs to both."""
        one, another = self.section, other.section
        return self.plane == other.plane and (one is None or another is None or one.overlaps(another))


def part_text(plane: int, section: str) -> str:
    """The name of a part: the plane of a cube from 1 (0: none), and a section.

    Examples
    --------
    >>> part_text(3, ""), part_text(0, "[1:100,1:200]"), part_text(3, "[1:100,1:200]")
    ('[*,*,3]', '[1:100,1:200]', '[1:100,1:200,3]')
    """
    return f"[{section[1:-1] or '*,*'},{plane}]" if plane else section


WHOLE = Part()
