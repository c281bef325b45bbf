"""A FITS file with some of its headers and images changed, and every other byte as it was.

Bytes are copied in pieces, so a file need not fit into memory (a tile-compressed image that is changed must).
"""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Protocol, cast

import numpy as np

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import PixelFormat, restore, subtract
from skymatch_cli.images.formats.source import Extent, Source, padded
from skymatch_cli.model import Container
from skymatch_cli.model.skyplane import Shape, SkyPlane
from skymatch_cli.record import checksum

_CHUNK_PIXELS = 2**16  # temporaries that stay in the processor's cache


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
    ``shape`` is (ny, nx) of the image.
    """

    original: PixelFormat
    stored: PixelFormat
    shift: SkyPlane
    result: PixelFormat
    new_shift: SkyPlane
    shape: Shape

    @property
    def may_be_refused(self) -> bool:
        """Whether the pixels themselves must be seen to know that they can be changed."""
        restores = self.stored != self.original or bool(self.shift)
        return self.original.is_integer and (restores or self.original.bitpix == 64)

    @property
    def changes_nothing(self) -> bool:
        """Whether the pixels stay as they are, bit for bit."""
        return self.stored == self.result and self.shift == self.new_shift

    def apply(self, raw: np.ndarray, first: int = 0) -> np.ndarray:
        """The new stored pixels, (n,), for n stored ones from number ``first`` of the image on."""
        untouched = self.stored == self.original and not self.shift
        original = raw if untouched else restore(raw, self.original, self.shift.along(first, len(raw), self.shape))
        if self.result == self.original and not self.new_shift:
            return original
        return subtract(original, self.original, self.new_shift.along(first, len(raw), self.shape), self.result)


@dataclass(frozen=True, slots=True, kw_only=True)
class HduEdit:
    """What becomes of one HDU: its new header and, where they change, its pixels."""

    cards: cd.Cards
    pixels: PixelEdit | None = None


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
    elif source.file.container is Container.ASDF:
        from skymatch_cli.record.roman import rewrite_asdf

        rewrite_asdf(source, edits, sink)
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
        from skymatch_cli.record.compressed import rebuild

        data_bytes = source.read(extent.data_start, extent.data_size)
        cards, data = rebuild(source.cards(index), data_bytes, edit.cards, pixels)
        return cards, lambda: iter([data])
    return edit.cards, lambda: _new_pixels(source, extent, pixels)


def _new_pixels(source: Source, extent: Extent, edit: PixelEdit) -> Iterator[bytes]:
    """The changed data of a plain image, with the zeros that fill its last block."""
    size = first = 0
    stored = edit.stored.dtype
    stop = extent.data_start + extent.data_size
    for piece in source.pieces(extent.data_start, stop, _CHUNK_PIXELS * stored.itemsize):
        raw = np.frombuffer(piece, dtype=stored)
        data = edit.apply(raw, first).tobytes()
        first += len(raw)
        size += len(data)
        yield data
    yield bytes(padded(size) - size)
