"""Read the celestial WCS of a FITS header: pixels to ICRS unit vectors and back.

All that astropy supports is supported: the projections of FITS WCS paper II, SIP, TPV, TNX and ZPX, and lookup tables;
axes in any order, with degenerate axes.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from skymatch_cli.errors import InputError
from skymatch_cli.model import FloatArray
from skymatch_cli.sky.frames import SkyFrame, frame_of_header
from skymatch_cli.sky.inverse import refine_pixels
from skymatch_cli.sky.sphere import angle_rad, lon_lat, unit_vectors
from skymatch_cli.sky.wcscards import wcs_cards

ROUND_TRIP_PIX = 1e-3  # accuracy of the round trip of a pixel position that is a solution
STRAIGHT_PIX = 1e-3
MIN_SCALE_DEG = 1e-10  # less than a microarcsecond
MAX_SCALE_DEG = 180.0
LEAST_AREA = 1e-9  # of a pixel, as part of the product of its sides
MAX_CRVAL_DEG = 3600.0  # beyond, the file is damaged, and sines have lost their digits
MAX_CRPIX = 1e9  # beyond, squares of distances may overflow
_ENGINES_KEPT = 64  # tens of kilobytes each: they must not add up over the images of a survey
_HINT = "correct its header or solve its astrometry first, or leave the image out"
_D2IM, _BENT = re.compile(b"D2IMDIS"), re.compile(b"PV|AM")
_LOOKUP_TABLE = re.compile(rb"CPDIS|CQDIS|D2IMDIS|D2IMARR|PS\d+_0")  # the last: coordinates in a table (-TAB)
_OF_IRAF = (b"TNX", b"ZPX", b"WAT")
_DISTORTIONS = ("sip", "cpdis1", "cpdis2", "det2im1", "det2im2")
_TABLES = {"WCSDVARR", "D2IMARR"}


@dataclass(frozen=True, eq=False)
class FitsWcs:
    """The celestial WCS of one image; made by `wcs_of_cards`. It may be shared by threads, and pickled."""

    shape: tuple[int, int]  # (ny, nx)
    cards: bytes  # the header cards, compressed: what is pickled; the WCS is built from them when first used
    tables: bytes  # the lookup tables (NPOLFILE, D2IMFILE), as a FITS file, compressed; b"" without any
    frame: SkyFrame
    # True where every great circle is a straight line in pixels: TAN without distortion, and small images in other
    # projections
    straight: bool
    notes: tuple[str, ...] = ()  # what astropy had to say about the header, for the log
    corner: tuple[int, int] = (0, 0)  # (x, y) of the first pixel, of a section of the image

    @property
    def _engine(self) -> _Engine:
        return _read(self.cards, self.tables)

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Convert pixels to ICRS unit vectors, (n, 3); NaN rows where a pixel is off the sky."""
        pixels = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=-1) + self.corner
        return self.frame.to_icrs(self._engine.to_native(pixels))

    def to_pixel(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Convert ICRS unit vectors (n, 3) to pixels; NaN where no pixel has that position."""
        x, y = (self._engine.to_pixels(self.frame.from_icrs(vectors)) - self.corner).T.copy()
        if self.straight:
            return x, y
        near = self._off_by_pix(vectors, x, y)
        # The inverse of some projections (CSC) and distortions is an approximation.
        rough = np.flatnonzero((near > ROUND_TRIP_PIX) & (near < 10.0))
        if len(rough):
            x[rough], y[rough] = refine_pixels(self, vectors[rough], x[rough], y[rough])
            near[rough] = self._off_by_pix(vectors[rough], x[rough], y[rough])
        wrong = ~(near <= ROUND_TRIP_PIX)
        x[wrong] = y[wrong] = np.nan
        return x, y

    def _off_by_pix(self, vectors: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return the distance of the pixels' sky positions from the wanted ones, in nominal pixels."""
        return angle_rad(self.to_sky(x, y), vectors) / self._engine.scale_rad


def refers_to_tables(text: bytes) -> bool:
    """Return whether the WCS in these 80-byte records needs lookup tables or a table of coordinates."""
    return _has_card(text, _LOOKUP_TABLE, b"PDIS", b"QDIS", b"D2IM", b"PS")


def _has_card(text: bytes, pattern: re.Pattern[bytes], *words: bytes) -> bool:
    """Return whether one of the 80-byte records begins with a pattern, which has one of the words in it."""
    return any(word in text for word in words) and any(pattern.match(text, at) for at in range(0, len(text), 80))


def wcs_of_cards(
    text: bytes, shape: tuple[int, int], fobj: Any = None, where: str = "image", *, cube: bool = False
) -> FitsWcs:
    """Read the celestial WCS of a header, given as 80-byte records, for the axes of an image of ``shape`` (ny, nx).

    InputError if there is no valid one. ``fobj`` is the open file, where the header refers to lookup tables; ``where``
    names the image in messages. ``cube``: the image is one plane of a cube, and its further axes are ignored.
    """
    try:
        given = wcs_cards(text)
        if fobj is None and _has_card(given, _D2IM, b"D2IMDIS"):
            raise InputError.at(
                where, "its WCS needs lookup tables of the file, and only the header is given", "give the whole file"
            )
        cards, tables = zlib.compress(given, 1), b"" if fobj is None else _tables_in(fobj)
        engine = _read(cards, tables)
        for axis in () if cube else engine.axes_left_out:
            if (length := _header(given).get(f"NAXIS{axis + 1}", 1)) != 1:
                raise InputError.at(where, f"axis {axis + 1} of length {length} is not on the sky", "give 2-D images")
        frame = engine.frame()
    except InputError:
        raise
    except Exception as error:  # on damaged headers astropy raises errors of every kind
        raise InputError.at(where, f"its WCS can't be used: {_reason(error)}", _HINT) from error
    gnomonic = engine.tan and not _has_card(given, _BENT, b"PV", b"AM")
    straight = frame.rigid and not engine.distorted and (gnomonic or _lines_are_straight(engine, shape))
    return FitsWcs(shape, cards, tables, frame, straight, engine.notes)


def _reason(error: Exception) -> str:
    """Return the message of an astropy error in one line, without the line numbers of wcslib."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("ERROR ")) or type(error).__name__


class _Engine:
    """astropy's WCS behind a lock: wcslib's structures are changed while it computes.

    ``axes_left_out`` are the axes of the header that were left out, ``notes`` astropy's messages.
    """

    def __init__(self, wcs: Any, axes_left_out: tuple[int, ...], notes: tuple[str, ...]) -> None:
        self._wcs, self.axes_left_out, self.notes = wcs, axes_left_out, notes
        self._lock = threading.Lock()
        wcs.wcs.set()
        if not (np.abs(wcs.wcs.crval) <= MAX_CRVAL_DEG).all():
            raise ValueError("CRVAL is not a position on the sky")
        if not (np.abs(wcs.wcs.crpix) <= MAX_CRPIX).all():
            raise ValueError("CRPIX is not near the image")
        self._lng, self._lat = int(wcs.wcs.lng), int(wcs.wcs.lat)
        self.tan = wcs.wcs.ctype[self._lng][4:] == "-TAN"  # also of TPV, which is TAN with PVs
        self.distorted = any(getattr(wcs, name) is not None for name in _DISTORTIONS)
        matrix = wcs.pixel_scale_matrix
        sides = np.linalg.norm(matrix, axis=0)
        self.scale_rad = float(np.radians(sides.min()))
        if not (sides.min() >= MIN_SCALE_DEG and sides.max() <= MAX_SCALE_DEG):
            raise ValueError("the size of its pixels on the sky is absurd")
        if not abs(np.linalg.det(matrix)) > LEAST_AREA * sides.prod():
            raise ValueError("its pixels have no area on the sky")

    def frame(self) -> SkyFrame:
        prm = self._wcs.wcs
        return frame_of_header(prm.ctype[self._lng][:4], prm.radesys, float(prm.equinox))

    def to_native(self, pixels: FloatArray) -> FloatArray:
        """Convert pixels (n, 2) to unit vectors of the header's own frame, NaN off the sky."""
        with self._lock, np.errstate(invalid="ignore"):
            focal = self._wcs.pix2foc(pixels, 0) if self.distorted else pixels
            world = np.radians(_each(lambda p: self._wcs.wcs.p2s(p, 0)["world"], focal))
        return unit_vectors(world[:, self._lng], world[:, self._lat])

    def to_pixels(self, vectors: FloatArray) -> FloatArray:
        """Convert unit vectors of the header's own frame to pixels (n, 2), NaN where wcslib finds none."""
        lon, lat = lon_lat(vectors)
        world = np.empty((len(vectors), 2))
        world[:, self._lng], world[:, self._lat] = np.degrees(lon), np.degrees(lat)
        with self._lock, np.errstate(all="ignore"):
            if self.distorted:  # quiet: positions without convergence keep their last guess; the round trip drops them
                how = {"tolerance": 1e-8, "maxiter": 50, "adaptive": True, "quiet": True}
                return _each(lambda p: self._wcs.all_world2pix(p, 0, **how), world)
            return _each(lambda p: self._wcs.wcs.s2p(p, 0)["pixcrd"], world)


@lru_cache(maxsize=_ENGINES_KEPT)
def _read(cards: bytes, tables: bytes) -> _Engine:
    """The engine of compressed cards and lookup tables; the engines used last are kept."""
    from astropy.io import fits

    text = zlib.decompress(cards)
    fobj = fits.open(io.BytesIO(zlib.decompress(tables))) if tables else None
    (wcs, left_out), notes = captured(lambda: _parse(text, fobj))
    if not wcs.has_celestial:
        raise ValueError("its header has no celestial WCS")
    return _Engine(wcs, left_out, notes)


def _tables_in(fobj: Any) -> bytes:
    """The lookup tables in an open file, as `FitsWcs` keeps them."""
    from astropy.io import fits

    tables = [fits.ImageHDU(hdu.data, hdu.header) for hdu in fobj if hdu.name in _TABLES]
    fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(stream := io.BytesIO(), output_verify="ignore")
    return zlib.compress(stream.getvalue(), 1)


def _each(function: Callable[[FloatArray], FloatArray], rows: FloatArray) -> FloatArray:
    """function(rows); where wcslib refuses a whole batch because of some rows, those alone become NaN."""
    from astropy.wcs import WcsError

    if len(rows) == 0:
        return np.empty((0, 2))
    try:
        return np.array(function(rows), dtype=float)
    except (WcsError, ValueError):
        if len(rows) == 1:
            return np.full((1, 2), np.nan)
    half = len(rows) // 2
    return np.concatenate([_each(function, rows[:half]), _each(function, rows[half:])])


def _parse(text: bytes, fobj: Any) -> tuple[Any, tuple[int, ...]]:
    """Return the celestial axes of a header text as astropy's WCS, and the numbers of the axes left out."""
    from astropy.wcs import WCS, WCSSUB_CELESTIAL

    cards: Any = text
    if any(word in text for word in _OF_IRAF):
        from skymatch_cli.sky import iraf

        header = _header(text)
        if iraf.is_iraf(header):
            return WCS(iraf.translated(header), naxis=2), _axes_after_two(header)
        cards = iraf.without_attributes(header)
    try:
        wcs = WCS(cards, fobj)
    except ValueError:
        # SIP and lookup tables belong to the first two axes, and astropy wants no others beside them.
        return WCS(cards, fobj, naxis=2), _axes_after_two(_header(text))
    if wcs.naxis == 2 or not wcs.has_celestial:
        return wcs, ()
    left_out = tuple(axis for axis in range(wcs.naxis) if axis not in (wcs.wcs.lng, wcs.wcs.lat))
    # As one set, so that the axes keep the order that they have in the image.
    return wcs.sub([WCSSUB_CELESTIAL]), left_out


def _header(text: bytes) -> Any:
    from astropy.io.fits import Header

    return Header.fromstring(text.decode("ascii"))


def _axes_after_two(header: Any) -> tuple[int, ...]:
    """Return the numbers of all axes of a WCS but the first two."""
    return tuple(range(2, int(header.get("WCSAXES", header.get("NAXIS", 2)))))


def _lines_are_straight(engine: _Engine, shape: tuple[int, int]) -> bool:
    """Return whether rows, columns and diagonals of the frame are great circles, to a thousandth of a pixel."""
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, 5), np.linspace(-0.5, ny - 0.5, 5))
    sky = engine.to_native(np.stack([x.ravel(), y.ravel()], axis=-1)).reshape(5, 5, 3)
    if not np.isfinite(sky).all():
        return False
    at = np.arange(5)
    lines = np.concatenate([sky, sky.swapaxes(0, 1), sky[[at, at], [at, at[::-1]]]])  # (line, point, 3)
    poles = np.cross(lines[:, 0], lines[:, -1] - lines[:, 0])
    off = np.abs((lines * poles[:, None]).sum(axis=2)).max(axis=1)
    length = np.linalg.norm(poles, axis=1)
    return bool((off <= STRAIGHT_PIX * engine.scale_rad * length).all() and (lines[:, 0] * lines[:, -1]).sum() > 0)


_LOCK = threading.Lock()


def captured(build: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """Call ``build``; return its result and the messages of astropy, one line each."""
    from astropy import log

    messages: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())  # such as SIP without its suffix
        return False  # it is not printed

    with _LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log.addFilter(keep)
        try:
            made = build()
        finally:
            log.removeFilter(keep)
    lines = [*messages, *(str(item.message) for item in caught)]
    return made, tuple(dict.fromkeys(" ".join(line.split()) for line in lines))
