"""BUNIT, exposure times and pixel areas -> the factor that brings each image to one comparison unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import Problem, first_names
from skymatch_cli.images.bunit import Bunit, understand
from skymatch_cli.model import BoolArray, FloatArray, SkyWarning

_SAME_AREA = 1.2  # flat-fielded chips of one camera differ by less; different cameras by more
_SAME_EXPOSURE = 1e-6  # relative
_SAME_GAIN = 0.02  # relative: amplifiers of one camera differ by less after its flat field
_AS_IS = "--units as-is compares raw numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFacts:
    """Header values of one image that define its unit.

    ``area_arcsec2`` is the nominal area of its pixels, ``exptime_s`` its exposure time, ``beam_arcsec2`` the area of
    its beam and ``gain`` its electrons per count (NaN where unknown); ``split`` tells sets that are not compared;
    ``flux_scale`` is the value of the ``--flux-scale`` keyword (1 where none is asked for).
    """

    label: str
    bunit: str = ""
    beam_arcsec2: float = math.nan
    gain: float = math.nan
    split: str = ""
    area_arcsec2: float = math.nan
    exptime_s: float = math.nan
    group: str = ""
    flux_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Scales:
    """How the images are brought to one unit."""

    factor: FloatArray  # (n,): value in the comparison unit = value * factor; NaN for an image that has a problem
    unit: str  # the comparison unit
    notes: tuple[str, ...]  # what was done, for the report
    warnings: tuple[SkyWarning, ...]
    problems: Mapping[int, Problem]  # the images that can't be brought to that unit, by index
    by_area: tuple[int, ...] = ()  # the images whose values are divided by the area of a pixel


def comparison_scales(facts: Sequence[UnitFacts], *, units: str = "auto", exptime_key: str = "EXPTIME") -> Scales:
    """Find the factors to one comparison unit, set by set (see `UnitFacts.split`); the first set gives the unit."""
    members: dict[str, list[int]] = {}
    for i, f in enumerate(facts):
        members.setdefault(f.split, []).append(i)
    sets = list(members.values()) or [[]]
    found = [scales_of_one_set([facts[i] for i in own], units=units, exptime_key=exptime_key) for own in sets]
    factor = np.empty(len(facts))
    each = list(zip(sets, found, strict=True))
    for own, scales in each:
        factor[own] = scales.factor
    return Scales(
        factor=factor,
        unit=found[0].unit if len({scales.unit for scales in found}) == 1 else "",
        notes=tuple(dict.fromkeys(note for scales in found for note in scales.notes)),
        warnings=tuple(dict.fromkeys(warning for scales in found for warning in scales.warnings)),
        problems={own[k]: problem for own, scales in each for k, problem in scales.problems.items()},
        by_area=tuple(own[k] for own, scales in each for k in scales.by_area),
    )


def scales_of_one_set(facts: Sequence[UnitFacts], *, units: str = "auto", exptime_key: str = "EXPTIME") -> Scales:
    """Find the factors to one comparison unit.

    Numbers per pixel (counts, flux densities) are surface brightness already within one camera, whose
    flat field made them so; only between groups whose nominal pixel areas differ by more than 20 % are
    they divided by that area. Counts are divided by the exposure time where it differs, or where they
    meet rates. Numbers per solid angle are converted and nothing else. A missing BUNIT is taken as it is.
    """
    flux_scale = np.array([f.flux_scale for f in facts], np.float64)
    if units == "as-is" or not facts:
        spelled = {f.bunit for f in facts}
        return Scales(flux_scale, spelled.pop() if len(spelled) == 1 else "", (), (), {})
    area = _cluster_areas(facts)
    exptime = np.array([f.exptime_s for f in facts], np.float64)
    beam = np.array([f.beam_arcsec2 for f in facts], np.float64)
    meanings = {f.bunit: understand(f.bunit) for f in facts}
    is_count, is_rate, per_pixel, per_area, per_beam = (
        np.array([getattr(meanings[f.bunit], name) for f in facts], np.bool_)
        for name in ("is_count", "is_rate", "per_pixel", "per_area", "per_beam")
    )
    by_beam = per_beam & (not per_beam.all() or _differ(beam[per_beam]))
    by_time = is_count & (bool(is_rate.any()) or _differ(exptime[is_count]))
    by_area = per_pixel & (bool(per_area.any()) or _several(area[per_pixel]))
    reference = next((f for f in facts if f.bunit), facts[0])
    divisions = {"by_time": bool(by_time.any()), "by_area": bool(by_area.any() or by_beam.any())}
    divided = {text: _divided(meaning, **divisions) for text, meaning in meanings.items()}
    conversion = {text: _conversion(text, reference.bunit, divided) for text in divided}
    factor = flux_scale * np.array([conversion[f.bunit] for f in facts], np.float64)
    unknown = np.isnan(factor)
    problems = _problems(facts, meanings, unknown, reference, by_time=by_time, by_beam=by_beam, exptime_key=exptime_key)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor[by_time] /= exptime[by_time]
        factor[by_area] /= area[by_area]
        factor[by_beam] /= beam[by_beam]
    factor[list(problems)] = np.nan
    target = divided[reference.bunit]
    return Scales(
        factor=factor,
        unit=reference.bunit if target is None or not any(divisions.values()) else str(target.to_string()),
        notes=_notes(by_time, area[by_area], by_beam, exptime_key),
        warnings=_warnings(facts, meanings, area, exptime),
        problems=problems,
        by_area=tuple(np.flatnonzero(by_area).tolist()),
    )


def area_warnings(divided: Sequence[tuple[str, float]]) -> tuple[SkyWarning, ...]:
    """Say where one pixel area can't stand for all pixels of an image.

    ``divided``: labels of the images whose values are divided by the area of a pixel, and their largest area over the
    smallest.
    """
    wide = [label for label, ratio in divided if ratio > _SAME_AREA]
    if not wide:
        return ()
    differ = f"pixel areas differ by a factor of up to {max(ratio for _, ratio in divided):.3g} within an image"
    text = f"{first_names(wide, 1)}: the values are divided by one pixel area per image, but {differ}"
    return (SkyWarning(WarningName.PIXEL_AREAS, f"{text}: the skies may be wrong"),)


def _differ(values: FloatArray) -> bool:
    """Whether numbers differ; a known one differs from an unknown one (NaN)."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return False
    return len(known) < len(values) or bool(np.ptp(known) > _SAME_EXPOSURE * np.abs(known).max())


def _several(areas: FloatArray) -> bool:
    return len(set(areas.tolist())) > 1


def _cluster_areas(facts: Sequence[UnitFacts]) -> FloatArray:
    """One nominal pixel area for each image: that of its group, and the same for groups that nearly agree.

    The area of a group is the median over its images, unless they differ by more than 20 %; groups that follow one
    another in steps of less share the median of their areas. Images of unknown area take that of the first known group.
    """
    areas = [f.area_arcsec2 if 0 < f.area_arcsec2 < math.inf else math.nan for f in facts]
    members: dict[str, list[float]] = {}
    for f, area in zip(facts, areas, strict=True):
        members.setdefault(f.group, []).extend([] if math.isnan(area) else [area])
    usual = {g: median(own) for g, own in members.items() if own and max(own) <= _SAME_AREA * min(own)}
    keys = [(f.group, -1 if f.group in usual else i) for i, f in enumerate(facts)]
    known = {key: usual.get(key[0], area) for key, area in zip(keys, areas, strict=True) if not math.isnan(area)}
    order = sorted(known, key=known.__getitem__)
    values = np.array([known[key] for key in order])
    clusters = np.split(values, np.flatnonzero(values[1:] > _SAME_AREA * values[:-1]) + 1)
    nominal = dict(zip(order, (float(np.median(own)) for own in clusters for _ in own), strict=True))
    unknown = next((nominal[key] for key in keys if key in nominal), 1.0)
    return np.array([nominal.get(key, unknown) for key in keys], np.float64)


def _divided(meaning: Bunit, *, by_time: bool, by_area: bool) -> Any:
    """The astropy unit after the divisions; None where the BUNIT is not understood."""
    from astropy import units as u

    if meaning.unit is None:
        return None
    unit = meaning.unit / u.s if by_time and meaning.is_count else meaning.unit
    if by_area and meaning.per_beam:
        return unit * u.beam / u.arcsec**2
    return unit / u.arcsec**2 if by_area and meaning.per_pixel else unit


def _conversion(text: str, reference: str, divided: Mapping[str, Any]) -> float:
    """Return the factor from one BUNIT to that of the reference image, after the divisions; NaN if not convertible."""
    if text in {"", reference}:
        return 1.0
    unit, target = divided[text], divided[reference]
    if unit is None or target is None or not unit.is_equivalent(target):
        return math.nan
    try:
        factor = float(unit.to(target))
    except ArithmeticError:
        return math.nan
    return factor if 0 < factor < math.inf else math.nan


def _problems(
    facts: Sequence[UnitFacts],
    meanings: Mapping[str, Bunit],
    unconverted: BoolArray,
    reference: UnitFacts,
    *,
    by_time: BoolArray,
    by_beam: BoolArray,
    exptime_key: str,
) -> dict[int, Problem]:
    """Find the images that can't be brought to the comparison unit."""
    problems = {}
    for i, f in enumerate(facts):
        if by_beam[i] and not f.beam_arcsec2 > 0:
            what = "its values per beam can't be compared with other beams or units: BMAJ or BMIN is missing"
            hint = f"write its beam into the header; {_AS_IS}"
        elif not meanings[f.bunit].is_linear:
            what, hint = f"its BUNIT {f.bunit!r} is not linear in flux", "convert its pixels to flux first"
        elif by_time[i] and not f.exptime_s > 0:
            what = f"counts can't be divided by the exposure time: {exptime_key} is missing or not positive"
            hint = f"name the keyword with --exptime-key; {_AS_IS}"
        elif unconverted[i]:
            what = f"its BUNIT {f.bunit!r} can't be converted to {reference.bunit!r} of {reference.label}"
            hint = _AS_IS
        else:
            continue
        problems[i] = Problem(f.label, what, hint)
    return problems


def _notes(by_time: BoolArray, areas: FloatArray, by_beam: BoolArray, exptime_key: str) -> tuple[str, ...]:
    notes = []
    if by_time.any():
        notes.append(f"counts are compared after division by {exptime_key}")
    if len(areas):
        listed = ", ".join(f"{area:.4g}" for area in sorted(set(areas.tolist())))
        notes.append(f"values per pixel are compared after division by the nominal pixel area ({listed} arcsec2)")
    if by_beam.any():
        notes.append("values per beam are compared after division by the area of the beam")
    return tuple(notes)


def _warnings(
    facts: Sequence[UnitFacts], meanings: Mapping[str, Bunit], area: FloatArray, exptime: FloatArray
) -> tuple[SkyWarning, ...]:
    """Warn where images without a known unit are compared although their headers suggest different units."""
    differences = []
    if _several(area):
        differences.append("pixel scales")
    if _differ(exptime):
        differences.append("exposure times")
    warnings = []
    missing = [f.label for f in facts if not f.bunit]
    if missing and (differences or len(meanings) > 1):
        differing = " and ".join([*differences, *(["the BUNITs of others"] if len(meanings) > 1 else [])])
        text = f"{first_names(missing, 1)}: no BUNIT; values are compared as they are, although {differing} differ"
        warnings.append(SkyWarning(WarningName.UNITS, text))
    unclear = [f.label for f in facts if f.bunit and meanings[f.bunit].unit is None]
    if unclear and differences:
        although = f"values are compared as they are, although {' and '.join(differences)} differ"
        text = f"{first_names(unclear, 1)}: BUNIT is not understood; {although}"
        warnings.append(SkyWarning(WarningName.UNITS, text))
    of_converter = {  # numbers of an analogue-digital converter: counts, DN, ADU
        text: (meaning.is_count or meaning.is_rate) and "electron" not in str(meaning.unit)
        for text, meaning in meanings.items()
    }
    gains = np.array([f.gain if of_converter[f.bunit] else math.nan for f in facts])
    known = gains[np.isfinite(gains)]
    if len(known) > 1 and np.ptp(known) > _SAME_GAIN * known.max() and len({f.flux_scale for f in facts}) == 1:
        ends = " to ".join(
            f"{facts[k].label} ({gains[k]:g})" for k in (int(np.nanargmin(gains)), int(np.nanargmax(gains)))
        )
        text = f"counts of different gains are compared: {ends}; --flux-scale KEYWORD multiplies by the gain"
        warnings.append(SkyWarning(WarningName.UNITS, text))
    return tuple(warnings)
