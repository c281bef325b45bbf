"""Keywords of the planes of a cube: those of an image, shortened, with the plane number from 1.

::

    BKGL3   =               12.345 / sky of plane 3, in its own unit
    BKGE3   =                0.012 / 1 sigma error of the sky of plane 3
    BKGX3   =               0.0015 / tilt of the sky of plane 3 along x, per pixel    (beyond --model constant; BKGY3)
    BC203   =                 0.25 / sky of plane 3: times P2(u)P0(v) less its centre (poly2, poly3)

BKGSUB and BKGMETH are those of all planes. A plane without a sky has no card.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.model.skycube import SkyCube
from skymatch_cli.model.skyplane import SHAPE_TERMS, SkyPlane

MOST_PLANES = 9999  # whose numbers fit a keyword

_LEVEL, _ERROR = "BKGL", "BKGE"
_TERMS = tuple(f"BKG{term[1].upper()}" if term[0] == "d" else f"B{term.upper()}" for term in SHAPE_TERMS)
_CARD = re.compile(rb"(BKG[LEXY]|BC(20|11|02|30|21|12|03))[1-9]\d{0,3} *=")


def is_of_plane(card: bytes) -> bool:
    """Whether a card is one of the keywords of a plane."""
    return _CARD.match(card) is not None


def plane_cards(sky: SkyCube, errors: Sequence[float], *, tilted: bool) -> dict[str, bytes | None]:
    """The cards of the planes that have a sky, by keyword; ``errors`` are NaN where they are not known."""
    cards: dict[str, bytes | None] = {}
    for number, (plane, error) in enumerate(zip(sky.planes, errors, strict=True), start=1):
        if plane is None:
            continue
        values = {_LEVEL: (plane.level, f"sky of plane {number}, in its own unit")}
        if not math.isnan(error):
            values[_ERROR] = error, f"1 sigma error of the sky of plane {number}"
        for key, value in zip(_TERMS, plane.shape, strict=True):
            if tilted and (key in _TERMS[:2] or value != 0):
                what = f" along {key[-1].lower()}, per pixel" if key in _TERMS[:2] else ""
                term = "tilt of the sky" if what else f"P{key[2]}(u)P{key[3]}(v) in the sky"
                values[key] = value, f"{term} of plane {number}{what}"
        cards |= {f"{key}{number}": cd.make_card(f"{key}{number}", *value) for key, value in values.items()}
    return cards


def plane_numbers(cards: cd.Cards) -> dict[str, float]:
    """The values of the keywords of planes in a header."""
    found: dict[str, float] = {}
    for card in filter(is_of_plane, cards):
        value = cd.card_value(card)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found.setdefault(card[:8].decode("ascii").rstrip(), float(value))
    return found


def planes_in(numbers: Mapping[str, float], n_planes: int) -> tuple[SkyPlane | None, ...]:
    """The skies of all planes, by the keywords alone."""
    return tuple(
        SkyPlane(numbers[f"{_LEVEL}{k}"], *(numbers.get(f"{key}{k}", 0.0) for key in _TERMS))
        if f"{_LEVEL}{k}" in numbers
        else None
        for k in range(1, n_planes + 1)
    )


def errors_in(numbers: Mapping[str, float], n_planes: int) -> list[float]:
    """The errors of all planes, NaN where there is none."""
    return [numbers.get(f"{_ERROR}{k}", math.nan) for k in range(1, n_planes + 1)]


def plane_values(sky: SkyCube) -> dict[str, float]:
    """The keywords of all planes, and the numbers that the skies have; 0 for planes without one."""
    skies = [SkyPlane() if plane is None else plane for plane in sky.planes]
    values = [zip((_LEVEL, *_TERMS), (plane.level, *plane.shape), strict=True) for plane in skies]
    return {f"{key}{k}": value for k, own in enumerate(values, start=1) for key, value in own}
