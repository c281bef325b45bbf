"""Headers of the images -> ImageInfo: shape, WCS, unit, group, recorded sky, and where the pixels are."""

from __future__ import annotations

import math
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, groupby
from typing import Any, NamedTuple, cast

from skymatch_cli.choices import Units, WarningName, WcsSource
from skymatch_cli.errors import InputError, Problem, caught
from skymatch_cli.images.alike import (
    channels_of,
    doubts_between,
    filters_of,
    group_of,
    observer_of,
    problems_between,
    zero_points_of,
)
from skymatch_cli.images.copies import copy_warnings, kind_warnings
from skymatch_cli.images.dq import check_dqbits
from skymatch_cli.images.formats import asdffile
from skymatch_cli.images.formats.fitsfile import FitsFile, parse_header
from skymatch_cli.images.formats.header import CardHeader, Keywords, as_number
from skymatch_cli.images.formats.packing import open_unpacked
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.hdus import PlaneFinder
from skymatch_cli.images.inputs import Inputs
from skymatch_cli.images.known import ImageHeader, Known
from skymatch_cli.images.skycards import SUBTRACTED
from skymatch_cli.images.skystate import SkyState, read_state
from skymatch_cli.images.units import UnitFacts, area_warnings, comparison_scales
from skymatch_cli.model import CelestialWcs, Container, ImageInfo, ImageRef, Part, Section, SkyWarning
from skymatch_cli.run.tasks import NO_PROGRESS, Progress, run_apart
from skymatch_cli.settings import Settings
from skymatch_cli.sky.celestial import refers_to_tables, wcs_of_cards
from skymatch_cli.sky.footprint import footprint
from skymatch_cli.sky.sphere import pixel_area_arcsec2, pixel_area_ratio

_PLACED = "images of JWST are placed by the approximation in their headers"
_CALIBRATION = re.compile("[a-z]*(bias|zero|dark|flat)(s|field|frame)?")  # also domeflat, masterdark
_CALIBRATED = re.compile("light.*|object|science|.*ed")  # and so is what is dark-subtracted
_GAINS = ("ATODGAIN", "EGAIN", "GAIN")  # GAIN of amateur cameras is a setting: theirs is EGAIN
# The first one is that of FITS Standard 4.0; JWST, which has it, gives EXPOSURE a number.
_EXPTIMES = ("XPOSURE", "EXPOSURE", "LIVETIME", "ONTIME", "EXP_TIME", "TTIME", "ELAPTIME")
_DEFAULT_EXPTIME = Settings().exptime_key
_PIXELS_A_HEADER = 50_000  # that are read in the time that a header takes


class Infos(NamedTuple):
    """Usable images, problems of the others, warnings, and the header of each image."""

    infos: tuple[ImageInfo, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[SkyWarning, ...]
    headers: tuple[ImageHeader, ...]


def read_infos(
    inputs: Inputs, settings: Settings, *, need_wcs: bool, progress: Progress = NO_PROGRESS, known: Known | None = None
) -> Infos:
    """Read the headers of the images, each file once, and trace their footprints.

    Every image is either among ``infos`` (in the order of the inputs) or has a problem; images whose footprint can't be
    traced are among them. UsageError if an option can't be right for any image (an unknown DQ name, a bad template);
    InputError if no image has a keyword of ``--split-by``.

    Without ``need_wcs`` no WCS is read and no footprint traced; with it an image without a celestial WCS is refused.
    ``known`` are headers that need not be read.
    """
    check_dqbits(settings.dqbits)
    found: list[ImageHeader] = []
    problems: list[Problem] = []
    progress.stage("headers", len(inputs.refs))
    for item in _read_files(inputs, _HeaderReader(settings, need_wcs=need_wcs), known, settings.jobs):
        progress.advance()
        if isinstance(item, ImageHeader):
            found.append(item)
        else:
            problems += item.problems
    if found and settings.split_by and all(set(read.facts.split.split(", ")) == {"none"} for read in found):
        raise InputError.at(f"--split-by {settings.split_by}", "no image has this keyword", "look at a header")
    scales = comparison_scales([read.facts for read in found], units=settings.units, exptime_key=settings.exptime_key)
    apart = problems_between(found)
    usable = [i for i in range(len(found)) if i not in scales.problems and i not in apart]
    infos = tuple(
        replace(
            found[i].info,
            to_comparison=float(scales.factor[i]),
            comparison_unit=scales.unit,
            notes=(*found[i].info.notes, *scales.notes),
        )
        for i in usable
    )
    problems += scales.problems.values()
    problems += apart.values()
    divided = [found[i].info for i in scales.by_area]
    areas = area_warnings([(i.ref.label, pixel_area_ratio(i.wcs)) for i in divided if i.wcs is not None])
    own = (warning for read in found for warning in read.warnings)
    copies = (*copy_warnings(infos), *kind_warnings(infos))
    return Infos(
        infos,
        tuple(dict.fromkeys(problems)),
        tuple(dict.fromkeys(chain(own, scales.warnings, areas, doubts_between(found), copies))),
        tuple(found[i] for i in usable),
    )


def _read_files(
    inputs: Inputs, reader: _HeaderReader, known: Known | None, jobs: int
) -> Iterator[ImageHeader | InputError]:
    """Yield the header of each image, or its error, in the order of the inputs; known headers are not read again."""
    spelling = {ref.path: ref.file for ref in reversed(inputs.refs)}
    groups = [(path, list(refs)) for path, refs in groupby(inputs.refs, key=lambda ref: ref.path)]
    kept = [
        None if known is None else known.images(refs, inputs.files[p], inputs.real[p], spelling[p])
        for p, refs in groups
    ]
    new = [
        (refs, inputs.files[path], spelling[path])
        for (path, refs), images in zip(groups, kept, strict=True)
        if images is None
    ]
    # The first file is read here, so that its imports are not repeated in every process.
    first = [reader.read_file(named) for named in new[:1]]
    n_pixels = _PIXELS_A_HEADER * sum(len({ref.hdu for ref in refs}) for refs, *_ in new)
    with closing(run_apart(reader.read_file, new[1:], jobs=jobs, n_pixels=n_pixels)) as later:
        read = chain(first, later)
        for images in kept:
            yield from next(read) if images is None else images


class _HeaderReader:
    def __init__(self, settings: Settings, *, need_wcs: bool) -> None:
        self._settings = settings
        self._need_wcs = need_wcs
        self._planes = PlaneFinder(settings)

    def read_file(self, named: tuple[Sequence[ImageRef], FitsFile, str]) -> list[ImageHeader | InputError]:
        """Read the images of one file, given with its spelling; an InputError for each that can't be used."""
        refs, file, spelling = named
        try:
            with open_unpacked(file.path, file.container) as stream:
                headers = {index: parse_header(stream, file.hdus[index]) for index in {0, *(r.hdu for r in refs)}}
                source = Source(file, stream)
                parts = [(key, list(own)) for key, own in groupby(refs, key=_without_plane)]
                states = [caught(read_state, source, image, self._settings.sky_keyword) for image, _ in parts]
        except (OSError, EOFError, zlib.error, ValueError) as error:
            return [InputError.at(refs[0].file, f"its header can't be read: {error}")]
        found: list[ImageHeader | InputError] = []
        for (image, own), state in zip(parts, states, strict=True):
            keywords = Keywords(image.label, headers[image.hdu], headers[0])
            if isinstance(state, InputError):
                found.append(state)
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of non-standard cards
                read = caught(self._read_image, image, file, keywords, state, spelling)
            found += [read] if isinstance(read, InputError) else [_of_part(read, ref, state) for ref in own]
        return found

    def _read_image(
        self, ref: ImageRef, file: FitsFile, keywords: Keywords, state: SkyState, spelling: str
    ) -> ImageHeader:
        source, notes, unused = self._planes.find(ref, file, keywords.text("TELESCOP"))
        shape = source.science.shape
        exposed, told = _exposed(keywords, shape)
        notes += told
        wcs, doubt = self._wcs(ref, file, keywords.own, shape) if self._need_wcs else (None, ())
        if (part := ref.section) is not None:
            shape = part.shape
            wcs = None if wcs is None else replace(cast("Any", wcs), shape=shape, corner=(part.x0, part.y0))
        flux_scale, by = self._settings.flux_scale, self._settings.split_by
        bunit = keywords.text("BUNIT") or self._settings.bunit or ""
        _refuse_unlinear(keywords)
        _refuse_calibrations(keywords)
        facts = UnitFacts(
            label=ref.label,
            bunit=f"{bunit} / s" if bunit and self._settings.exposure_map else bunit,
            beam_arcsec2=_beam_arcsec2(keywords),
            gain=next((g for key in _GAINS if math.isfinite(g := keywords.number(key))), math.nan),
            split="" if by is None else ", ".join(keywords.text(key.strip()) or "none" for key in by.split(",")),
            area_arcsec2=math.nan if wcs is None else pixel_area_arcsec2(wcs),
            exptime_s=math.nan if self._settings.exposure_map else self._exptime_s(keywords),
            group=group_of(ref, keywords, self._settings.group_by, spelling),
            flux_scale=1.0 if flux_scale is None else keywords.required_number(flux_scale, "--flux-scale"),
        )
        doubts = (*_doubts(keywords), *doubt)
        # How the pixels were stored, if they were integers before this program subtracted their sky.
        taken = state.original if state.original.is_integer and state.shift and not state.base else None
        info = ImageInfo(
            ref=ref,
            shape=shape,
            wcs=wcs,
            pixel_area_arcsec2=facts.area_arcsec2,
            unit=facts.bunit,
            group=facts.group,
            split=facts.split,
            recorded=state.recorded(ref.part),
            source=replace(source, original=taken, exposed=exposed),
            notes=notes if wcs is None else (*notes, *wcs.notes),
        )
        hdu = file.hdus[ref.hdu]
        return ImageHeader(
            info,
            facts,
            filters_of(keywords),
            zero_points_of(keywords) if flux_scale is None else {},
            doubts,
            None if wcs is None else caught(footprint, wcs, ref.label),
            of_file=facts.group == spelling,
            observer=observer_of(keywords, wcs),
            unused=unused,
            channels=None if hdu.cube_axis is None else channels_of(keywords, hdu.cube_axis, hdu.n_planes),
        )

    def _exptime_s(self, keywords: Keywords) -> float:
        """Return the exposure time; a keyword chosen by the user must exist, the default one may be missing."""
        key = self._settings.exptime_key
        if key == _DEFAULT_EXPTIME or self._settings.units == Units.AS_IS:
            time = as_number(next(iter(keywords.text(key).split()), None))  # some write its unit behind it
            others = (keywords.value(other) for other in _EXPTIMES if not math.isfinite(time))  # of other observatories
            return next((float(t) for t in others if isinstance(t, int | float) and not isinstance(t, bool)), time)
        return keywords.required_number(key, "--exptime-key")

    def _wcs(
        self, ref: ImageRef, file: FitsFile, header: CardHeader, shape: tuple[int, int]
    ) -> tuple[CelestialWcs, tuple[SkyWarning, ...]]:
        """The WCS, and warnings where it is not the best one of the file."""
        if file.container is Container.ASDF:
            if self._settings.wcs == WcsSource.HEADER:
                what = "--wcs header: the file has no WCS of FITS keywords, only a GWCS"
                raise InputError.at(ref.label, what, "leave --wcs out")
            from skymatch_cli.images.formats.gwcs import roman_wcs

            return roman_wcs(file, shape, ref.label), ()
        doubt = ""
        if self._settings.wcs == WcsSource.AUTO and file.asdf_extension is not None:
            if missing := asdffile.missing_package():
                doubt = f"their GWCS needs the package {missing} ({asdffile.HINT})"
            else:
                from skymatch_cli.images.formats.gwcs import UnknownWcsError, jwst_wcs

                found = caught(jwst_wcs, file, shape, ref.label)
                if isinstance(found, UnknownWcsError) and file.hdus[ref.hdu].celestial:
                    doubt = f"{found.problems[0].what} ({found.problems[0].hint})"
                elif isinstance(found, InputError):
                    raise found
                elif found is not None:
                    return found, ()
        warned = (SkyWarning(WarningName.WCS, f"{_PLACED}: {doubt}"),) if doubt else ()
        return self._header_wcs(ref, file, header, shape), warned

    def _header_wcs(self, ref: ImageRef, file: FitsFile, header: CardHeader, shape: tuple[int, int]) -> CelestialWcs:
        """The WCS of the header; the file is opened by astropy only where that refers to lookup tables in it."""
        if not file.hdus[ref.hdu].celestial:
            raise InputError.at(ref.label, *file.hdus[ref.hdu].why_no_wcs)
        cube = file.hdus[ref.hdu].cube_axis is not None
        if not refers_to_tables(text := header.text):
            return wcs_of_cards(text, shape, where=ref.label, cube=cube)
        from astropy.io import fits

        try:
            opened = fits.open(open_unpacked(file.path, file.container))
        except Exception as error:  # noqa: BLE001 - on damaged headers astropy raises errors of every kind
            raise InputError.at(ref.label, f"the tables of its WCS can't be read: {error}") from None
        with opened:
            return wcs_of_cards(text, shape, opened, ref.label, cube=cube)


def _without_plane(ref: ImageRef) -> ImageRef:
    """Return the image without its plane: the planes of a cube share one header."""
    return ref if ref.part.plane is None else replace(ref, part=replace(ref.part, plane=None))


def _of_part(header: ImageHeader, ref: ImageRef, state: SkyState) -> ImageHeader:
    """Return the header of a part of an HDU; each plane of a cube is a set and a group of its own."""
    plane, info = ref.part.plane, header.info
    if plane is None:
        return header
    own = replace(
        info,
        ref=ref,
        group=f"{info.group}{ref.part}",
        split=f"{info.split}{Part(plane)} of {info.source.science.n_planes}",
        recorded=state.recorded(Part(plane)),
        source=info.source.at(plane),
    )
    return replace(header, info=own, of_file=False)


def _refuse_unlinear(keywords: Keywords) -> None:
    """Refuse pixels that are arcsinh magnitudes: BSOFTEN and BOFFSET of Pan-STARRS, B of SDSS luptitudes."""
    if math.isfinite(keywords.number("BSOFTEN")) and math.isfinite(keywords.number("BOFFSET")):
        what = "its pixels are arcsinh magnitudes (BSOFTEN, BOFFSET), which are not linear in flux"
        hint = "convert them: flux = BOFFSET + BSOFTEN * 2 * sinh(pixel * ln(10) / 2.5), and remove the two keywords"
        raise InputError.at(keywords.where, what, hint)


def _refuse_calibrations(keywords: Keywords) -> None:
    """Refuse frames that saw no sky, by what they call themselves: they would be matched to the others all the same."""
    for key in ("IMAGETYP", "OBSTYPE", "ESO DPR TYPE"):
        words = re.findall("[a-z]+", keywords.text(key).lower())
        if any(map(_CALIBRATION.fullmatch, words)) and not any(map(_CALIBRATED.fullmatch, words)):
            what = f"is a calibration frame: its {key} is {keywords.text(key)!r}"
            raise InputError.at(keywords.where, what, "leave it out, or correct the keyword")


def _beam_arcsec2(keywords: Keywords) -> float:
    """The area of the beam; NaN where its axes (in degrees) are not given."""
    major, minor = keywords.number("BMAJ"), keywords.number("BMIN")
    return math.pi / (4 * math.log(2)) * major * minor * 3600.0**2 if major > 0 and minor > 0 else math.nan


def _exposed(keywords: Keywords, shape: tuple[int, int]) -> tuple[Section | None, tuple[str, ...]]:
    """The part of a CCD that saw the sky, and a note; None where no overscan lies beside it.

    A section that is not within the image, or is less than half of it, is that of the image before it was trimmed or
    resampled.
    """
    for key in ("DATASEC", "TRIMSEC", "SCIPIXS"):  # SCIPIXS of TESS
        text = str(keywords.own.value(key)).strip()
        try:
            section = Section.of(text.removeprefix("[").removesuffix("]"), shape)
        except ValueError:
            continue
        if not section.is_whole and 2 * math.prod(section.shape) >= math.prod(shape):
            return section, (f"pixels outside of {key} {section} are left out",)
    return None, ()


def _doubts(keywords: Keywords) -> tuple[SkyWarning, ...]:
    """Warn where BKGSUB is not a logical value: another program gives it another meaning."""
    flag = keywords.own.value(SUBTRACTED)
    if flag is None or isinstance(flag, bool):
        return ()
    text = f"{keywords.where}: {SUBTRACTED} is {flag!r}, not T or F: taken as not subtracted"
    return (SkyWarning(WarningName.KEYWORD, text),)
