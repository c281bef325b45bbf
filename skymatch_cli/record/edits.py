"""From the sky of an image to what becomes of its HDU; headers are read, nothing is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import PixelError, PixelFormat, format_after, format_of
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import (
    ERROR,
    LEVEL,
    Record,
    is_recorded,
    original_cards,
    recorded_cards,
)
from skymatch_cli.images.skystate import SkyState, is_jwst, missing_sky, original_header, read_state
from skymatch_cli.model import ImageRef
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.record.atomic import FileIdentity
from skymatch_cli.record.compressed import stored_pixels
from skymatch_cli.record.rewrite import HduEdit, PixelEdit
from skymatch_cli.settings import Settings
from skymatch_cli.version import __version__

_SAMPLES = 64
_SAMPLE_PIXELS = 1024
_ROUNDINGS, _WITH_TILT = 8, 64  # tilts multiply the roundings of pixels by the lever arm of the overlaps


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyUpdate:
    """The sky to be recorded in, or subtracted from, one image.

    Attributes
    ----------
    ref : ImageRef
    sky : float
        To subtract from the original pixels, in the image's unit. Not finite: the image is left alone.
        With a tilt: the value at the image's centre.
    sky_err : float
        1 sigma; not finite: not known.
    method : str
    identity : FileIdentity or None
        The file when it was measured; None: not checked.
    tilt : (dx, dy) or None
        Of the sky, per pixel; None: the sky is a constant.
    """

    ref: ImageRef
    sky: float
    sky_err: float
    method: str
    identity: FileIdentity | None = None
    tilt: tuple[float, float] | None = None

    @property
    def plane(self) -> SkyPlane:
        """The sky at every pixel."""
        return SkyPlane(self.sky, *(self.tilt or ()))

    @property
    def is_finite(self) -> bool:
        """Whether there is a sky at all."""
        return all(math.isfinite(value) for value in (self.sky, *(self.tilt or ())))


def record_edits(source: Source, updates: Sequence[SkyUpdate], settings: Settings) -> dict[int, HduEdit]:
    """What becomes of the HDUs of one file; those that stay as they are, byte for byte, are not in it.

    Raises
    ------
    InputError
        If a sky can't be written into its image.
    """
    edits: dict[int, HduEdit] = {}
    records: dict[int, Record] = {}
    for update in sorted(updates, key=lambda u: u.ref.hdu):
        if not update.is_finite:
            continue
        state = read_state(source, update.ref, settings.sky_keyword)
        try:
            record = _record(source, update, state, settings)
        except PixelError as error:
            raise InputError.at(update.ref.label, f"can't be subtracted: {error}") from None
        records[update.ref.hdu] = record
        edits[update.ref.hdu] = _edit(source, update.ref.hdu, record, state)
    if records and 0 not in edits and is_jwst(source):
        no_pixels = PixelFormat(bitpix=8)
        record = replace(records[min(records)], shift=SkyPlane(), format_before=no_pixels, format_after=no_pixels)
        before = original_header(source, 0, updates[0].ref.label)
        edits[0] = HduEdit(cards=recorded_cards(before, record, tiled=False))
    return {i: edit for i, edit in edits.items() if edit.pixels is not None or edit.cards != source.cards(i)}


def _record(source: Source, update: SkyUpdate, state: SkyState, settings: Settings) -> Record:
    """What the header shall say, and the format of the pixels that goes with it."""
    sky, error, result, shift = update.plane, update.sky_err, state.original, SkyPlane()
    if settings.subtract:
        sky, error = _settled(source, update, state)
        shift = sky - state.base
        result = format_after(state.original, shift.largest(_shape(source, update.ref.hdu)))
    elif state.recorded is not None and state.recorded.subtracted:
        hint = "--subtract, or skymatch undo first" if state.by_us else "--subtract"
        raise InputError.at(update.ref.label, "its sky is subtracted already, recording another would be wrong", hint)
    return Record(
        level_keyword=settings.sky_keyword,
        level=sky.level,
        error=error,
        method=update.method,
        subtracted=settings.subtract,
        program=__version__,
        settings=_settings_text(settings),
        shift=shift,
        format_before=state.original,
        format_after=result,
        tilt=None if update.tilt is None else (sky.dx, sky.dy),
    )


def _shape(source: Source, index: int) -> tuple[int, int]:
    """(ny, nx) of an image, whatever further axes it has."""
    ny, nx = (1, 1, *source.file.hdus[index].shape)[-2:]
    return ny, nx


def _edit(source: Source, index: int, record: Record, state: SkyState) -> HduEdit:
    tiled, cards = source.file.hdus[index].tiled, source.cards(index)
    pixels = PixelEdit(
        original=state.original,
        stored=format_of(cards, tiled=tiled),
        shift=state.shift,
        result=record.format_after,
        new_shift=record.shift,
        shape=_shape(source, index),
    )
    return HduEdit(
        cards=recorded_cards(original_cards(cards, tiled=tiled), record, tiled=tiled),
        pixels=None if pixels.changes_nothing else pixels,
    )


def _settled(source: Source, update: SkyUpdate, state: SkyState) -> tuple[SkyPlane, float]:
    """Sky and error to be recorded: those that are there, where they differ by rounding only.

    Skies measured in a file that is subtracted already see pixels that were rounded on the way.
    """
    recorded = state.recorded
    if recorded is None or not recorded.subtracted or not state.by_us:
        return update.plane, update.sky_err
    before, shape = missing_sky(recorded), _shape(source, update.ref.hdu)
    precision = np.finfo("f8" if state.original.bitpix != -32 else "f4").eps
    roundings = _ROUNDINGS if update.tilt is None else _WITH_TILT
    difference = (update.plane - before).largest(shape)
    scale = max(update.plane.largest(shape), before.largest(shape))
    if difference > roundings * precision * scale:
        scale = max(scale, _typical_pixel(source, update.ref.hdu, state))
    tolerance = roundings * float(precision) * scale
    if difference > tolerance:
        return update.plane, update.sky_err
    error = cd.number(source.cards(update.ref.hdu), ERROR, math.nan)
    settled = abs(error - update.sky_err) <= max(tolerance, roundings * float(precision) * abs(error))
    return before, error if settled else update.sky_err


def _typical_pixel(source: Source, index: int, state: SkyState) -> float:
    """The median of the absolute values of some pixels as they were before the sky was subtracted."""
    cards, extent, tiled = source.cards(index), source.extent(index), source.file.hdus[index].tiled
    form = format_of(cards, tiled=tiled)
    if tiled:
        pixels = stored_pixels(cards, source.read(extent.data_start, extent.data_size)).ravel()
    else:
        size = form.dtype.itemsize
        count = extent.data_size // size
        stops = np.linspace(_SAMPLE_PIXELS, max(count, _SAMPLE_PIXELS), _SAMPLES, dtype=int)
        spans = {(max(0, stop - _SAMPLE_PIXELS), min(stop, count)) for stop in stops.tolist()}
        raw = b"".join(source.read(extent.data_start + a * size, (b - a) * size) for a, b in sorted(spans))
        pixels = np.frombuffer(raw, dtype=form.dtype)
    level = state.shift.level + state.base.level  # a tilt averages out: it is a typical value that is asked for
    values = np.abs(pixels.astype("f8") * form.bscale + form.bzero + level)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else 0.0


def _settings_text(settings: Settings) -> str:
    determining = settings.determining().items()
    return " ".join(f"{name}={value}" for name, value in determining if value is not None and value is not False)


def undo_edits(source: Source, refs: Sequence[ImageRef]) -> dict[int, HduEdit]:
    """What takes back all that the program did to these images of one file.

    The primary header of a JWST file goes with the last of its images.

    Raises
    ------
    InputError
        If an image is not there, or undo cards are not ours.
    """
    hdus = source.file.hdus
    wanted = {ref.hdu: ref for ref in refs if ref.hdu >= len(hdus) or is_recorded(source.cards(ref.hdu))}
    edits = {index: _undo_edit(source, ref) for index, ref in sorted(wanted.items())}
    rest = [i for i in range(1, len(hdus)) if i not in edits and is_recorded(source.cards(i))]
    if 0 not in edits and not hdus[0].shape and not rest and is_recorded(source.cards(0)):
        edits[0] = HduEdit(cards=original_header(source, 0, source.file.path))
    return edits


def _undo_edit(source: Source, ref: ImageRef) -> HduEdit:
    state = read_state(source, ref, LEVEL)
    tiled, cards = source.file.hdus[ref.hdu].tiled, source.cards(ref.hdu)
    pixels = PixelEdit(
        original=state.original,
        stored=format_of(cards, tiled=tiled),
        shift=state.shift,
        result=state.original,
        new_shift=SkyPlane(),
        shape=_shape(source, ref.hdu),
    )
    return HduEdit(cards=original_cards(cards, tiled=tiled), pixels=None if pixels.changes_nothing else pixels)
