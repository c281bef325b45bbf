"""The bytes of the HDUs of an open FITS file: headers as cards, data in pieces."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import numpy as np

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.fitsfile import FitsFile
from skymatch_cli.images.formats.packing import ALWAYS_UNPACKED, most_unpacked, open_unpacked, read_exactly
from skymatch_cli.images.formats.pixelformat import Stored
from skymatch_cli.images.formats.tilecheck import opened_tiles
from skymatch_cli.model import Container, PixelFormat

_CHUNK = 4 * 2**20
_UNPACK_IN_MEMORY = 64 * 2**20
_CHUNK_PIXELS = 2**16  # temporaries that stay in the processor's cache
_BEHIND_THE_LAST = 64 * 2**20  # special records behind the last HDU


class Source:
    """An open FITS file."""

    def __init__(self, file: FitsFile, stream: IO[bytes]) -> None:
        self.file = file
        self.stream = stream
        self._cards: dict[int, cd.Cards] = {}

    def cards(self, index: int) -> cd.Cards:
        """Return the header of one HDU."""
        if index not in self._cards:
            hdu = self.file.hdus[index]
            self._cards[index] = cd.split_header(self.read(hdu.header_offset, hdu.header_size))
        return self._cards[index]

    def stop(self, index: int) -> int:
        """Return where an HDU ends; bytes that follow the last one go with it."""
        hdus = self.file.hdus
        return self.stream.seek(0, os.SEEK_END) if index + 1 == len(hdus) else hdus[index + 1].header_offset

    def data_stop(self, index: int) -> int:
        """Return where the last block of its data ends (the end of the file where that block is not whole)."""
        hdu = self.file.hdus[index]
        return min(self.stop(index), hdu.data_offset + cd.padded(hdu.data_size))

    def read(self, start: int, size: int) -> bytes:
        """Read some bytes of the file; EOFError if the file ends before."""
        return b"".join(self.pieces(start, start + size, size or 1))

    def pieces(self, start: int, stop: int, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to ``stop``, in pieces of ``size`` (the last may be shorter)."""
        while start < stop:
            self.stream.seek(start)
            piece = read_exactly(self.stream, min(size, stop - start))
            start += len(piece)
            yield piece

    def stored_pixels(self, index: int, form: PixelFormat) -> Iterator[tuple[int, Stored]]:
        """Yield the pixels of an image as stored (before packing): the number of the first of a piece, and these (n,).

        Of a tile-compressed image they are one piece; OSError if it is damaged.
        """
        hdu = self.file.hdus[index]
        if hdu.tiled:
            with opened_tiles(lambda: open_unpacked(self.file.path, self.file.container), index) as packed:
                pixels = packed.data.astype(form.dtype).ravel()
            yield 0, pixels
            return
        stop, size = hdu.data_offset + hdu.n_bytes, form.dtype.itemsize
        for k, piece in enumerate(self.pieces(hdu.data_offset, stop, _CHUNK_PIXELS * size)):
            yield k * _CHUNK_PIXELS, np.frombuffer(piece, dtype=form.dtype)


def _unpack(stream: IO[bytes], unpacked: IO[bytes], file: FitsFile) -> None:
    """Copy the bytes of a packed file, as far as its size makes them plausible.

    InputError if there are more (a few kilobytes can hold a terabyte of zeros), or they don't fit on the disk.
    """
    last, size = file.hdus[-1], 0
    needed = last.data_offset + last.n_bytes  # up to the last pixel, or row of a table
    most = most_unpacked(file.state[0])
    if last.is_image:  # of a table the heap is not in its shape
        most = max(min(most, needed + _BEHIND_THE_LAST), ALWAYS_UNPACKED)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > max(free, _UNPACK_IN_MEMORY):
        what = f"holds {needed >> 20} MiB, and {folder}, where it is unpacked, has {free >> 20} MiB free"
        raise InputError.at(file.path, what, "set TMPDIR to a larger disk, or unpack it first")
    while piece := stream.read(_CHUNK):
        size += len(piece)
        if size > most:
            what = f"holds more than {most >> 20} MiB in {file.state[0]} packed bytes"
            raise InputError.at(file.path, what, "unpack it first, if that is right")
        unpacked.write(piece)


@contextmanager
def open_source(file: FitsFile) -> Iterator[Source]:
    """Open a file; a packed one is unpacked first, because it is read more than once."""
    with open_unpacked(file.path, file.container) as stream:
        if file.container is Container.PLAIN:
            yield Source(file, stream)
            return
        with tempfile.SpooledTemporaryFile(max_size=_UNPACK_IN_MEMORY) as unpacked:
            _unpack(stream, cast("IO[bytes]", unpacked), file)
            yield Source(file, cast("IO[bytes]", unpacked))
