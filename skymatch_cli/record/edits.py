"""Edits of HDUs that record or subtract the skies of their images; headers are read, nothing is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby

import numpy as np

from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import PixelError, format_after
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import Record, primary_cards, recorded_cards
from skymatch_cli.images.skycards import ERROR, LEVEL, MOST_PLANES, MOST_SECTIONS, parts_in
from skymatch_cli.images.skystate import SkyState, header_of_sky, original_header, read_state
from skymatch_cli.images.undocards import Written
from skymatch_cli.model import Container, FileState, FloatArray, ImageInfo, ImageRef, Part, PixelFormat
from skymatch_cli.model.section import WHOLE
from skymatch_cli.model.skyparts import NO_SKY, Skies
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.record.jwsttree import erase_background, hide_background, tree_edits
from skymatch_cli.record.precision import PixelFacts
from skymatch_cli.record.rewrite import HduEdit, PixelEdit
from skymatch_cli.settings import Settings
from skymatch_cli.version import __version__

_SAMPLES = 64
_SAMPLE_PIXELS = 1024
_OF_THE_ERROR = 1e-3
_ROUNDINGS, _WITH_TILT = 8, 64  # tilts multiply the roundings of pixels by the lever arm of the overlaps


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyUpdate:
    """The sky to be recorded in, or subtracted from, one image."""

    ref: ImageRef
    # to subtract from the original pixels, in the image's unit. Not finite: the image is left alone. With a tilt: the
    # value at the image's centre
    sky: float
    sky_err: float  # 1 sigma; not finite: not known
    method: str
    state: FileState | None = None  # the file when it was measured; None: not checked
    tilt: tuple[float, ...] | None = None  # the shape of a `SkyPlane`: (dx, dy), or more; None: the sky is a constant
    # the image as it was measured, whose good pixels say which sky is possible; None: all defined pixels do
    info: ImageInfo | None = None

    @property
    def plane(self) -> SkyPlane:
        """The sky at every pixel."""
        return SkyPlane(self.sky, *(self.tilt or ()))

    @property
    def is_finite(self) -> bool:
        """Whether the sky is finite."""
        return all(math.isfinite(value) for value in (self.sky, *(self.tilt or ())))


def sky_updates(
    infos: Sequence[ImageInfo],
    settings: Settings,
    sky: FloatArray | None = None,
    sky_err: FloatArray | None = None,
    tilt: FloatArray | None = None,
) -> list[SkyUpdate]:
    """Make the updates of the images (N,) that may be written.

    ``sky`` and ``sky_err`` (N,) are in the unit of each image (zeros by default, to ask whether the images could be
    written), ``tilt`` (N, k) is the shape of skies that are not constant. UsageError if the skies are per second of a
    map of exposure times, which no header can record.
    """
    if settings.exposure_map is not None:
        what = "--exposure-map: a sky per second can't be recorded in an image of counts"
        raise UsageError(what, "add --dry-run, or divide the images by their exposure first")
    skies, errors = ([0.0] * len(infos) if given is None else given.tolist() for given in (sky, sky_err))
    tilts = [None] * len(infos) if tilt is None else [tuple(shape) for shape in tilt.tolist()]
    return [
        SkyUpdate(
            ref=info.ref,
            sky=level,
            sky_err=err,
            method=settings.method,
            state=info.source.science.state,
            tilt=shape,
            info=info,
        )
        for info, level, err, shape in zip(infos, skies, errors, tilts, strict=True)
        if not info.ref.read_only
    ]


def record_edits(source: Source, updates: Sequence[SkyUpdate], settings: Settings) -> dict[int, HduEdit]:
    """Make the edits of the HDUs of one file, by index; unchanged HDUs have none. Pixels are read by `settled`.

    InputError if a sky can't be written into its image.
    """
    edits: dict[int, HduEdit] = {}
    for _, of_hdu in groupby(sorted(updates, key=lambda u: u.ref.hdu), key=lambda u: u.ref.hdu):
        images = list(of_hdu)
        finite = [update for update in images if update.is_finite]
        if not finite:
            continue
        ref = whole_cube(finite[0].ref)
        state_of = cache(partial(read_state, source, sky_keyword=settings.sky_keyword))
        known = [(update, state_of(whole_cube(update.ref))) for update in finite]  # planes have one state
        try:
            record, result = _record(source, images, known, settings)
        except PixelError as error:
            raise InputError.at(ref.label, f"can't be subtracted: {error}") from None
        state = known[0][1]
        edits[ref.hdu] = _edit(source, ref, record, state, result)
        if record.primary:
            before = original_header(source, 0, ref.label)
            edits[0] = HduEdit(cards=primary_cards(before, record))
            edits |= tree_edits(source, erase_background if state.written else hide_background)
    return {i: edit for i, edit in edits.items() if edit.pixels or edit.data or edit.cards != source.cards(i)}


def whole_cube(ref: ImageRef) -> ImageRef:
    """Return the cube of a plane; other images unchanged."""
    return ref if ref.part.plane is None else replace(ref, part=WHOLE)


def settled(source: Source, index: int, edit: HduEdit, facts: PixelFacts) -> HduEdit:
    """Complete the edit of an image with the facts of its pixels."""
    pixels = None if edit.pixels is None else replace(edit.pixels, result=facts.form)
    if edit.record is None or edit.before is None:
        return replace(edit, pixels=pixels)
    form = edit.record.written.form if pixels is None else replace(facts.form, blank=None)
    left = replace(edit.record.written, form=form, lost=facts.lost, digest=facts.digest)
    record = replace(edit.record, written=left)
    cards = recorded_cards(edit.before, record, tiled=source.file.hdus[index].tiled)
    return replace(edit, cards=cards, pixels=pixels, record=record)


def _record(
    source: Source, images: Sequence[SkyUpdate], known: Sequence[tuple[SkyUpdate, SkyState]], settings: Settings
) -> tuple[Record, PixelFormat]:
    """Make the header record of an HDU, and find the format of its pixels.

    ``images`` are the HDU or its parts, ``known`` those of them that have a sky.
    """
    (update, state), *_ = known
    shift, result = NO_SKY, state.original
    errors: tuple[float, ...]
    if update.ref.part == WHOLE:
        error = cd.number(source.cards(header_of_sky(source, update.ref.hdu)), ERROR, math.nan)
        own, error = _sky_to_write(source, update, state, settings, error)
        sky, errors = Skies({WHOLE: own}), (error,)
    else:
        sky, errors = _part_skies(source, images, known, settings)
    if settings.subtract:
        shift = sky - state.base
        result = format_after(state.original, shift.largest(source.file.hdus[update.ref.hdu].frame))
    elif state.subtracted or (state.written is not None and state.written.subtracted):
        hint = "--subtract, or skymatch undo first" if state.written else "--subtract"
        raise InputError.at(
            update.ref.label, "its sky is subtracted already: recording another one would be wrong", hint
        )
    if shift == state.shift:
        result = state.stored  # the pixels stay as they are, also in a wider format
    left = Written(
        subtracted=settings.subtract,
        sky=sky,
        shift=shift,
        shape=source.file.hdus[update.ref.hdu].shape,
        form=replace(result, blank=None),
    )
    before, chosen = state.written, settings.determining().items()
    if before is not None and (shift, left.shape, left.form) == (before.shift, before.shape, before.form):
        left = replace(left, lost=before.lost, digest=before.digest)  # the same pixels
    record = Record(
        level_keyword=settings.sky_keyword,
        errors=errors,
        method=update.method,
        program=__version__,
        settings=" ".join(f"{name}={value}" for name, value in chosen if value is not None and value is not False),
        tilted=update.tilt is not None,
        format_before=state.original,
        written=left,
        primary=update.ref.section is None and header_of_sky(source, update.ref.hdu) != update.ref.hdu,
    )
    return record, result


def _part_skies(
    source: Source, images: Sequence[SkyUpdate], known: Sequence[tuple[SkyUpdate, SkyState]], settings: Settings
) -> tuple[Skies, tuple[float, ...]]:
    """Return the skies and errors of all sections or planes of an HDU; those outside this run keep theirs."""
    (first, state), *_ = known
    ref, hdu, left = first.ref, source.file.hdus[first.ref.hdu], state.written
    kind, most = ("sections", MOST_SECTIONS) if ref.part.plane is None else ("planes", MOST_PLANES)
    if settings.sky_keyword != LEVEL:
        what = f"--sky-keyword {settings.sky_keyword}: one keyword can't hold the skies of {kind}"
        raise InputError.at(ref.hdu_label, what, "leave --sky-keyword out")
    if source.file.container is Container.ASDF:
        raise InputError.at(ref.label, f"the file can hold one sky, not those of {kind}", "use --dry-run")
    if hdu.n_planes > most:
        raise InputError.at(ref.hdu_label, f"has {hdu.n_planes} {kind}, more than keywords can number", "add --dry-run")
    old = {part: sky for part, sky in state.skies.parts.items() if part != WHOLE}
    errors = {part: error for part, (_, error) in parts_in(source.cards(ref.hdu), hdu.shape).items()}
    new: dict[Part, SkyPlane] = {}
    for update, own in known:
        part = update.ref.part
        if part.plane is not None and part.section is not None:
            raise InputError.at(update.ref.label, "a section of a plane can't be recorded", "add --dry-run")
        new[part], errors[part] = _sky_to_write(source, update, own, settings, errors.get(part, math.nan))
    old = {part: sky for part, sky in old.items() if part.section is None or not any(map(part.overlaps, new))}
    if left is not None and left.subtracted != settings.subtract:
        named = {update.ref.part for update in images}
        if unnamed := [str(part) for part in old if part not in named]:
            what = f"the skies of its {kind} {', '.join(unnamed)} are {'' if left.subtracted else 'not '}subtracted"
            raise InputError.at(ref.label, what, f"name all its {kind}, or skymatch undo first")
        old = {}
    skies = dict(sorted((old | new).items()))
    if len(skies) > most:
        raise InputError.at(ref.label, f"has {len(skies)} {kind}, and its header takes {most}")
    return Skies(skies), tuple(errors.get(part, math.nan) for part in skies)


def _edit(source: Source, ref: ImageRef, record: Record, state: SkyState, result: PixelFormat) -> HduEdit:
    tiled = source.file.hdus[ref.hdu].tiled
    before = original_header(source, ref.hdu, ref.label)
    return HduEdit(
        cards=recorded_cards(before, record, tiled=tiled),
        pixels=pixel_edit(source, ref, state, result, record.written.shift),
        record=record,
        before=before,
        expected=state.written if state.has_our_pixels else None,
    )


def pixel_edit(source: Source, ref: ImageRef, state: SkyState, result: PixelFormat, shift: Skies) -> PixelEdit | None:
    """Return the edit to original pixels minus ``shift``, in the format ``result``; None where none changes."""
    edit = PixelEdit(
        original=state.original,
        stored=state.stored,
        shift=state.shift,
        result=result,
        new_shift=shift,
        shape=source.file.hdus[ref.hdu].frame,
    )
    return None if edit.changes_nothing else edit


def _sky_to_write(
    source: Source, update: SkyUpdate, state: SkyState, settings: Settings, error: float
) -> tuple[SkyPlane, float]:
    """Return the sky and error to record: the subtracted ones, where the new ones differ by rounding only.

    Skies measured in a file that is subtracted already see pixels that were rounded on the way: by less than a
    thousandth of their error. ``error`` is the one in the header, NaN where there is none.
    """
    recorded, section = state.recorded(update.ref.part), update.ref.section
    if not settings.subtract or recorded is None or not recorded.subtracted or state.written is None:
        return update.plane, update.sky_err
    before = recorded.sky
    shape = source.file.hdus[update.ref.hdu].frame if section is None else section.shape
    precision = np.finfo("f8" if state.original.bitpix != -32 else "f4").eps
    roundings = _ROUNDINGS if update.tilt is None else _WITH_TILT
    apart = (update.plane - before).largest(shape)
    if apart <= _OF_THE_ERROR * min(error, update.sky_err):
        return before, error if abs(error - update.sky_err) <= _OF_THE_ERROR * error else update.sky_err
    scale = max(update.plane.largest(shape), before.largest(shape))
    if apart > roundings * precision * scale:
        scale = max(scale, _typical_pixel(source, update.ref, state))
    tolerance = roundings * float(precision) * scale
    if apart > tolerance:
        return update.plane, update.sky_err
    settled = abs(error - update.sky_err) <= max(tolerance, roundings * float(precision) * abs(error))
    return before, error if settled else update.sky_err


def _typical_pixel(source: Source, ref: ImageRef, state: SkyState) -> float:
    """Return the median absolute value of a sample of pixels, as before the subtraction."""
    hdu, plane, form = source.file.hdus[ref.hdu], ref.part.plane or 0, state.stored
    n_planes = 1 if ref.part.plane is None else hdu.n_planes
    if hdu.tiled:
        pixels = np.concatenate([raw for _, raw in source.stored_pixels(ref.hdu, form)]).reshape(n_planes, -1)[plane]
    else:
        size = form.dtype.itemsize
        count = hdu.n_bytes // size // n_planes
        start = hdu.data_offset + plane * count * size
        stops = np.linspace(_SAMPLE_PIXELS, max(count, _SAMPLE_PIXELS), _SAMPLES, dtype=int)
        spans = {(max(0, stop - _SAMPLE_PIXELS), min(stop, count)) for stop in stops.tolist()}
        raw = b"".join(source.read(start + a * size, (b - a) * size) for a, b in sorted(spans))
        pixels = np.frombuffer(raw, dtype=form.dtype)
    # A tilt averages out of a typical value.
    level = state.shift.of(ref.part).level + state.base.of(ref.part).level
    values = np.abs(pixels.astype("f8") * form.bscale + form.bzero + level)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else 0.0
