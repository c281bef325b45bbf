"""Interpret BUNIT: astropy.units, and a table of spellings found in real headers."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# One word of a BUNIT each, in lower case. Used where astropy doesn't know the word as it stands, and first
# in a BUNIT that is all capitals (there S is the second, not the siemens).
_UNITS = (
    *("adu", "Angstrom", "arcsec", "beam", "cm", "electron", "erg", "Hz", "Jy", "m", "MJy", "nmgy", "photon", "pix"),
    *("s", "sr", "uJy", "um", "W"),
)
_SPELLINGS = {
    **{"Angstrom": "a angstroms", "adu": "adus dn dns", "beam": "bm", "ct": "count counts cts", "ct s-1": "cps"},
    **{"electron": "e e- electrons elec", "erg": "ergs", "Jy": "janskys", "mgy": "maggies"},
    **{"nmgy": "nanomaggies nanomaggy", "photon": "photons", "pix": "pixel pixels", "s": "sec second seconds"},
    **{"sr": "ster"},
}
_ALIASES = {unit.lower(): unit for unit in _UNITS}
_ALIASES |= {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_WORD = re.compile(r"(?<![A-Za-z0-9.])[A-Za-z]+(?:-(?![A-Za-z0-9]))?")
_LOGARITHM = re.compile(r"(?<![a-z])(mag|magnitudes?|dex|dB|log|log10|ln)(?![a-z])", re.IGNORECASE)
_LONGEST = 70  # what one card holds


@dataclass(frozen=True, slots=True)
class Bunit:
    """A BUNIT, understood."""

    unit: Any = None  # without "per pixel"; None where the text is not understood
    per_pixel: bool = False  # counts or a flux density in each pixel, so that the number grows with the pixel's area
    per_area: bool = False  # per solid angle
    is_count: bool = False  # counts that pile up with the exposure time
    is_rate: bool = False  # counts per time
    per_beam: bool = False  # per beam of a radio telescope: the number grows with the area of the beam
    is_linear: bool = True  # False for magnitudes and other logarithms


@lru_cache(maxsize=1024)
def understand(text: str) -> Bunit:
    """Parse a BUNIT; ``unit`` is None where it is unknown."""
    unit = _parse(text)
    if unit is None:
        return Bunit(is_linear=not _LOGARITHM.search(text))
    return _classify(unit)


def spelled_unit(text: str) -> str:
    """Spell a BUNIT as FITS does, else as astropy; "" where it is not understood.

    Examples
    --------
    >>> spelled_unit("ELECTRONS/S"), spelled_unit("MJy/sr"), spelled_unit("magic")
    ('electron / s', 'MJy sr-1', '')
    """
    return unit_text(_parse(text))


def unit_text(unit: Any) -> str:
    """Spell an astropy unit as FITS does, else as astropy; "" for None."""
    if unit is None:
        return ""
    try:
        return str(unit.to_string("fits"))
    except ValueError:
        return str(unit)


def _parse(text: str) -> Any:
    from astropy import units as u

    if not text.strip() or len(text) > _LONGEST:
        return None
    capitals = text == text.upper()
    for spelling in (_WORD.sub(lambda word: _respell(word[0], capitals=capitals), text), text):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "multiple slashes are discouraged"
                unit = u.Unit(spelling.strip())
                if isinstance(unit, u.UnitBase) and _is_linear(unit):
                    return unit
        except (ValueError, TypeError, ArithmeticError):
            continue
    return None


def _is_linear(unit: Any) -> bool:
    """Whether differences of its values are differences of sky: no logarithm, no absurd scale.

    ArithmeticError if it is so many of its base units that no number holds that.
    """
    from astropy import units as u

    logarithms = (u.mag, u.dex, u.dB)
    scales = abs(unit.scale), abs(unit.decompose().scale)
    return not any(base in logarithms for base in unit.bases) and all(0 < scale < math.inf for scale in scales)


def _respell(word: str, *, capitals: bool) -> str:
    from astropy import units as u

    alias = _ALIASES.get(word.lower())
    if alias is None:
        return word
    if word.lower() in {"dn", "dns"} or capitals:  # DN is ADU by another name
        return alias
    try:
        u.Unit(word)
    except (ValueError, TypeError):
        return alias
    return word


def _classify(unit: Any) -> Bunit:
    from astropy import units as u

    powers = dict(zip(unit.bases, unit.powers, strict=True))
    if powers.get(u.pix) == -1:
        unit *= u.pix
    counted = [base for base in (u.ct, u.electron, u.adu, u.photon) if powers.get(base, 0) > 0]
    per_beam = powers.get(u.beam, 0) == -1
    # A radian is half of a solid angle.
    angles = ((u.sr, 1.0), (u.rad, 0.5))
    angle = sum(n * power for base, power in powers.items() for unit_, n in angles if base.is_equivalent(unit_))
    per_area = angle < 0 or per_beam
    solid = u.sr if angle < 0 else u.dimensionless_unscaled
    rest = unit * solid / counted[0] ** powers[counted[0]] if counted else unit
    flux = any(unit.is_equivalent(f) for f in (u.Jy, u.mgy, u.W / u.m**2, u.W / u.m**3))
    return Bunit(
        unit=unit,
        per_pixel=not per_area and (bool(counted) or flux or powers.get(u.pix) == -1),
        per_area=per_area,
        is_count=bool(counted) and rest.is_equivalent(u.dimensionless_unscaled),
        is_rate=bool(counted) and rest.is_equivalent(u.Hz),
        per_beam=per_beam,
    )
