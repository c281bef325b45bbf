"""Helioprojective images: the same coordinates are other places on the Sun for an observer elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable

from skymatch_cli.errors import Problem
from skymatch_cli.images.formats.keywords import Keywords
from skymatch_cli.model import CelestialWcs

_AU_M = 149_597_870_700.0
_SAME_PLACE = 0.02  # of the distance to the Sun: a shift of 0.02 solar radii. SOHO and SDO are 0.01 apart.


def observer_m(keywords: Keywords, wcs: CelestialWcs | None) -> tuple[float, ...]:
    """Return where the observer of a helioprojective image is, (x, y, z) from the Sun in metres.

    The axes are Stonyhurst's. Other images, and headers without HGLN_OBS and HGLT_OBS, give ().
    """
    frame = getattr(wcs, "frame", None)
    lon, lat = (math.radians(keywords.number(key)) for key in ("HGLN_OBS", "HGLT_OBS"))
    if frame is None or frame.name != "HPLN" or not (math.isfinite(lon) and math.isfinite(lat)):
        return ()
    distance = keywords.number("DSUN_OBS")
    r = distance if distance > 0 else _AU_M
    return r * math.cos(lat) * math.cos(lon), r * math.cos(lat) * math.sin(lon), r * math.sin(lat)


def observer_problems(images: Iterable[tuple[str, str, tuple[float, ...]]]) -> dict[int, Problem]:
    """Find images, by index, whose observer is elsewhere than that of the first image of their set.

    Parameters
    ----------
    images : iterable of (str, str, tuple of float)
        Label, set (images of different sets are not compared) and observer of each.
    """
    first: dict[str, tuple[str, tuple[float, ...]]] = {}
    problems = {}
    for i, (label, name, place) in enumerate(images):
        if not place:
            continue
        other, there = first.setdefault(name, (label, place))
        apart, nearer = math.dist(place, there), min(math.hypot(*place), math.hypot(*there))
        if apart > _SAME_PLACE * nearer:
            what = f"its observer is {apart / _AU_M:.2g} au from that of {other} (HGLN_OBS, HGLT_OBS, DSUN_OBS)"
            hint = "match the images of one observer at a time, or see --split-by"
            problems[i] = Problem(label, f"{what}: they see the Sun from different sides", hint)
    return problems
