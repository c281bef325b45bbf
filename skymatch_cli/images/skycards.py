"""Keywords of the skies of an HDU.

::

    BKGLEVEL=               12.345 / sky of this image, in its own unit
    BKGSUB  =                    T / the sky is subtracted from the pixels
    BKGMETH = 'match   '           / how the sky was found
    BKGERR  =                0.012 / 1 sigma error of the sky
    BKGDX   =               0.0015 / tilt of the sky along x, per pixel         (beyond --model constant; BKGDY too)
    BKGC20  =                 0.25 / sky: times P2(u)P0(v) less its centre      (poly2, poly3; see `SkyPlane`)

Those of parts have the number of the part, from 1; BKGSUB and BKGMETH are those of all parts.
Sections of an image (``a.fits[1][1:100,*]``) are numbered in their order, and the image has no BKGLEVEL::

    BKGSEC1 = '[1:100,1:200]'      / section 1 of this image
    BKGLEV1 =               12.345 / sky of section 1, in its own unit          (BKGERR1; BKGDX1 … BKGC031 with --model)

Planes of a cube have the number that they have there, and shorter names; a plane without a sky has no card::

    BKGL3   =               12.345 / sky of plane 3, in its own unit       (BKGE3; BKGX3, BKGY3, BC203 with --model)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.model.section import WHOLE, Part, Section
from skymatch_cli.model.skyparts import Skies
from skymatch_cli.model.skyplane import SHAPE_TERMS, SkyPlane

LEVEL, SUBTRACTED, METHOD, ERROR = "BKGLEVEL", "BKGSUB", "BKGMETH", "BKGERR"
SHAPE = tuple(f"BKG{name.upper()}" for name in SHAPE_TERMS)
"""Keywords of the shape of the sky of an image."""
MOST_SECTIONS, MOST_PLANES = 99, 9999  # whose numbers fit a keyword

_SECTION = "BKGSEC"


@dataclass(frozen=True, slots=True)
class _Names:
    """The keywords of an image, or the first letters of those of its sections or planes, and their comments."""

    level: str
    error: str
    shape: tuple[str, ...]
    sky: str
    level_comment: str = "{of}, in its own unit"
    term_comment: str = "P{i}(u)P{j}(v) in the {of}"


_BENDS = "sky: times P{i}(u)P{j}(v) less its centre"
_OF_PLANE = ("BKGX", "BKGY", *(f"B{name.upper()}" for name in SHAPE_TERMS[2:]))
_IMAGE = _Names(LEVEL, ERROR, SHAPE, "sky", "sky of this image, in its own unit", _BENDS)
_SECTIONS = _Names("BKGLEV", "BKGERR", SHAPE, "sky of section {n}")
_PLANES = _Names("BKGL", "BKGE", _OF_PLANE, "sky of plane {n}")
_BEGIN = "|".join([_SECTION, *(begin for n in (_SECTIONS, _PLANES) for begin in (n.level, n.error, *n.shape))])
_NUMBERED = re.compile(rf"({_BEGIN})[1-9]\d{{0,3}} *=".encode())


def is_numbered(card: bytes) -> bool:
    """Return whether a card is one of the keywords of a part."""
    return _NUMBERED.match(card) is not None


def _names_of(part: Part) -> _Names:
    return _IMAGE if part == WHOLE else _SECTIONS if part.plane is None else _PLANES


def sky_cards(skies: Skies, errors: Sequence[float], *, tilted: bool) -> dict[str, bytes]:
    """Make the cards of the skies of all parts, by keyword; ``errors`` are NaN where they are not known."""
    cards: dict[str, bytes] = {}
    for place, (part, sky), error in zip(range(1, len(errors) + 1), skies.parts.items(), errors, strict=True):
        names = _names_of(part)
        n = "" if part == WHOLE else place if part.plane is None else part.plane + 1
        of = names.sky.format(n=n)
        values: dict[str, tuple[float | str, str]] = {}
        if part.section is not None:
            values[_SECTION] = str(part.section), f"section {n} of this image"
        values[names.level] = sky.level, names.level_comment.format(of=of)
        if not math.isnan(error):
            values[names.error] = error, f"1 sigma error of the {of}"
        meanings = [f"tilt of the {of} along {axis}, per pixel" for axis in "xy"]
        meanings += [names.term_comment.format(i=term[1], j=term[2], of=of) for term in SHAPE_TERMS[2:]]
        for k, (begin, value) in enumerate(zip(names.shape, sky.shape, strict=True)):
            if tilted and (k < 2 or value != 0):
                values[begin] = value, meanings[k]
        cards |= {f"{begin}{n}": cd.make_card(f"{begin}{n}", *value) for begin, value in values.items()}
    return cards


def sky_with(cards: cd.Cards, level: float) -> SkyPlane:
    """Return the sky of an image of this level, and of the shape in its header."""
    return SkyPlane(level, *(cd.number(cards, key, 0.0) for key in SHAPE))


def parts_in(cards: cd.Cards, shape: tuple[int, ...]) -> dict[Part, tuple[SkyPlane, float]]:
    """Read the skies of the parts of an HDU and their errors (NaN where there is none), by keywords alone.

    ValueError if one of them can't be understood.
    """
    values = _values(cards)
    frame = shape[-2], shape[-1]
    if math.prod(shape[:-2]) == 1:
        numbers = (n for n in range(1, MOST_SECTIONS + 1) if f"{_SECTION}{n}" in values)
        sections = {n: Section.of(str(values[f"{_SECTION}{n}"]).strip("[]"), frame) for n in numbers}
        return {Part(section=section): _sky_in(values, _SECTIONS, n) for n, section in sections.items()}
    numbers = (n for n in range(1, math.prod(shape[:-2]) + 1) if f"{_PLANES.level}{n}" in values)
    return {Part(plane=n - 1): _sky_in(values, _PLANES, n) for n in numbers}


def _values(cards: cd.Cards) -> dict[str, float | str]:
    """The values of the keywords of parts in a header: texts and finite numbers."""
    found: dict[str, float | str] = {}
    for card in filter(is_numbered, cards):
        value = cd.card_value(card)
        if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
            found.setdefault(card[:8].decode("ascii").rstrip(), value)
    return found


def _sky_in(values: Mapping[str, float | str], names: _Names, n: int) -> tuple[SkyPlane, float]:
    def number(begin: str, default: float = 0.0) -> float:
        value = values.get(f"{begin}{n}", default)
        return default if isinstance(value, str) else value

    if math.isnan(level := number(names.level, math.nan)):
        raise ValueError(f"BKGSUB = T, but {names.level}{n} is not a number")
    return SkyPlane(level, *map(number, names.shape)), number(names.error, math.nan)


def compared(skies: Skies, cards: cd.Cards) -> Iterator[tuple[str, float | str, float | str]]:
    """Yield keywords but those of errors, what they hold and what the skies say; 0 where there is nothing.

    Of an image these are the keywords of the shape alone: that of the level may have another name.
    """
    if WHOLE in skies.parts:
        for key, value in zip(SHAPE, skies.of(WHOLE).shape, strict=True):
            yield key, cd.number(cards, key, 0.0), value
        return
    said = _values(list(sky_cards(skies, [math.nan] * len(skies.parts), tilted=True).values()))
    found = {name: value for name, value in _values(cards).items() if not name.startswith(_PLANES.error)}
    for name in {**said, **found}:
        yield name, found.get(name, 0.0), said.get(name, 0.0)
