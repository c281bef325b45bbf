"""Filters and zero points: warnings where images of different bands or calibrations are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skymatch_cli.choices import WarningName
from skymatch_cli.images.formats.keywords import Keywords
from skymatch_cli.model import SkyWarning

_FILTERS = (
    *("FILTER", "FILTER1", "FILTER2", "PUPIL", "FILTNAM1", "FILTNAM2", "BAND", "CHNLNUM", "CHANNEL", "WAVELNTH"),
    *("INSFILTE", "INSFILT", "FILTERS"),
)
_ZERO_POINTS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPT", "PHOTZP", "ZPT")
_SAME_MAG = 0.02  # zero points are not known better
_LISTED = 4


@dataclass(frozen=True, slots=True)
class BandKeywords:
    """The filter and zero-point keywords that an image has."""

    filters: Mapping[str, str] = field(default_factory=dict)
    zero_points: Mapping[str, float] = field(default_factory=dict)


def band_keywords(keywords: Keywords, *, with_zero_point: bool) -> BandKeywords:
    """Read the keywords; zero points are ignored where fluxes are scaled (``--flux-scale``)."""
    filters = {key: text for key in _FILTERS if (text := keywords.text(key))}
    zero_points = {key: keywords.number(key) for key in _ZERO_POINTS} if with_zero_point else {}
    return BandKeywords(filters, {key: value for key, value in zero_points.items() if math.isfinite(value)})


def band_warnings(bands: Sequence[tuple[str, BandKeywords]], split: Sequence[str] = ()) -> tuple[SkyWarning, ...]:
    """A warning for each keyword whose values differ within a set, given (label, keywords) of every image.

    ``split`` names the set of each image; images of different sets are not compared.
    """
    sets: dict[str, list[tuple[str, BandKeywords]]] = {}
    for name, band in zip(split or [""] * len(bands), bands, strict=True):
        sets.setdefault(name, []).append(band)
    return tuple(dict.fromkeys(warning for some in sets.values() for warning in _warnings_of_one_set(some)))


def _warnings_of_one_set(bands: Sequence[tuple[str, BandKeywords]]) -> tuple[SkyWarning, ...]:
    warnings = []
    for key in _FILTERS:
        first: dict[str, str] = {}
        for label, band in bands:
            if key in band.filters:
                first.setdefault(band.filters[key], label)
        if len(first) > 1:
            listed = ", ".join(f"{value} ({label})" for value, label in list(first.items())[:_LISTED])
            listed += " …" * (len(first) > _LISTED)
            text = f"images of different {key} are compared: {listed}; see --split-by {key}"
            warnings.append(SkyWarning(WarningName.FILTERS, text))
    for key in _ZERO_POINTS:
        values = [(band.zero_points[key], label) for label, band in bands if key in band.zero_points]
        if values and max(values)[0] - min(values)[0] > _SAME_MAG:
            ends = " to ".join(f"{value:g} ({label})" for value, label in (min(values), max(values)))
            apart = max(values)[0] - min(values)[0]
            text = f"images of different {key} are compared: {ends}"
            warnings.append(SkyWarning(WarningName.ZERO_POINTS, text, apart, "mag"))
    return tuple(warnings)
