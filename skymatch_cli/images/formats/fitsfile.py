"""Read the structure of a FITS file from its headers: its HDUs and where their pixels are.

One pass over the headers, a few microseconds a card, nothing is allocated that a header merely claims:
sizes are compared with the length of the file first. Only the cards of the structure are given to astropy here;
`parse_header` gives the whole headers of the images that are used.
Layout: FITS Standard 4.0, sections 3, 4.4 and 10.1.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import IO

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.cards import BLOCK, CARD, padded
from skymatch_cli.images.formats.header import CardHeader, Value, as_number, value_in
from skymatch_cli.images.formats.packing import NOT_FITS, identify, most_unpacked, open_unpacked, read_exactly
from skymatch_cli.images.formats.tilecheck import check_tiling
from skymatch_cli.model import Container, FileState, PixelFormat
from skymatch_cli.model.images import BITPIX

_CHUNK = 10 * BLOCK
_MOST_HDUS = 20_000  # seconds of reading
_MAX_HEADER_BYTES = 1000 * BLOCK  # 36,000 cards; real headers stay below 10,000
_CELESTIAL_CTYPE = re.compile(r"(RA|DEC|.LON|.LAT|..LN|..LT)-")
_KEYWORDS = (
    *("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS", "EXTNAME", "EXTVER"),
    *("BSCALE", "BZERO", "BLANK", "CREATOR", "AMDX1"),
    *("ZIMAGE", "ZBITPIX", "ZNAXIS", "ZBLANK", "ZCMPTYPE", "ZQUANTIZ", "ZDITHER0"),
)
_STRUCTURE = frozenset(f"{key:8}".encode() for key in _KEYWORDS)
_PLACE = re.compile(rb"((CTYPE|CRVAL|CRPIX|CDELT|CROTA)[1-9]|(CD|PC|PV)[1-9]_\d+|AMD[XY]\d+|PPO\d|[AB]_\d_\d) *=")
_NUMBERED = re.compile(rb"(?:Z?NAXIS|CTYPE|ZTILE|ZNAME|ZVAL)[1-9]\d* *")

_Cards = Mapping[str, Value]  # the readable cards of the structure; None where a card has no readable value


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdu(PixelFormat):
    """One HDU of a file; BSCALE and BZERO are NaN where the header has no number there."""

    index: int
    name: str  # EXTNAME, "" where there is none (also for the name that fpack gives to a nameless image)
    ver: int  # EXTVER, 1 where there is none
    is_image: bool  # an image, tile-compressed ones included; not a table, not random groups
    shape: tuple[int, ...]  # of the image, in array order (slowest axis first); () where there are no pixels
    tiled: bool  # a tile-compressed image in a binary table
    # two of its axes are a longitude and a latitude, by CTYPE, or a plate solution of the DSS places it
    celestial: bool
    header_offset: int  # bytes of the unpacked file
    header_size: int
    data_offset: int
    data_size: int  # as stored, without the bytes that fill the last block
    # digest of the values of its WCS, to compare it with other planes of the file; "" without a WCS, and in files of
    # one image
    wcs: str = ""
    # CTYPE ("" where there is none) of the axis along which the planes of a cube lie: the only one beside a longitude
    # and a latitude, which are its first two; None for what is no such cube
    cube_axis: str | None = None
    ctypes: tuple[str, ...] = ()  # CTYPE1 and CTYPE2, where they are there

    @property
    def why_no_wcs(self) -> tuple[str, str]:
        """Why the image has no celestial WCS, and a hint."""
        if not any(self.ctypes):
            return "has no celestial WCS", "solve its astrometry first"
        what = f"has no celestial WCS: its CTYPE is {' and '.join(map(repr, self.ctypes))}"
        return what, "FITS names coordinates and projection, as in RA---TAN and DEC--TAN, or HPLN-TAN and HPLT-TAN"

    @property
    def n_bytes(self) -> int:
        """Bytes of the pixels, before they were packed."""
        return math.prod(self.shape) * self.dtype.itemsize if self.shape else 0

    @property
    def n_planes(self) -> int:
        """Number of the planes of a cube; 1 for a two-dimensional image."""
        return math.prod(self.shape[:-2])

    @property
    def frame(self) -> tuple[int, int]:
        """(ny, nx), whatever further axes there are, and how many."""
        ny, nx = (1, 1, *self.shape)[-2:]
        return ny, nx

    @property
    def plane_shape(self) -> tuple[int, int] | None:
        """(ny, nx) of a two-dimensional image, or of the planes of a cube, also of one that is not on the sky."""
        if not self.is_image or len(self.shape) < 2 or 0 in self.shape or sum(n != 1 for n in self.shape[:-2]) > 1:
            return None
        return self.shape[-2], self.shape[-1]

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(ny, nx) of a two-dimensional image (further axes of length 1 are left out); None for all else."""
        return self.plane_shape if self.n_planes == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitsFile:
    """The HDUs of one file, its state when they were read, and CREATOR of its primary header ("" without one)."""

    path: str
    container: Container
    state: FileState
    hdus: tuple[Hdu, ...]
    creator: str = ""

    @property
    def asdf_extension(self) -> Hdu | None:
        """Where the pipeline of JWST keeps the WCS of the one image of a file."""
        images = [hdu for hdu in self.hdus if hdu.name == "SCI"]
        return next((hdu for hdu in self.hdus if hdu.name == "ASDF"), None) if len(images) == 1 else None


def read_structure(path: str, where: str) -> FitsFile:
    """Find the HDUs of a FITS file: plain, ``.gz`` or ``.bz2`` (told by content), or what is shown as FITS.

    InputError: no such file, a directory, not FITS, a Git LFS pointer, truncated or with an absurd header. ``where`` is
    the file as the user named it.
    """
    try:
        container, state = identify(path, where)
        size = state[0]
        with open_unpacked(path, container) as stream:
            most = most_unpacked(size) if container in {Container.GZIP, Container.BZIP2} else math.inf
            hdus, creator = _walk(stream, where, size if container is Container.PLAIN else None, most)
    except FileNotFoundError:
        raise InputError.at(where, "no such file") from None
    except IsADirectoryError:
        raise InputError.at(where, "is a directory", "name the files in it, e.g. DIR/*.fits") from None
    except (EOFError, zlib.error) as error:
        raise InputError.at(where, f"truncated or damaged: {error}", "fetch the file again") from None
    except (OSError, ValueError) as error:
        raise InputError.at(where, f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    return FitsFile(path=path, container=container, state=state, hdus=hdus, creator=creator)


def parse_header(stream: IO[bytes], hdu: Hdu) -> CardHeader:
    """Parse the header of one HDU; that of a tile-compressed image reads as the image's own."""
    stream.seek(hdu.header_offset)
    raw = read_exactly(stream, hdu.header_size)
    if hdu.tiled:
        axes = {f"NAXIS{axis}": length for axis, length in enumerate(reversed(hdu.shape), start=1)}
        own = {"BITPIX": hdu.bitpix, "NAXIS": len(axes)} | axes
        new = {f"{key:8}".encode("ascii"): cd.make_card(key, value) for key, value in own.items()}
        kept = [new.pop(card[:8], card) for card in cd.split_header(raw)]
        raw = b"".join([*kept, *new.values()])
    return CardHeader(raw)


def _walk(stream: IO[bytes], where: str, size: int | None, most: float) -> tuple[tuple[Hdu, ...], str]:
    """All HDUs, and CREATOR. ``size``: length of the stream, if known; no file claims more than ``most`` bytes."""
    hdus: list[Hdu] = []
    headers: dict[int, bytes] = {}  # of the images
    creator = ""
    offset = 0
    while True:
        # of a packed file no byte too many: to go back is to unpack it again from its start
        raw = _read_header(stream, where, len(hdus), offset, at_a_time=BLOCK if size is None else _CHUNK)
        if not raw:
            break
        cards = _structure_cards(raw)
        hdu = _understand(cards, len(raw), where, len(hdus), offset)
        creator = creator or _text(cards.get("CREATOR"))
        hdus.append(hdu)
        if len(hdus) > _MOST_HDUS:
            raise InputError.at(where, f"has more than {_MOST_HDUS} HDUs", "copy those that you need to another file")
        if hdu.plane_shape:
            headers[hdu.index] = raw
        end = hdu.data_offset + hdu.data_size
        if end > most:
            what = f"HDU {hdu.index} claims {hdu.data_size} bytes of data, more than its file can hold"
            raise InputError.at(where, f"truncated or damaged: {what}", "unpack it first, if that is right")
        reached = stream.seek(end) if size is None else min(end, size)
        if reached < end:
            has = reached - hdu.data_offset
            what = f"truncated: HDU {hdu.index} needs {hdu.data_size} bytes of data, the file has {has}"
            raise InputError.at(where, what, "fetch the file again")
        if hdu.tiled and hdu.n_bytes > most_unpacked(hdu.data_size):
            what = f"HDU {hdu.index} claims {hdu.n_bytes} bytes of pixels in {hdu.data_size} compressed bytes"
            raise InputError.at(where, what)
        offset = padded(end)
    if len(headers) > 1:
        for index, raw in headers.items():
            hdus[index] = replace(hdus[index], wcs=_wcs_digest(raw) if hdus[index].celestial else "")
    return tuple(hdus), creator


def _read_header(stream: IO[bytes], where: str, index: int, offset: int, *, at_a_time: int) -> bytes:
    """The bytes of one header up to its END card; b"" where there is no further HDU."""
    start = stream.seek(offset)
    raw = stream.read(at_a_time) if start == offset else b""
    if index == 0 and raw[:6] != b"SIMPLE":
        what, hint = next(said for magic, said in NOT_FITS.items() if raw.startswith(magic))
        raise InputError.at(where, what, hint.replace("{}", where))
    if index and raw[:8] != b"XTENSION":
        return b""  # the end of the file, or special records after the last HDU
    searched = 0
    while True:
        end = raw.find(b"END     ", searched)
        while end >= 0 and end % CARD:
            end = raw.find(b"END     ", end + 1)
        if end >= 0:
            return raw[:end]
        searched = max(0, len(raw) - 8)
        more = stream.read(at_a_time) if len(raw) < _MAX_HEADER_BYTES else b""
        if not more:
            raise InputError.at(where, f"the header of HDU {index} has no END card", "fetch the file again")
        raw += more


def _understand(cards: _Cards, header_size: int, where: str, index: int, offset: int) -> Hdu:
    """One HDU from its cards."""
    try:
        axes, bitpix = _axes(cards, "")
        data_size = _data_size(cards, axes, bitpix)
        if "TFIELDS" in cards:
            _integer(cards, "TFIELDS", 0, 999)
        tiled = cards.get("ZIMAGE") is True and cards.get("XTENSION") == "BINTABLE"
        if tiled:
            axes, bitpix = _axes(cards, "Z")
            check_tiling(cards, axes)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError.at(where, f"the header of HDU {index} is not valid FITS: {error}") from None
    name, ver = _text(cards.get("EXTNAME")), cards.get("EXTVER", 1)
    blank = cards.get("BLANK", cards.get("ZBLANK"))
    ctypes = [str(value) for key, value in cards.items() if key.startswith("CTYPE")]
    is_image = tiled or (cards.get("XTENSION", "IMAGE") == "IMAGE" and cards.get("GROUPS") is not True)
    return Hdu(
        index=index,
        name="" if tiled and name.upper() == "COMPRESSED_IMAGE" else name,
        ver=ver if type(ver) is int and abs(ver) < 2**31 else 1,  # a larger one is damage
        is_image=is_image,
        shape=tuple(reversed(axes)),
        bitpix=bitpix,
        tiled=tiled,
        bscale=as_number(cards.get("BSCALE", 1.0)),
        bzero=as_number(cards.get("BZERO", 0.0)),
        blank=blank if bitpix > 0 and type(blank) is int else None,
        celestial="AMDX1" in cards or sum(bool(_CELESTIAL_CTYPE.match(ctype)) for ctype in ctypes) >= 2,
        header_offset=offset,
        header_size=header_size,
        data_offset=padded(offset + header_size + CARD),
        data_size=data_size,
        cube_axis=_cube_axis(cards, axes) if is_image else None,
        ctypes=tuple(_text(cards[key]) for key in ("CTYPE1", "CTYPE2") if key in cards),
    )


def _structure_cards(raw: bytes) -> _Cards:
    """Return the values of the structural cards of an HDU; the first card of a keyword counts."""
    found: dict[bytes, bytes] = {}
    for record in cd.split_header(raw):
        key = record[:8]
        if record[8:9] == b"=" and (key in _STRUCTURE or _NUMBERED.fullmatch(key)):
            found.setdefault(key, record)
    names = (key.decode("ascii").rstrip() for key in found)
    return {name: value_in(card, name) for name, card in zip(names, found.values(), strict=True)}


def _axes(cards: _Cards, prefix: str) -> tuple[tuple[int, ...], int]:
    """Lengths of the axes, first axis first, and BITPIX."""
    naxis = _integer(cards, f"{prefix}NAXIS", 0, 999)
    axes = tuple(_integer(cards, f"{prefix}NAXIS{i}", 0, 2**62) for i in range(1, naxis + 1))
    bitpix = _integer(cards, f"{prefix}BITPIX", -64, 64)
    if bitpix not in BITPIX:
        raise ValueError(f"BITPIX is {bitpix}")
    return axes, bitpix


def _cube_axis(cards: _Cards, axes: tuple[int, ...]) -> str | None:
    """See `Hdu.cube_axis`."""
    along = [i for i, length in enumerate(axes, start=1) if i > 2 and length != 1]
    on_sky = all(_CELESTIAL_CTYPE.match(str(cards.get(f"CTYPE{i}"))) for i in (1, 2))
    return _text(cards.get(f"CTYPE{along[0]}")) if on_sky and len(along) == 1 and 0 not in axes else None


def _wcs_digest(raw: bytes) -> str:
    """A digest of the values of the WCS in a header, to 8 digits: some programs write no more."""
    return _digest_of(tuple(filter(_PLACE.match, cd.split_header(raw))))


@lru_cache(maxsize=4)  # SCI, ERR and DQ have the same
def _digest_of(cards: tuple[bytes, ...]) -> str:
    values: dict[bytes, Value] = {}
    for card in cards:
        values.setdefault(card[:8], cd.card_value(card))
    keys = sorted(values)
    texts = [f"{value:.8g}" if isinstance(value, float) else str(value) for value in map(values.get, keys)]
    return hashlib.blake2b(repr((keys, texts)).encode(), digest_size=8).hexdigest()


def _text(value: Value) -> str:
    return "" if value is None else str(value).strip()


def _integer(cards: _Cards, key: str, lowest: int, highest: int) -> int:
    if key not in cards:
        raise ValueError(f"no {key}")
    value = cards[key]
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{key} is {value!r:.40}")
    return value


def _data_size(cards: _Cards, axes: tuple[int, ...], bitpix: int) -> int:
    """Bytes of data after a header (FITS Standard 4.0, equations 1, 2 and 4)."""
    if not axes:
        return 0
    groups = cards.get("GROUPS") is True and axes[0] == 0
    pcount = _integer(cards, "PCOUNT", 0, 2**62) if "PCOUNT" in cards else 0
    gcount = _integer(cards, "GCOUNT", 0, 2**62) if "GCOUNT" in cards else 1
    return abs(bitpix) // 8 * gcount * (pcount + math.prod(axes[1:] if groups else axes))
