"""A FITS file with some of its headers and images changed, and every other byte as it was.

Bytes are copied in pieces, so a file need not fit into memory (a tile-compressed image that is changed must).
"""

from __future__ import annotations

import bz2
import gzip
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Protocol, cast

import numpy as np

from . import cards as cd
from . import checksum
from .fitsfile import FitsFile, open_unpacked
from .model import Container
from .pixelformat import PixelFormat, restore, subtract

_CHUNK = 4 * 2**20
_CHUNK_PIXELS = 2**20
_UNPACK_IN_MEMORY = 64 * 2**20


class Sink(Protocol):
    """Where a new file goes."""

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelEdit:
    """Stored pixels -> original pixels -> the pixels to store.

    ``stored`` is how they are now; stored pixels are the ``original`` ones minus ``shift``; the new ones, in the
    format ``result``, are the original ones minus ``new_shift``. ``result == original`` with a shift of 0 is undo.
    """

    original: PixelFormat
    stored: PixelFormat
    shift: float
    result: PixelFormat
    new_shift: float

    @property
    def may_be_refused(self) -> bool:
        """Whether the pixels themselves must be seen to know that they can be changed."""
        restores = self.stored != self.original or self.shift != 0
        return self.original.is_integer and (restores or self.original.bitpix == 64)

    @property
    def changes_nothing(self) -> bool:
        """Whether the pixels stay as they are, bit for bit."""
        return self.stored == self.result and self.shift == self.new_shift

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """The new stored pixels."""
        untouched = self.stored == self.original and self.shift == 0
        original = raw if untouched else restore(raw, self.original, self.shift)
        if self.result == self.original and self.new_shift == 0:
            return original
        return subtract(original, self.original, self.new_shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class HduEdit:
    """What becomes of one HDU: its new header and, where they change, its pixels."""

    cards: cd.Cards
    pixels: PixelEdit | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """Where one HDU lies in the unpacked file; ``data_size`` without the bytes that fill the last block."""

    header_start: int
    data_start: int
    data_size: int
    stop: int

    @property
    def data_stop(self) -> int:
        """Where the last block of the data ends (the end of the file where that block is not whole)."""
        return min(self.stop, self.data_start + _padded(self.data_size))


class Source:
    """An open FITS file."""

    def __init__(self, file: FitsFile, stream: IO[bytes]) -> None:
        self.file = file
        self.stream = stream
        self.size = stream.seek(0, 2)
        self._cards: dict[int, cd.Cards] = {}

    def cards(self, index: int) -> cd.Cards:
        """The header of one HDU."""
        if index not in self._cards:
            hdu = self.file.hdus[index]
            self._cards[index] = cd.split_header(self.read(hdu.header_offset, hdu.header_size))
        return self._cards[index]

    def extent(self, index: int) -> Extent:
        """Where one HDU lies; bytes that follow the last one go with it."""
        hdu = self.file.hdus[index]
        is_last = index + 1 == len(self.file.hdus)
        stop = self.size if is_last else self.file.hdus[index + 1].header_offset
        if hdu.tiled:
            rows, row = (cd.value(self.cards(index), key) for key in ("NAXIS2", "NAXIS1"))
            size = int(cast("int", rows)) * int(cast("int", row)) + int(cd.number(self.cards(index), "PCOUNT", 0))
        else:
            size = math.prod(hdu.shape) * abs(hdu.bitpix) // 8 if hdu.shape else 0
        return Extent(hdu.header_offset, hdu.data_offset, size if hdu.is_image else stop - hdu.data_offset, stop)

    def read(self, start: int, size: int) -> bytes:
        """Some bytes of the file.

        Raises
        ------
        EOFError
            If the file ends before.
        """
        return b"".join(self.pieces(start, start + size, size or 1))

    def pieces(self, start: int, stop: int, size: int = _CHUNK) -> Iterator[bytes]:
        """The bytes from ``start`` to ``stop``, in pieces of ``size`` (the last may be shorter)."""
        while start < stop:
            self.stream.seek(start)
            wanted, parts = min(size, stop - start), []
            while wanted and (part := self.stream.read(wanted)):
                parts.append(part)
                wanted -= len(part)
            if wanted:
                raise EOFError("the file became shorter while it was being read")
            start += sum(map(len, parts))
            yield b"".join(parts)


@contextmanager
def open_source(file: FitsFile) -> Iterator[Source]:
    """Open a file for `rewrite`; a packed one is unpacked first, because it is read more than once."""
    with open_unpacked(file.path, file.container) as stream:
        if file.container is Container.PLAIN:
            yield Source(file, stream)
            return
        with tempfile.SpooledTemporaryFile(max_size=_UNPACK_IN_MEMORY) as unpacked:
            shutil.copyfileobj(stream, unpacked, _CHUNK)
            yield Source(file, cast("IO[bytes]", unpacked))


def rewrite(source: Source, edits: Mapping[int, HduEdit], sink: Sink) -> None:
    """Write the file with its HDUs changed as ``edits`` says (by index), packed as it was.

    Raises
    ------
    PixelError
        If the pixels can't be changed so that it can be undone.
    OSError
    """
    if source.file.container is Container.GZIP:
        # neither name nor time: the same content gives the same bytes
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=cast("IO[bytes]", sink), mtime=0) as packed:
            _rewrite(source, edits, packed)
    elif source.file.container is Container.BZIP2:
        with bz2.BZ2File(cast("IO[bytes]", sink), "wb") as packed_:
            _rewrite(source, edits, packed_)
    else:
        _rewrite(source, edits, sink)


def _rewrite(source: Source, edits: Mapping[int, HduEdit], sink: Sink) -> None:
    for index in range(len(source.file.hdus)):
        extent = source.extent(index)
        edit = edits.get(index)
        if edit is None:
            _copy(source.pieces(extent.header_start, extent.stop), sink)
            continue
        cards, data = _new_hdu(source, index, extent, edit)
        if checksum.has_checksums(cards):
            cards = checksum.with_checksums(cards, checksum.sum_of(data()))
        sink.write(cd.join_header(cards))
        _copy(data(), sink)
        _copy(source.pieces(extent.data_stop, extent.stop), sink)


def _copy(pieces: Iterator[bytes], sink: Sink) -> None:
    for piece in pieces:
        sink.write(piece)


def _new_hdu(
    source: Source, index: int, extent: Extent, edit: HduEdit
) -> tuple[cd.Cards, Callable[[], Iterator[bytes]]]:
    """The header of a changed HDU, and its data as often as they are asked for."""
    pixels = edit.pixels
    if pixels is None:
        return edit.cards, lambda: source.pieces(extent.data_start, extent.data_stop)
    if source.file.hdus[index].tiled:
        from .compressed import rebuild

        data_bytes = source.read(extent.data_start, extent.data_size)
        cards, data = rebuild(source.cards(index), data_bytes, edit.cards, pixels)
        return cards, lambda: iter([data])
    return edit.cards, lambda: _new_pixels(source, extent, pixels)


def _new_pixels(source: Source, extent: Extent, edit: PixelEdit) -> Iterator[bytes]:
    """The changed data of a plain image, with the zeros that fill its last block."""
    size = 0
    stored = edit.stored.dtype
    stop = extent.data_start + extent.data_size
    for piece in source.pieces(extent.data_start, stop, _CHUNK_PIXELS * stored.itemsize):
        data = edit.apply(np.frombuffer(piece, dtype=stored)).tobytes()
        size += len(data)
        yield data
    yield bytes(_padded(size) - size)


def _padded(size: int) -> int:
    return -(-size // cd.BLOCK) * cd.BLOCK
