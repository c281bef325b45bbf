"""Read the pixels of one image, and which of them are good: finite, DQ, user mask, ignored value.

Plain files are read in blocks of rows that stay in the processor's cache while they are brought into the
machine's byte order and tested: nothing is mapped, nothing is copied twice, and only the rows that are
asked for are touched. Flags are tested as they are stored, without bringing them into native order.
"""

from __future__ import annotations

import math
import os
import resource
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO, Any, cast

import numpy as np

from skymatch_cli.choices import WarningName
from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import file_state, is_remote
from skymatch_cli.images.formats.packing import open_unpacked
from skymatch_cli.images.formats.pixelformat import Stored
from skymatch_cli.images.formats.tilecheck import opened_tiles
from skymatch_cli.images.padding import Padding, find_padding
from skymatch_cli.model import (
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    PixelArray,
    PixelFormat,
    PixelSource,
    RegionFile,
    Section,
    SkyWarning,
    StoredPlane,
)
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.settings import Settings

_BLOCK_BYTES = 2**18  # blocks of rows: cheap per call, and they fit the cache
_MANY_LOST = 0.5
_LARGEST_SPREAD = 0.1  # of the weights: quantised zeros lie within a fraction of the noise
_BYTES_HELD = 5  # for each pixel: float32, and whether it is good
_FLOAT64_INTEGERS = 2**53
_FLOAT32_INTEGERS = 2**24  # float32 holds every integer up to this


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels of an image, or of some of its rows."""

    # (rows, nx) float32 or float64: original pixels in the image's unit (a sky that was subtracted is added back).
    # float32 where that is exact
    data: PixelArray
    good: BoolArray  # (rows, nx): True = use
    warnings: tuple[SkyWarning, ...] = ()


def read_pixels(info: ImageInfo, settings: Settings, *, rows: tuple[int, int] | None = None) -> Pixels:
    """Read the pixels of an image, or of some ``rows`` (start, stop), and which are good.

    InputError if the file can't be read or has changed since its headers were read. Of the settings ``ignore_value``
    and ``keep_value`` are used.
    """
    source = info.source
    y0, y1 = rows or (0, info.shape[0])
    plane = source.science
    _check_memory(info, y1 - y0)
    data: PixelArray = np.empty((y1 - y0, info.shape[1]), _physical_type(source.original or plane))
    good: BoolArray = np.empty(data.shape, np.bool_)
    flagged = 0
    with ExitStack() as stack:
        files = _OpenFiles(stack, info.ref.label, info.ref.section)
        missing = info.recorded.sky if info.recorded is not None and info.recorded.subtracted else SkyPlane()
        for at, stored in files.blocks(plane, y0, y1):
            level = missing.rows(y0 + at.start, y0 + at.stop, info.shape)
            if plane.bitpix == 64 and source.original is None:
                _check_digits(stored, plane, info.ref.label)
            _to_original(stored, source, level, data[at], good[at])
            if settings.ignore_value is not None:
                good[at] &= data[at] != settings.ignore_value
        if source.dq is not None:
            for at, stored in files.blocks(source.dq, y0, y1):
                unflagged = _unflagged(stored, source.dq, source.bad_flags)
                flagged += unflagged.size - int(np.count_nonzero(unflagged))
                good[at] &= unflagged
        for marks, weights in ((source.mask, False), (source.weight, True)):
            if marks is not None:
                for at, stored in files.blocks(marks, y0, y1):
                    values, known = _values(stored, marks)
                    # Of integers the sign may be the last bit of a list of exposures (CTX of drizzle).
                    good[at] &= known & (
                        values > _no_weight(values, marks) if weights and marks.bitpix < 0 else values != 0
                    )
        _divide_by_exposure(files, source.exposure, data, good, y0=y0)
    if source.exposed is not None:
        _leave_out_overscan(good, source.exposed, info.ref.section, y0)
    if source.regions is not None:
        good &= ~_inside_regions(info, source.regions)[y0:y1]
    found = _loss_warning(info.ref.label, flagged, good.size)
    found += _leave_out_padding(data, good, settings, info.ref.label)
    return Pixels(data, good, found)


def pixels_of(info: ImageInfo, settings: Settings, needed: Sequence[IntArray] = ()) -> Pixels:
    """The pixels of a frame; of a file behind a URL only from the first to the last row needed, the others not good.

    Where no row is needed all are read, since padding is judged by the frame.
    """
    needed = [rows for rows in needed if rows.size]
    if not needed or not is_remote(info.source.science.path):
        return read_pixels(info, settings)
    first, last = min(int(rows.min()) for rows in needed), max(int(rows.max()) for rows in needed)
    read = read_pixels(info, settings, rows=(first, last + 1))
    data, good = np.zeros(info.shape, read.data.dtype), np.zeros(info.shape, np.bool_)
    data[first : last + 1], good[first : last + 1] = read.data, read.good
    return replace(read, data=data, good=good)


def _check_memory(info: ImageInfo, rows: int) -> None:
    """Refuse an image larger than the memory: reading it could stop other programs."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    needed, there = rows * info.shape[1] * _BYTES_HELD, min(limit for limit in limits if limit > 0)  # no limit is -1
    if needed > there:
        what = f"needs {needed / 2**30:.3g} GiB of memory, and this machine has {there / 2**30:.3g}"
        raise InputError.at(info.ref.label, what, "cut it into several images")


def _leave_out_overscan(good: BoolArray, exposed: Section, section: Section | None, y0: int) -> None:
    """Mark pixels outside of a section of the HDU; ``good`` begins at row ``y0`` of the image, or of its section."""
    left, below = (section.x0, section.y0 + y0) if section else (0, y0)
    x, y = left + np.arange(good.shape[1]), below + np.arange(good.shape[0])
    good[:, (x < exposed.x0) | (x >= exposed.x1)] = False
    good[(y < exposed.y0) | (y >= exposed.y1)] = False


def _divide_by_exposure(
    files: _OpenFiles, exposure: StoredPlane | None, data: PixelArray, good: BoolArray, *, y0: int
) -> None:
    """Divide counts by the exposure time; pixels without exposure are not good."""
    if exposure is None:
        return
    for at, stored in files.blocks(exposure, y0, y0 + len(data)):
        seconds, known = _values(stored, exposure)
        good[at] &= known & (seconds > _no_weight(seconds, exposure))
        np.divide(data[at], seconds, out=data[at], where=good[at], casting="same_kind")


def _no_weight(values: PixelArray, plane: StoredPlane) -> float:
    """The largest value that means no weight: 0, or more where lossy compression has spread the zeros about 0."""
    if not plane.tiled or plane.bitpix > 0:
        return 0.0
    spread = -2 * float(np.fmin.reduce(values, axis=None))
    return spread if 0 < spread < _LARGEST_SPREAD * np.fmax.reduce(values, axis=None) else 0.0


def _inside_regions(info: ImageInfo, file: RegionFile) -> BoolArray:
    from skymatch_cli.images.formats.ds9 import inside_regions, read_regions

    try:
        now = file_state(file.path)
    except OSError as error:
        raise InputError.at(file.path, f"can't be read: {error.strerror}") from None
    if now[:2] != file.state[:2]:
        raise InputError.at(info.ref.label, f"{file.path} changed while it was in use", "run again")
    regions = read_regions(file)
    section = info.ref.section
    if section is None:
        return inside_regions(regions, info.wcs, info.shape, info.ref.label)
    wcs = None if info.wcs is None else replace(cast("Any", info.wcs), shape=section.whole, corner=(0, 0))
    inside = inside_regions(regions, wcs, section.whole, info.ref.label)
    return inside[section.y0 : section.y1, section.x0 : section.x1]


def _leave_out_padding(data: PixelArray, good: BoolArray, settings: Settings, where: str) -> tuple[SkyWarning, ...]:
    """Mask padding in ``good``, and warn which value it is."""
    keep = () if settings.keep_value is None else (settings.keep_value,)
    found = find_padding(data, good, keep=keep)
    if found is None:
        return ()
    share = f"{where}: {100 * found.share:.2g} % of its pixels are {_about(found)}"
    if found.cut_off:
        what = "they were cut off there, and its sky is wrong (match the image as it was before that)"
        text = f"{share}, and none is beyond: {what}"
        return (SkyWarning(WarningName.PADDING, text),)
    if found.left_out is None:
        text = f"{share}, unlike the others; --ignore-value {found.value:.9g} leaves them out"
        return (SkyWarning(WarningName.PADDING, text),)
    good &= ~found.left_out
    if found.whole:
        text = f"{where}: all its pixels are exactly {found.value:.9g}: it has no sky"
        return (SkyWarning(WarningName.PADDING, text),)
    left_out = f"{share} and are left out as padding (--subtract changes them all the same)"
    text = f"{left_out}; --keep-value {found.value:.9g} keeps them"
    return (SkyWarning(WarningName.PADDING, text, amplitude=0.0),)


def _about(found: Padding) -> str:
    return f"within {found.within:.2g} of {found.value:.9g}" if found.within else f"exactly {found.value:.9g}"


class _OpenFiles:
    """The open files of one image, each opened once and closed with the stack."""

    def __init__(self, stack: ExitStack, where: str, section: Section | None) -> None:
        self._stack = stack
        self._where = where
        self._section = section
        self._streams: dict[str, IO[bytes]] = {}

    def blocks(self, plane: StoredPlane, y0: int, y1: int) -> Iterator[tuple[slice, Stored]]:
        """Yield stored values of the image (or its section) by blocks of rows from ``y0`` on, in FITS byte order."""
        columns = slice(None)
        if (section := self._section) is not None:
            y0, y1, columns = y0 + section.y0, y1 + section.y0, slice(section.x0, section.x1)
        try:
            if file_state(plane.path)[:2] != plane.state[:2]:  # inodes differ between machines
                raise InputError.at(
                    self._where,
                    f"{plane.path} changed while it was in use, or since its plan was made",
                    "run again; if a store has its plan, from skymatch plan on",
                )
            blocks = (
                ((slice(0, y1 - y0), _read_tiled(plane, y0, y1)),) if plane.tiled else self._plain_blocks(plane, y0, y1)
            )
            for rows, stored in blocks:
                yield rows, np.ascontiguousarray(stored[:, columns])
        except (OSError, EOFError, zlib.error) as error:
            raise InputError.at(self._where, f"can't be read: {error}", "fetch the file again") from None

    def _plain_blocks(self, plane: StoredPlane, y0: int, y1: int) -> Iterator[tuple[slice, Stored]]:
        stream = self._streams.get(plane.path)
        if stream is None:
            stream = self._stack.enter_context(open_unpacked(plane.path, plane.container))
            self._streams[plane.path] = stream
        dtype, nx = plane.dtype, plane.shape[1]
        step = max(1, min(y1 - y0, _BLOCK_BYTES // (nx * dtype.itemsize)))
        buffer = np.empty((step, nx), dtype)
        stream.seek(plane.offset + y0 * nx * dtype.itemsize)
        for start in range(0, y1 - y0, step):
            block = buffer[: min(step, y1 - y0 - start)]
            _fill(stream, block)
            yield slice(start, start + len(block)), block


def _fill(stream: IO[bytes], block: Stored) -> None:
    """Fill a block; a file may return fewer bytes per call."""
    view = memoryview(block.reshape(-1).view(np.uint8).data)
    while view:
        n = stream.readinto(view)  # type: ignore[attr-defined]
        if not n:
            raise EOFError("it is shorter than its headers say")
        view = view[n:]


def _read_tiled(plane: StoredPlane, y0: int, y1: int) -> Stored:
    """Read rows of a tile-compressed image as stored before compression; only the tiles needed are unpacked."""
    with opened_tiles(lambda: open_unpacked(plane.path, plane.container), plane.hdu) as hdu:
        which = [slice(k, k + 1) for k in np.unravel_index(plane.plane, hdu.shape[:-2])] if hdu.shape[:-2] else []
        values = hdu.section[(*which, slice(y0, y1))]
        return np.ascontiguousarray(values, plane.dtype).reshape(y1 - y0, plane.shape[1])


def _physical_type(plane: PixelFormat) -> np.dtype[Any]:
    """float32 where it holds every physical value exactly, else float64."""
    if plane.bscale == 1 and plane.bzero == 0:
        return np.dtype(np.float32 if plane.bitpix in {8, 16, -32} else np.float64)
    if plane.bitpix not in {8, 16}:
        return np.dtype(np.float64)
    power_of_two = math.frexp(abs(plane.bscale))[0] == 0.5
    steps = plane.bzero / plane.bscale
    exact = power_of_two and steps.is_integer() and abs(steps) + 2**plane.bitpix <= _FLOAT32_INTEGERS
    return np.dtype(np.float32 if exact else np.float64)


def _to_original(
    stored: Stored, source: PixelSource, level: float | FloatArray, data: PixelArray, good: BoolArray
) -> None:
    """Fill ``data`` with the pixels before a sky (``level``) was subtracted, ``good`` with which are defined."""
    if source.original is None:
        _to_physical(stored, source.science, data, good)
        if isinstance(level, np.ndarray) or level:
            # The sum is rounded once, from float64: most pixels come back exactly as they were.
            with np.errstate(invalid="ignore", over="ignore"):
                np.add(data, level, out=data, dtype=np.float64, casting="same_kind")
        return
    step, zero = source.original.bscale, source.original.bzero
    with np.errstate(invalid="ignore", over="ignore"):
        data[...] = np.rint((stored.astype(np.float64) + (level - zero)) / step) * step + zero
    np.isfinite(data, out=good)


def _check_digits(stored: Stored, plane: StoredPlane, where: str) -> None:
    """Refuse 64-bit integers that float64 would round: the sky is in their small differences."""
    unsigned = plane.is_unsigned
    values = stored.view(">u8") ^ np.uint64(2**63) if unsigned else stored
    limits = np.iinfo(values.dtype)
    beyond = (values > _FLOAT64_INTEGERS) & (values < limits.max)  # the last value stands for an undefined pixel
    if not unsigned:
        beyond |= (values < -_FLOAT64_INTEGERS) & (values > limits.min) & (values != plane.blank)
    if beyond.any():
        what = f"holds {values[beyond][0]}: integers beyond 2^53 would be rounded"
        raise InputError.at(where, what, "subtract the same number from all images first")


def _to_physical(stored: Stored, plane: StoredPlane, data: PixelArray, good: BoolArray) -> None:
    """Fill ``data`` with physical values and ``good`` with which of them are defined."""
    with np.errstate(invalid="ignore", over="ignore"):
        if plane.bitpix == 64 and plane.is_unsigned:
            data[...] = stored.view(">u8") ^ np.uint64(2**63)  # the sum would lose digits
        else:
            data[...] = stored
            if plane.bscale != 1:
                np.multiply(data, plane.bscale, out=data)
            if plane.bzero != 0:
                np.add(data, plane.bzero, out=data)
    if plane.bitpix < 0:
        np.isfinite(data, out=good)
    elif plane.blank is not None and np.can_cast(np.min_scalar_type(plane.blank), stored.dtype, "same_kind"):
        np.not_equal(stored, plane.blank, out=good)
    else:
        good[...] = True


def _unflagged(stored: Stored, plane: StoredPlane, bad_flags: int) -> BoolArray:
    """Return True where no bad flag is set; ``stored`` is overwritten.

    The bits are compared in the byte order of the file: it is the constants that are swapped.
    """
    bits = plane.bitpix
    every = 2**bits - 1
    bad = bad_flags & every
    zero = int(-plane.bzero) & every  # how the value 0 is stored
    raw = stored.view(f"u{bits // 8}")
    if bad != every:
        np.bitwise_and(raw, _as_stored(bad, bits), out=raw)
    unflagged: BoolArray = np.equal(raw, _as_stored(zero & bad, bits))
    return unflagged


def _as_stored(value: int, bits: int) -> Any:
    """An unsigned integer whose bytes are those of ``value`` in a FITS file."""
    return np.array([value], f">u{bits // 8}").view(f"u{bits // 8}")[0]


def _values(stored: Stored, plane: StoredPlane) -> tuple[PixelArray, BoolArray]:
    values: PixelArray = np.empty(stored.shape, _physical_type(plane))
    defined: BoolArray = np.empty(stored.shape, np.bool_)
    _to_physical(stored, plane, values, defined)
    return values, defined


def _loss_warning(where: str, flagged: int, total: int) -> tuple[SkyWarning, ...]:
    """Warn where flags exclude more than half of the pixels: --dqbits is often wrong then."""
    if flagged <= _MANY_LOST * total:
        return ()
    text = f"{where}: DQ flags exclude {100 * flagged / total:.0f} % of its pixels (see --dqbits)"
    return (SkyWarning(WarningName.FLAGS, text),)
