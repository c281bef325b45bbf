"""Translate the distorted projections of IRAF, TNX and ZPX, to TAN and ZPN with SIP polynomials.

Their corrections are polynomials of the intermediate world coordinates (F. Valdes, "TNX World Coordinate System"
and "ZPX World Coordinate System", NOAO): xi + lngcor(xi, eta), eta + latcor(xi, eta), in degrees, after the linear
part of the WCS. The same polynomials of pixels, before it, are those of SIP. wcslib reads these headers too, and
breaks down on surfaces of order 4 and more, which most of them have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebval2d
from numpy.polynomial.legendre import legval2d
from numpy.polynomial.polynomial import polyval2d

from skymatch_cli.model import FloatArray

_BASE = {"TNX": "TAN", "ZPX": "ZPN"}
_CTYPE = re.compile(r"(?P<axis>[A-Z]{2,4}-+)(?P<code>TNX|ZPX) *")
_WAT = re.compile(r"WAT(?P<axis>\d)_(?P<part>\d{3})")
_SURFACE = re.compile(r'(?P<which>lngcor|latcor) *= *"(?P<numbers>[^"]*)"')
_PROJECTION = re.compile(r"projp(?P<number>\d) *= *(?P<value>[-+.\dEeDd]+)")
_CARD_TEXT = 68  # characters of a string that fill its card
_MAX_ORDER = 9  # of SIP in astropy
_VALUES: dict[int, Any] = {1: chebval2d, 2: legval2d, 3: polyval2d}
_HALF_CROSS, _FULL_CROSS = 2, 1

_Surface = tuple[int, Callable[[FloatArray, FloatArray], FloatArray]]
"""The order of a correction, and its values at (xi, eta)."""


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
    none: _Surface = 1, lambda xi, _: 0.0 * xi
    lng_lat = [surfaces.get(which, none) for which in ("lngcor", "latcor")]
    reach = max(1.0, *(abs(float(header.get(f"{key}{axis}", 1))) for key in ("NAXIS", "CRPIX") for axis in (1, 2)))
    for letter, terms in zip("AB", _of_pixels(lng_lat, linear if lat == 2 else linear[::-1], reach), strict=True):
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


def _surface(numbers: str) -> _Surface:
    """Read a surface of IRAF."""
    kind, n_x, n_y, cross, *rest = (_number(word) for word in numbers.split())
    nx, ny = int(n_x), int(n_y)
    if not (1 <= nx <= _MAX_ORDER + 1 and 1 <= ny <= _MAX_ORDER + 1):
        raise ValueError(f"a surface of IRAF has the orders {n_x:g} and {n_y:g}")
    places = [(i, j) for j in range(ny) for i in range(nx) if _is_kept(i, j, max(nx, ny), int(cross))]
    (low_x, high_x, low_y, high_y), values = (*rest[:4], *[0.0] * (4 - len(rest))), rest[4:]
    if len(values) != len(places) or not np.isfinite(rest).all():
        raise ValueError(f"a surface of IRAF has {len(values)} terms instead of {len(places)}")
    evaluate = _VALUES.get(int(kind))
    if evaluate is None or (evaluate is not polyval2d and not (high_x > low_x and high_y > low_y)):
        raise ValueError(f"a surface of IRAF is of kind {kind}")
    terms = np.zeros((nx, ny))
    terms[tuple(np.transpose(places))] = values
    order = max(1, int(np.argwhere(terms).sum(axis=1).max(initial=1)))
    if order > _MAX_ORDER:
        raise ValueError(f"a surface of IRAF has terms of order {order}")

    def at(xi: FloatArray, eta: FloatArray) -> FloatArray:
        if evaluate is not polyval2d:
            xi, eta = (2 * xi - low_x - high_x) / (high_x - low_x), (2 * eta - low_y - high_y) / (high_y - low_y)
        return np.asarray(evaluate(xi, eta, terms), float)

    return order, at


def _is_kept(i: int, j: int, order: int, cross: int) -> bool:
    """Return whether a surface has a term of these orders: all, a triangle, or no mixed ones."""
    return cross == _FULL_CROSS or (i + j < order if cross == _HALF_CROSS else i == 0 or j == 0)


def _of_pixels(surfaces: list[_Surface], linear: FloatArray, reach: float) -> FloatArray:
    """Return corrections of (xi, eta) as terms (2, i, j) of u^i v^j of pixels along both axes, by a fit that is exact.

    ``linear`` (2, 2): (xi, eta) from pixels, which are taken up to ``reach`` from the reference.
    """
    order = max(own for own, _ in surfaces)
    u, v = (at.ravel() for at in np.meshgrid(*[np.linspace(-1, 1, 2 * order + 2)] * 2))
    i, j = np.array([(i, j) for i in range(order + 1) for j in range(order + 1 - i)]).T
    plane = linear @ (reach * np.stack([u, v]))
    moved = np.linalg.inv(linear) @ np.stack([at(*plane) for _, at in surfaces])
    found, *_ = np.linalg.lstsq(u[:, None] ** i * v[:, None] ** j, moved.T, rcond=None)
    terms = np.zeros((2, order + 1, order + 1))
    terms[:, i, j] = (found / reach ** (i + j)[:, None]).T
    return terms
