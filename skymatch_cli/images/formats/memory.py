# ruff: noqa: D102 - the methods of a stream are known
"""Images in memory: their arrays seen as the bytes of a FITS file, under names by which they are read."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import IO, Any, cast

import numpy as np

from skymatch_cli.images.formats.cards import padded


class FitsView(io.RawIOBase):
    """Headers and arrays, one after the other, as the bytes of a FITS file; arrays are turned as they are read.

    ``parts``: of each HDU its header in whole blocks, and its data (array or bytes), which is filled up to blocks.
    ``stack`` is closed with the view.
    """

    def __init__(self, parts: Sequence[tuple[bytes, Any]], stack: ExitStack | None = None) -> None:
        super().__init__()
        self._stack = stack or ExitStack()
        self._at = 0
        self._segments: list[tuple[int, int, bytes | np.ndarray[Any, Any]]] = []  # start, stop, content
        start = 0
        for header, array in parts:
            data: Any = array if isinstance(array, bytes) else np.asarray(array).reshape(-1)
            for content, size in ((header, len(header)), (data, memoryview(data).nbytes)):
                self._segments.append((start, start + size, content))
                start += padded(size)
        self._size = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        with memoryview(buffer).cast("B") as view:
            n = max(0, min(len(view), self._size - self._at))
            view[:n] = bytes(n)
            for start, stop, content in self._segments:
                low, high = max(start, self._at), min(stop, self._at + n)
                if low < high:
                    view[low - self._at : high - self._at] = _bytes(content, low - start, high - start)
        self._at += n
        return n

    def close(self) -> None:
        if not self.closed:
            self._stack.close()
        super().close()


def _bytes(content: bytes | np.ndarray[Any, Any], low: int, high: int) -> bytes:
    """Bytes ``low`` to ``high`` of a header, or of an array in the byte order of FITS."""
    if isinstance(content, bytes):
        return content[low:high]
    size = content.itemsize
    first = low // size
    values = content[first : -(-high // size)]
    return values.astype(values.dtype.newbyteorder(">")).tobytes()[low - first * size : high - first * size]


PREFIX = "skymatch-memory://"

_NUMBERS = itertools.count()
_HELD: dict[str, Sequence[tuple[bytes, Any]]] = {}


def hold(parts: Sequence[tuple[bytes, Any]], name: str) -> str:
    """Make HDUs, as `FitsView` takes them, readable under a path that ends with ``name``, until `release`."""
    path = f"{PREFIX}{next(_NUMBERS)}/{name}"
    _HELD[path] = parts
    return path


def release(paths: Iterable[str]) -> None:
    """Forget images."""
    for path in paths:
        _HELD.pop(path, None)


def open_file(path: str) -> IO[bytes]:
    """Open the bytes of an image that is held."""
    if path not in _HELD:
        raise FileNotFoundError(path)
    return cast("IO[bytes]", FitsView(_HELD[path]))


def size_and_version(path: str) -> tuple[int, int]:
    """Return the size in bytes; what is held does not change."""
    with open_file(path) as view:
        return view.seek(0, 2), 0
