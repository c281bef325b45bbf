"""Images of a run beside each other, by their headers: which share a sky, can not be compared, or are doubtful.

The chips of a file, and the detectors of an exposure, share a sky. Coordinates of another kind, another observer of the
Sun, planes of a cube elsewhere on its third axis can't be compared; where frames, filters or zero points differ there
are warnings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import InputError, Problem, first_names
from skymatch_cli.images.formats.header import Keywords
from skymatch_cli.model import CelestialWcs, ImageRef, SkyWarning

if TYPE_CHECKING:
    from skymatch_cli.images.known import ImageHeader
    from skymatch_cli.sky.frames import SkyFrame

AUTO, FILE = "auto", "file"

# Keywords that identify an exposure, by TELESCOP; the filter keeps detectors of two wavelengths apart.
_EXPOSURES = {
    "JWST": ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE"),
    "ROMAN": ("PROGRAM", "EXECPLAN", "PASS", "SEGMENT", "OBSERVTN", "VISIT", "EXPOSURE"),
}
_BANDS = ("FILTER", "PUPIL")


def group_of(ref: ImageRef, keywords: Keywords, by: str, spelling: str) -> str:
    """Return the group of an image; InputError if a keyword is missing.

    ``by``: ``auto`` (JWST and Roman by exposure, others by file), ``file``, ``exposure``, ``none``, or header keywords
    separated by commas. ``spelling`` is the name by which the file is first called.
    """
    match by:
        case "file":
            return spelling
        case "none":
            return ref.label
        case "auto" if ref.section is not None:
            return ref.label  # amplifiers and fields of one detector have skies of their own
        case "auto":
            return ref.group or exposure_of(keywords) or spelling
        case "exposure":
            found = ref.group or exposure_of(keywords)
            if not found:
                known = " and ".join(_EXPOSURES)
                raise InputError.at(ref.label, f"its exposure is not known (by headers of {known})", "see --group-by")
            return found
    keys = [key.strip() for key in by.split(",")]
    values = {key: keywords.text(key) for key in keys}
    missing = [key for key in keys if not values[key]]
    if missing:
        raise InputError.at(ref.label, f"there is no {missing[0]} in its header", "see --group-by")
    return ",".join(values.values())


def exposure_of(keywords: Keywords) -> str:
    """Return the exposure of an image and its filter; "" if the header names none."""
    keys = _EXPOSURES.get(keywords.text("TELESCOP").upper(), ())
    values = [keywords.text(key) for key in keys]
    if not values or not all(values):
        return ""
    bands = [band for key in _BANDS if (band := keywords.text(key))]
    return " ".join(["-".join(values), *bands])


_AU_M = 149_597_870_700.0
_SAME_PLACE = 0.02  # of the distance to the Sun: a shift of 0.02 solar radii. SOHO and SDO are 0.01 apart.
_MOST_APART = 0.25  # of the step from plane to plane
_OBSERVER = ("HGLN_OBS", "HGLT_OBS", "DSUN_OBS")
_FILTERS = (
    *("FILTER", "FILTER1", "FILTER2", "PUPIL", "FILTNAM1", "FILTNAM2", "BAND", "CHNLNUM", "CHANNEL", "WAVELNTH"),
    *("INSFILTE", "INSFILT", "FILTERS", "BAYERPAT", "FILTER01", "FILTER02", "ESO INS FILT1 NAME"),
)
_ZERO_POINTS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPT", "PHOTZP", "ZPT")
_FLUX_SCALE = "FLXSCALE"
_SAME_MAG = 0.02  # zero points are not known better
_LISTED = 4

Channels = tuple[str, int, float, float]
"""CTYPE and length of the third axis of a cube, the value of its first plane there and the step to the next, or NaN."""


def filters_of(keywords: Keywords) -> dict[str, str]:
    """Read the keywords of filters that an image has."""
    return {key: text for key in _FILTERS if (text := keywords.text(key))}


def zero_points_of(keywords: Keywords) -> dict[str, float]:
    """Read the keywords of zero points that an image has, FLXSCALE of SCAMP and SWarp in magnitudes."""
    scale = keywords.number(_FLUX_SCALE)
    own = {_FLUX_SCALE: -2.5 * math.log10(scale)} if scale > 0 else {}
    return own | {key: value for key in _ZERO_POINTS if math.isfinite(value := keywords.number(key))}


def channels_of(keywords: Keywords, axis: str, n_planes: int) -> Channels:
    """Read the linear WCS of the third axis of a cube."""
    step = keywords.number("CD3_3")
    if math.isnan(step):
        scale = keywords.number("PC3_3")
        step = keywords.number("CDELT3") * (1.0 if math.isnan(scale) else scale)
    reference = keywords.number("CRPIX3")
    start = keywords.number("CRVAL3") + (1.0 - (0.0 if math.isnan(reference) else reference)) * step
    return axis, n_planes, start, step


def observer_of(keywords: Keywords, wcs: CelestialWcs | None) -> tuple[float, ...]:
    """Return the `_OBSERVER` keywords of a helioprojective image, NaN for missing ones; () for other images."""
    frame = getattr(wcs, "frame", None)
    return () if frame is None or frame.name != "HPLN" else tuple(map(keywords.number, _OBSERVER))


def problems_between(found: Sequence[ImageHeader]) -> dict[int, Problem]:
    """Find images, by index, that can't be compared with the first one of their set."""
    return _frame_problems(found) | _observer_problems(found) | _channel_problems(found)


def doubts_between(found: Sequence[ImageHeader]) -> tuple[SkyWarning, ...]:
    """Warn where frames, observers, filters or zero points of images differ that are compared."""
    sets: dict[str, list[ImageHeader]] = {}
    for read in found:
        sets.setdefault(read.facts.split, []).append(read)
    kinds = (_observer_warnings, _filter_warnings, _colour_warnings, _zero_point_warnings)
    of_sets = (warning for own in sets.values() for warnings in kinds for warning in warnings(own))
    return (*_frame_warnings(found), *_unused_warnings(found), *dict.fromkeys(of_sets))


def _unused_warnings(found: Sequence[ImageHeader]) -> tuple[SkyWarning, ...]:
    """Name images with flags or weights, in their file or in the list, that are not used."""
    without = [read for read in found if read.unused]
    if not without:
        return ()
    text = f"flags or weights that are not used: {without[0].facts.label}: {without[0].unused}"
    more = f"; and of {len(without) - 1} more" if len(without) > 1 else ""
    return (SkyWarning(WarningName.FLAGS, text + more),)


def _frame_problems(found: Sequence[ImageHeader]) -> dict[int, Problem]:
    """Find images whose coordinates (Sun, planet or stars) are of another kind than those of the first."""
    frames = [(read.info.ref.label, getattr(read.info.wcs, "frame", None)) for read in found]
    known = [(label, frame) for label, frame in frames if frame is not None]
    if not any(frame.on_a_body for _, frame in known):
        return {}
    other, first = known[0]
    what = f"its coordinates ({{}}) can't be compared with those of {other} ({first})"
    hint = "match images of one kind of coordinates at a time"
    return {
        i: Problem(label, what.format(frame), hint)
        for i, (label, frame) in enumerate(frames)
        if frame is not None and frame != first
    }


def _observer_problems(found: Sequence[ImageHeader]) -> dict[int, Problem]:
    """Find helioprojective images whose observer is elsewhere: the same coordinates are other places on the Sun."""
    first: dict[str, tuple[str, tuple[float, ...]]] = {}
    problems = {}
    for i, read in enumerate(found):
        if not (place := _place_m(read.observer)):
            continue
        other, there = first.setdefault(read.facts.split, (read.facts.label, place))
        apart, nearer = math.dist(place, there), min(math.hypot(*place), math.hypot(*there))
        if apart > _SAME_PLACE * nearer:
            what = f"its observer is {apart / _AU_M:.2g} au from that of {other} (HGLN_OBS, HGLT_OBS, DSUN_OBS)"
            hint = "match the images of one observer at a time, or see --split-by"
            problems[i] = Problem(read.facts.label, f"{what}: they see the Sun from different sides", hint)
    return problems


def _place_m(observer: tuple[float, ...]) -> tuple[float, ...]:
    """Return (x, y, z) from the Sun along Stonyhurst's axes; () where longitude or latitude is not known."""
    if not observer or not all(map(math.isfinite, observer[:2])):
        return ()
    lon, lat = map(math.radians, observer[:2])
    r = observer[2] if observer[2] > 0 else _AU_M
    return r * math.cos(lat) * math.cos(lon), r * math.cos(lat) * math.sin(lon), r * math.sin(lat)


def _observer_warnings(found: Sequence[ImageHeader]) -> Iterator[SkyWarning]:
    """Warn where some helioprojective images of a set say where their observer is, and others don't."""
    on_sun = [read for read in found if read.observer]
    for k, key in enumerate(_OBSERVER):
        known = [read.facts.label for read in on_sun if math.isfinite(read.observer[k])]
        without = [read.facts.label for read in on_sun if not math.isfinite(read.observer[k])]
        if known and without:
            taken = "taken as 1 au" if key == "DSUN_OBS" else "their observers are taken to be at one place"
            text = f"{key} is missing in {first_names(without)}, but not in {first_names(known)}: {taken}"
            yield SkyWarning(WarningName.WCS, text)


def _channel_problems(found: Sequence[ImageHeader]) -> dict[int, Problem]:
    """Find planes of cubes that lie elsewhere than those of the first cube with the same number of planes."""
    first: dict[int, tuple[str, Channels]] = {}
    problems: dict[str, Problem] = {}
    for read in found:
        if read.channels is None or read.info.ref.part.plane != 0:
            continue
        label, (axis, n_planes, start, step) = read.info.ref.hdu_label, read.channels
        other, (its_axis, _, its_start, its_step) = first.setdefault(n_planes, (label, read.channels))
        apart = max(abs(start - its_start), abs(start - its_start + (n_planes - 1) * (step - its_step)))
        if axis != its_axis or apart > _MOST_APART * abs(its_step):
            what = f"the positions of its planes along {axis or 'the third axis'} differ from those of {other}"
            problems[label] = Problem(label, what, "match cubes of the same planes, resampled alike")
    labels = [read.info.ref.hdu_label for read in found]
    return {i: problems[label] for i, label in enumerate(labels) if label in problems}


def _frame_warnings(found: Sequence[ImageHeader]) -> tuple[SkyWarning, ...]:
    """Warn where frames of unlike equinoxes are compared: often the date of an observation is taken for one."""
    first: dict[SkyFrame, str] = {}
    for read in found:
        if (frame := getattr(read.info.wcs, "frame", None)) is not None:
            first.setdefault(frame, read.info.ref.label)
    if len(first) < 2 or all(frame.rigid and frame.equinox in {None, 2000.0} for frame in first):
        return ()
    listed = first_names([f"{frame} ({label})" for frame, label in first.items()])
    text = f"positions of different frames are compared: {listed}; EPOCH without EQUINOX counts as the equinox"
    return (SkyWarning(WarningName.WCS, text),)


def _filter_warnings(found: Sequence[ImageHeader]) -> list[SkyWarning]:
    warnings = []
    for key in _FILTERS:
        first: dict[str, str] = {}
        for read in found:
            if key in read.filters:
                first.setdefault(read.filters[key], read.facts.label)
        if len(first) > 1:
            listed = ", ".join(f"{value} ({label})" for value, label in list(first.items())[:_LISTED])
            listed += " …" * (len(first) > _LISTED)
            text = f"images of different {key} are compared: {listed}; see --split-by {key}"
            warnings.append(SkyWarning(WarningName.FILTERS, text))
    return warnings


def _colour_warnings(found: Sequence[ImageHeader]) -> list[SkyWarning]:
    """Warn of raw frames of colour cameras (BAYERPAT is RGGB or the like)."""
    flat = (read for read in found if read.info.ref.part.plane is None)
    raw = [r.facts.label for r in flat if set("RG") <= set(r.filters.get("BAYERPAT", "").upper())]
    if not raw:
        return []
    text = "red, green and blue pixels of one frame have skies of their own, and no one level suits all of them"
    hint = "debayer the frames first, and match their colour planes"
    return [SkyWarning(WarningName.FILTERS, f"{first_names(raw)}: {text} (BAYERPAT); {hint}")]


def _zero_point_warnings(found: Sequence[ImageHeader]) -> list[SkyWarning]:
    warnings = []
    for key in (*_ZERO_POINTS, _FLUX_SCALE):
        values = [(read.zero_points[key], read.facts.label) for read in found if key in read.zero_points]
        if values and (apart := max(values)[0] - min(values)[0]) > _SAME_MAG:
            ends = " to ".join(f"{value:g} ({label})" for value, label in (min(values), max(values)))
            text = f"images of different {key} are compared: {ends}"
            if key == _FLUX_SCALE:
                text = (
                    f"images of fluxes that differ by {apart:.3g} mag are compared; --flux-scale FLXSCALE scales them"
                )
            warnings.append(SkyWarning(WarningName.ZERO_POINTS, text, apart, "mag"))
    return warnings
