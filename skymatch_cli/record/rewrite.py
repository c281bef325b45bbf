"""Rewrite a FITS file with some headers and images changed, and every other byte as it was.

Bytes are copied in pieces, so a file need not fit into memory (a tile-compressed image that is changed must).
"""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import restore, subtract
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import Record
from skymatch_cli.images.undocards import Written
from skymatch_cli.model import Container, PixelFormat
from skymatch_cli.model.skyparts import NO_SKY, Skies
from skymatch_cli.model.skyplane import Shape
from skymatch_cli.record import checksum

Sink = io.RawIOBase | io.BufferedIOBase
"""Destination of a new file, which takes all of the data at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelEdit:
    """Stored pixels -> original pixels -> the pixels to store, of an image of ``shape`` (ny, nx).

    Stored pixels are the ``original`` ones minus ``shift``; the new ones, in the format ``result``, are the original
    ones minus ``new_shift``. ``result == original`` with a shift of 0 is undo.
    """

    original: PixelFormat
    stored: PixelFormat
    result: PixelFormat
    shape: Shape
    shift: Skies = NO_SKY
    new_shift: Skies = NO_SKY

    @property
    def restores(self) -> bool:
        """Whether the stored pixels were written by this program, so that originals must be restored."""
        return self.stored != self.original or bool(self.shift)

    @property
    def changes_nothing(self) -> bool:
        """Whether the pixels stay as they are, bit for bit."""
        return self.stored == self.result and self.shift == self.new_shift

    def originals(self, raw: np.ndarray, first: int = 0) -> np.ndarray:
        """Return original pixels, (n,), of n stored ones from number ``first`` on."""
        return restore(raw, self.original, self.shift.along(first, len(raw), self.shape)) if self.restores else raw

    def apply(self, raw: np.ndarray, first: int = 0) -> np.ndarray:
        """Return the new stored pixels, (n,), for n stored ones from number ``first`` on."""
        return self.subtracted(self.originals(raw, first), first)

    def subtracted(self, original: np.ndarray, first: int = 0) -> np.ndarray:
        """Return the new stored pixels, (n,), of n original ones from number ``first`` on."""
        if self.result == self.original and not self.new_shift:
            return original
        return subtract(original, self.original, self.new_shift.along(first, len(original), self.shape), self.result)

    def loss(self, original: np.ndarray, new: np.ndarray, first: int = 0) -> float:
        """Return the largest difference between original and restored pixels, in the image's unit."""
        if self.original.is_integer or new is original:
            return 0.0
        back = restore(new, self.original, self.new_shift.along(first, len(new), self.shape))
        with np.errstate(invalid="ignore"):
            difference = np.abs(back.astype("f8") - original)
        return float(np.max(difference, where=np.isfinite(original), initial=0.0)) * abs(self.original.bscale)


@dataclass(frozen=True, slots=True, kw_only=True)
class HduEdit:
    """The edit of one HDU: its new header and, where they change, its pixels (or all ``data`` of a table).

    ``record`` is the new record in the header (None: it is removed), ``before`` the header before the first run;
    ``expected`` says which pixels must be there, because this program wrote them (None: any).
    """

    cards: cd.Cards
    pixels: PixelEdit | None = None
    data: bytes | None = None
    record: Record | None = None
    before: cd.Cards | None = None
    expected: Written | None = None


def rewrite(source: Source, edits: Mapping[int, HduEdit], sink: Sink) -> tuple[int, ...]:
    """Write the file with its HDUs changed as ``edits`` says (by index), packed as it was.

    Return the HDUs whose CHECKSUM or DATASUM was wrong: it stays as it was. PixelError if the pixels can't be changed
    so that it can be undone; OSError if the file can't be read or written.
    """
    if source.file.container is Container.GZIP:
        # neither name nor time: the same content gives the same bytes
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=sink, mtime=0) as packed:
            return _rewrite(source, edits, packed)
    if source.file.container is Container.BZIP2:
        with bz2.BZ2File(sink, "wb") as packed_:
            return _rewrite(source, edits, packed_)
    if source.file.container is Container.ASDF:
        from skymatch_cli.record.roman import rewrite_asdf

        rewrite_asdf(source, edits, sink)
        return ()
    return _rewrite(source, edits, sink)


def _rewrite(source: Source, edits: Mapping[int, HduEdit], sink: Sink) -> tuple[int, ...]:
    wrong = []
    for index, hdu in enumerate(source.file.hdus):
        edit, data_stop = edits.get(index), source.data_stop(index)
        if edit is None:
            _copy(source.pieces(hdu.header_offset, source.stop(index)), sink)
            continue
        cards, data = _new_hdu(source, index, edit)
        if checksum.has_checksums(source.cards(index)):
            old_sum = checksum.sum_of(source.pieces(hdu.data_offset, data_stop))
            if checksum.are_right(source.cards(index), old_sum):
                stays = edit.pixels is None and edit.data is None
                cards = checksum.with_checksums(cards, old_sum if stays else checksum.sum_of(data()))
            else:
                wrong.append(index)
        sink.write(cd.join_header(cards))
        _copy(data(), sink)
        _copy(source.pieces(data_stop, source.stop(index)), sink)
    return tuple(wrong)


def _copy(pieces: Iterator[bytes], sink: Sink) -> None:
    for piece in pieces:
        sink.write(piece)


def _new_hdu(source: Source, index: int, edit: HduEdit) -> tuple[cd.Cards, Callable[[], Iterator[bytes]]]:
    """Return the header of a changed HDU, and a function that yields its data."""
    pixels, new = edit.pixels, edit.data
    if new is not None:
        return edit.cards, lambda: iter([new])
    if pixels is None:
        return edit.cards, lambda: source.pieces(source.file.hdus[index].data_offset, source.data_stop(index))
    if source.file.hdus[index].tiled:
        from skymatch_cli.record.compressed import rebuild

        cards, data = rebuild(source, index, edit.cards, pixels)
        return cards, lambda: iter([data])
    return edit.cards, lambda: _new_pixels(source, index, pixels)


def _new_pixels(source: Source, index: int, edit: PixelEdit) -> Iterator[bytes]:
    """The changed data of a plain image, and what fills its last block: zeros, or what was there before."""
    hdu, size = source.file.hdus[index], 0
    end = hdu.data_offset + hdu.n_bytes
    filler = source.read(end, 1) if source.data_stop(index) > end else b"\0"
    for first, raw in source.stored_pixels(index, edit.stored):
        data = edit.apply(raw, first).tobytes()
        size += len(data)
        yield data
    yield filler * (cd.padded(size) - size)
