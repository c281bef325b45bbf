"""An image: its name, where its pixels are, and the values of its header."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from skymatch_cli.choices import Skystat
from skymatch_cli.model.arrays import FloatArray, IntArray
from skymatch_cli.model.section import WHOLE, Part, Section
from skymatch_cli.model.skyplane import SkyPlane

_SAMPLED = 16  # images by which the number of pixels is guessed


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticSettings:
    """How the sky of a set of pixels is measured.

    ``lower`` and ``upper`` are inclusive bounds applied before clipping, whatever ``nclip`` is.
    Clipping is that of ``astropy.stats.sigma_clip(cenfunc="median", stdfunc="std", maxiters=nclip)``.
    """

    skystat: Skystat = Skystat.MEDIAN
    lower: float | None = None
    upper: float | None = None
    nclip: int = 5
    lsigma: float = 4.0
    usigma: float = 4.0
    binwidth: float = 0.1


@dataclass(frozen=True, slots=True)
class Selector:
    """Which HDUs of a file: by index, by name, by name and version, or every image (name ``*``)."""

    index: int | None = None
    name: str = ""
    ver: int | None = None

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Parse the text between the brackets: ``SCI``, ``SCI,2``, ``3`` or ``*``; else ValueError."""
        name, comma, ver = (part.strip() for part in text.partition(","))
        if name.isdecimal() and not comma:
            return cls(index=int(name))
        if not name or (comma and not ver.isdecimal()):
            raise ValueError(f"[{text}] names no extension")
        return cls(name=name, ver=int(ver) if comma else None)

    def __str__(self) -> str:
        if self.index is not None:
            return f"[{self.index}]"
        return f"[{self.name}]" if self.ver is None else f"[{self.name},{self.ver}]"

    def fits(self, index: int, name: str, ver: int) -> bool:
        """Whether an HDU is meant, by its number, EXTNAME (in any case; the primary one is PRIMARY) and EXTVER."""
        if self.index is not None:
            return self.index == index
        called = (name or ("" if index else "PRIMARY")).upper()
        return self.name.upper() in {"*", called} and self.ver in {None, ver}


@dataclass(frozen=True, slots=True)
class MaskRef:
    """A plane for one image in another file; ``selector`` None: the HDU that suits the image."""

    file: str
    path: str
    selector: Selector | None = None


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image as the user named it.

    ``file`` is the user's own spelling (used in every result), ``path`` where it is, ``hdu`` the index
    of the HDU, ``ext``/``extver`` its EXTNAME and EXTVER (``ext`` is "" where the HDU has no name;
    ``extver`` is 1 where it has none). ``mask`` is a user mask (non-zero = good). ``dq`` and ``weight`` are files of
    the list that belong to the image by their names; ``group`` is the one that an association gives it.
    ``read_only`` is the image of ``--reference`` that is not in the list: it is never written. ``part`` says which of
    the HDU's pixels are the image.
    """

    file: str
    path: str
    hdu: int
    ext: str = ""
    extver: int = 1
    mask: MaskRef | None = None
    dq: MaskRef | None = None
    weight: MaskRef | None = None
    group: str = ""
    read_only: bool = False
    part: Part = WHOLE

    @property
    def section(self) -> Section | None:
        """The columns and rows of the HDU that are the image; None for all."""
        return self.part.section

    @property
    def hdu_label(self) -> str:
        """Name of the HDU for messages: ``a.fits[SCI,2]``, ``a.fits[3]``, ``a.fits``."""
        if self.ext and self.ext != "PRIMARY":
            return f"{self.file}[{self.ext},{self.extver}]"
        return f"{self.file}[{self.hdu}]" if self.hdu else self.file

    @property
    def label(self) -> str:
        """Name for messages, with the part of the HDU: ``a.fits[SCI,2]``, ``a.fits[*,*,3]``."""
        return f"{self.hdu_label}{self.part}"


class CelestialWcs(Protocol):
    """A celestial WCS, as the geometry uses it, of any format."""

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the image."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on it for the log."""
        ...

    def to_sky(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Pixels to ICRS unit vectors, (n, 3); NaN rows where a pixel is off the sky."""
        ...

    def to_pixel(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """ICRS unit vectors (n, 3) to pixels; NaN where there is no (converged) solution."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """The sky that an earlier run left in the header."""

    sky: SkyPlane
    subtracted: bool  # whether the stored pixels are the original ones minus that sky


FileState = tuple[int, int, int, int]
"""Size in bytes, times of the last change of content and of anything else in ns, inode: see `file_state`."""


class Container(StrEnum):
    """How a file as a whole is packed."""

    PLAIN = "plain"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    ASDF = "asdf"  # a Roman image, seen as FITS


BITPIX = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""The types of stored values that FITS knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """How pixels are stored: physical value = ``bzero + bscale * stored``; ``blank`` marks undefined integers."""

    bitpix: int
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the stored values are integers."""
        return self.bitpix > 0

    @property
    def is_unsigned(self) -> bool:
        """Whether they stand for integers from 0 on, of more than 8 bits."""
        return self.bscale == 1 and self.bitpix > 8 and self.bzero == 2.0 ** (self.bitpix - 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored values, in the byte order of FITS."""
        return np.dtype(BITPIX[self.bitpix])

    @property
    def name(self) -> str:
        """The type in words, e.g. ``uint16``."""
        if self.bitpix == 8:
            return "int8" if self.bscale == 1 and self.bzero == -128 else "uint8"
        return f"{'u' * self.is_unsigned}{'int' if self.is_integer else 'float'}{abs(self.bitpix)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlane(PixelFormat):
    """Where the pixels of one HDU lie in a file, and how they are stored."""

    path: str
    container: Container
    hdu: int  # index of the HDU
    offset: int  # first byte of the pixels in the unpacked file
    shape: tuple[int, int]  # (ny, nx)
    tiled: bool = False  # stored tile-compressed in a binary table (``.fz``)
    state: FileState = (0, 0, 0, 0)  # when the headers were read: a file that changed since is refused
    plane: int = 0  # number of the plane of a cube (``offset`` is that of its pixels)
    n_planes: int = 1  # of the HDU

    def at(self, plane: int) -> StoredPlane:
        """Return another plane of the cube; a two-dimensional image is used for all planes."""
        if self.n_planes == 1:
            return self
        return replace(self, plane=plane, offset=self.offset + (plane - self.plane) * self.n_bytes)

    @property
    def n_bytes(self) -> int:
        """Bytes of the pixels."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class RegionFile:
    """A region file of DS9 as it was when the headers were read: pixels inside of its regions are left out."""

    path: str
    state: FileState


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSource:
    """Everything needed to read the pixels of one image and find the good ones.

    ``bad_flags`` are the DQ bits that exclude a pixel (-1: any); ``dq`` is None where no DQ is used. Pixels whose
    ``weight`` (or exposure, or coverage) is 0, negative or not finite were not observed.
    Counts are divided by ``exposure``. ``original`` is None where the pixels are stored as they were taken. ``exposed``
    are the columns and rows of the HDU that saw the sky, beside which lies overscan; None for all.
    """

    science: StoredPlane
    dq: StoredPlane | None = None
    bad_flags: int = -1
    mask: StoredPlane | None = None
    original: PixelFormat | None = None
    weight: StoredPlane | None = None
    exposure: StoredPlane | None = None
    regions: RegionFile | None = None
    exposed: Section | None = None

    @property
    def planes(self) -> dict[str, StoredPlane]:
        """All planes that are read, by the names of their fields."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: plane for name, plane in named if isinstance(plane, StoredPlane)}

    def changed(self, change: Callable[[StoredPlane], StoredPlane]) -> PixelSource:
        """Return the source with each of its planes changed."""
        planes: dict[str, Any] = {name: change(plane) for name, plane in self.planes.items()}
        return replace(self, **planes)

    def at(self, plane: int) -> PixelSource:
        """Return the source of another plane of a cube."""
        return self.changed(lambda own: own.at(plane))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """One image as read from its header; pixels are read on demand by ``image.read_pixels``."""

    ref: ImageRef
    shape: tuple[int, int]  # (ny, nx)
    wcs: CelestialWcs | None  # None where the method needs no WCS (``user``)
    source: PixelSource  # where the pixels are
    pixel_area_arcsec2: float = math.nan  # solid angle of a pixel in the middle of the image; NaN where unknown
    unit: str = ""  # BUNIT as reported ("" if missing)
    to_comparison: float = 1.0  # factor from the image's unit to the comparison unit of the run
    comparison_unit: str = ""
    group: str = ""  # images of one group share one unknown (in comparison units)
    recorded: Recorded | None = None
    notes: tuple[str, ...] = ()  # facts for the log (``-v``): DQ extension used, HDUs skipped, inverse WCS, …
    split: str = ""  # images of different sets are not compared


def common_unit(images: Sequence[ImageInfo]) -> tuple[float, str]:
    """The unit for messages, and the factor from it to the comparison unit.

    It is the unit of the images themselves if they all have one and it is compared alike, else the comparison unit.
    """
    own = {(info.to_comparison, info.unit) for info in images}
    if len(own) == 1:
        ((factor, unit),) = own
        return abs(factor), unit
    return 1.0, next((info.comparison_unit for info in images), "")


def set_numbers(images: Sequence[ImageInfo]) -> IntArray:
    """Return the set number (``ImageInfo.split``) of every image, (N,), in order of first appearance."""
    return _numbered(info.split for info in images)


def group_numbers(images: Sequence[ImageInfo]) -> IntArray:
    """Return the group number of every image, (N,), in order of first appearance."""
    return _numbered(info.group for info in images)


def _numbered(names: Iterable[str]) -> IntArray:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def n_pixels_of(infos: Sequence[ImageInfo], images: Sequence[int]) -> int:
    """About how many pixels images have, by some from the first to the last: detectors are often listed in turn."""
    some = [infos[i].shape for i in images[:: -(-len(images) // _SAMPLED) or 1]]
    return sum(ny * nx for ny, nx in some) * len(images) // max(len(some), 1)
