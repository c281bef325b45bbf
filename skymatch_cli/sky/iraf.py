"""Translate the distorted projections of IRAF, TNX and ZPX, to TAN and ZPN with SIP polynomials.

Their corrections are polynomials of the intermediate world coordinates (F. Valdes, "TNX World Coordinate System"
and "ZPX World Coordinate System", NOAO): xi + lngcor(xi, eta), eta + latcor(xi, eta), in degrees, after the linear
part of the WCS. The same polynomials of pixels, before it, are those of SIP. wcslib reads these headers too, and
breaks down on surfaces of order 4 and more, which most of them have.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Legendre, Polynomial

from skymatch_cli.model import FloatArray

_BASE = {"TNX": "TAN", "ZPX": "ZPN"}
_CTYPE = re.compile(r"(?P<axis>[A-Z]{2,4}-+)(?P<code>TNX|ZPX) *")
_WAT = re.compile(r"WAT(?P<axis>\d)_(?P<part>\d{3})")
_SURFACE = re.compile(r'(?P<which>lngcor|latcor) *= *"(?P<numbers>[^"]*)"')
_PROJECTION = re.compile(r"projp(?P<number>\d) *= *(?P<value>[-+.\dEeDd]+)")
_CARD_TEXT = 68  # characters of a string that fill its card
_MAX_ORDER = 9  # of SIP in astropy
_SERIES: dict[int, Any] = {1: Chebyshev, 2: Legendre, 3: Polynomial}
_HALF_CROSS, _FULL_CROSS = 2, 1


def is_iraf(header: Any) -> bool:
    """Return whether a header has one of the two projections."""
    return all(_CTYPE.fullmatch(str(header.get(f"CTYPE{axis}", ""))) for axis in (1, 2))


def translated(header: Any) -> Any:
    """Return the header of two axes with a standard projection; ValueError if the corrections can't be read."""
    from astropy.wcs import WCS

    axes = [_CTYPE.fullmatch(str(header[f"CTYPE{axis}"])) for axis in (1, 2)]
    names = [match["axis"] for match in axes if match is not None]
    attributes = _attributes(header)
    result = without_attributes(header)
    for axis, match in enumerate(axes, start=1):
        assert match is not None  # noqa: S101 (what `is_iraf` asks)
        result[f"CTYPE{axis}"] = match["axis"] + _BASE[match["code"]]
    lat = 1 + next((i for i, name in enumerate(names) if name.rstrip("-").endswith(("DEC", "LAT"))), 1)
    for number, value in _PROJECTION.findall(attributes):
        result[f"PV{lat}_{number}"] = _number(value)
    surfaces = {which: _surface(numbers) for which, numbers in _SURFACE.findall(attributes)}
    if not surfaces:
        return result
    linear: FloatArray = WCS(result, naxis=2).pixel_scale_matrix
    lng_lat = [surfaces.get(which, np.zeros((1, 1))) for which in ("lngcor", "latcor")]
    to_lng_lat = linear if lat == 2 else linear[::-1]
    for letter, terms in zip("AB", _of_pixels(lng_lat, to_lng_lat), strict=True):
        result[f"{letter}_ORDER"] = len(terms) - 1
        for i, j in np.argwhere(terms).tolist():
            result[f"{letter}_{i}_{j}"] = float(terms[i, j])
    for axis in (1, 2):
        result[f"CTYPE{axis}"] += "-SIP"
    return result


def without_attributes(header: Any) -> Any:
    """Return the header without the WAT cards, which only IRAF needs (wcslib fails on some)."""
    result = header.copy()
    for card in [key for key in result if _WAT.fullmatch(key)]:
        del result[card]
    return result


def _attributes(header: Any) -> str:
    """Return the joined text of the WAT cards: words are broken anywhere, trailing blanks count."""
    parts = sorted((match["axis"], match["part"], key) for key in header if (match := _WAT.fullmatch(key)))
    return "".join(f"{header[key]!s:{_CARD_TEXT}}" for _, _, key in parts)


def _number(text: str) -> float:
    return float(text.upper().replace("D", "E"))


def _surface(text: str) -> FloatArray:
    """Return the terms (i, j) of xi^i eta^j of a surface of IRAF."""
    kind, n_x, n_y, cross, *rest = (_number(word) for word in text.split())
    nx, ny = int(n_x), int(n_y)
    if not (1 <= nx <= _MAX_ORDER + 1 and 1 <= ny <= _MAX_ORDER + 1):
        raise ValueError(f"a surface of IRAF has the orders {n_x:g} and {n_y:g}")
    places = [(i, j) for j in range(ny) for i in range(nx) if _is_kept(i, j, max(nx, ny), int(cross))]
    limits, values = rest[:4], rest[4:]
    if len(limits) < 4 or len(values) != len(places) or not np.isfinite(rest).all():
        raise ValueError(f"a surface of IRAF has {len(values)} terms instead of {len(places)}")
    terms = np.zeros((nx, ny))
    terms[tuple(np.transpose(places))] = values
    along_x = _basis(int(kind), nx, limits[0], limits[1])
    along_y = _basis(int(kind), ny, limits[2], limits[3])
    powers: FloatArray = along_x.T @ terms @ along_y
    return powers


def _is_kept(i: int, j: int, order: int, cross: int) -> bool:
    """Return whether a surface has a term of these orders: all, a triangle, or no mixed ones."""
    return cross == _FULL_CROSS or (i + j < order if cross == _HALF_CROSS else i == 0 or j == 0)


def _basis(kind: int, n: int, low: float, high: float) -> FloatArray:
    """Return the n basis functions of one axis as polynomials: (function, power)."""
    series = _SERIES.get(kind)
    if series is None or not (high > low or series is Polynomial):
        raise ValueError(f"a surface of IRAF is of kind {kind}")
    domain = None if series is Polynomial else [low, high]
    made = np.zeros((n, n))
    for k in range(n):
        powers = series.basis(k, domain).convert(kind=Polynomial).coef
        made[k, : len(powers)] = powers
    return made


def _of_pixels(surfaces: list[FloatArray], linear: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Convert corrections, terms of powers of (xi, eta), to terms of powers of pixels along both axes.

    ``linear`` (2, 2): (xi, eta) from pixels.
    """
    order = max(int(np.argwhere(surface).sum(axis=1).max(initial=1)) for surface in surfaces)
    if order > _MAX_ORDER:
        raise ValueError(f"a surface of IRAF has terms of order {order}")
    xi, eta = (_powers(row, order + 1) for row in linear)
    moved = np.zeros((2, order + 1, order + 1))
    for axis, surface in enumerate(surfaces):
        for i, j in np.argwhere(surface).tolist():
            moved[axis] += surface[i, j] * _product(xi[i], eta[j])
    first, second = np.einsum("ab,bij->aij", np.linalg.inv(linear), moved)
    return first, second


def _powers(row: FloatArray, size: int) -> list[FloatArray]:
    """Return powers 0 to size - 1 of a linear form of (u, v), as terms (i, j) of u^i v^j."""
    form = np.zeros((size, size))
    form[1:2, 0], form[0, 1:2] = row
    powers = [np.zeros((size, size))]
    powers[0][0, 0] = 1.0
    for _ in range(size - 1):
        powers.append(_product(powers[-1], form))
    return powers


def _product(first: FloatArray, second: FloatArray) -> FloatArray:
    """Multiply two polynomials, up to the size of the terms."""
    result = np.zeros_like(first)
    for i, j in np.argwhere(first).tolist():
        shifted = second[: len(result) - i, : len(result) - j]
        result[i:, j:] += first[i, j] * shifted
    return result
