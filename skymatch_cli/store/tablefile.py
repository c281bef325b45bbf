"""Files of binary tables, whose rows are read when they are asked for; what they hold is not kept.

What a table holds in bytes lies on its heap, after its rows (FITS Standard 4.0, section 7.3.5). The file stays open.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_READ_BYTES = 2**16  # of rows or of bytes at a time
_SCATTERED = 16  # rows for each that is needed, up to which all between are read at once
_MOST_COLUMNS = 999  # of the FITS standard; astropy would look for as many as a damaged header says


class TableFile:
    """A file of tables, open for reading.

    Parameters
    ----------
    file : str
    schema : int
        The layout that it must have.

    Attributes
    ----------
    settings : dict
    tables : dict of str to TableRows

    Raises
    ------
    OSError, KeyError, ValueError
        If it can't be read, is cut, or has another layout.
    """

    def __init__(self, file: str, schema: int) -> None:
        from astropy.io import fits

        with fits.open(file, memmap=False) as hdus:
            found = hdus[0].header["SCHEMA"]
            if found != schema:
                raise ValueError(f"it has layout {found}, not {schema}")
            self.settings: dict[str, Any] = json.loads(hdus[0].header["SETTINGS"])
            content = FileBytes.of(file)
            self.tables: dict[str, TableRows] = {}
            last = -1
            for hdu in hdus:  # one after another: sizes below 0 would lead astropy back to where it was, for ever
                last, before = hdu.fileinfo()["hdrLoc"], last
                if last <= before:
                    raise ValueError("its tables lie one in another")
                if last:
                    self.tables[hdu.name] = TableRows.of(hdu, content)


class FileBytes:
    """The bytes of a file, which is closed when nobody needs it; processes that share it don't disturb one another.

    Parameters
    ----------
    fd : int
        The open file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        weakref.finalize(self, os.close, fd)

    @classmethod
    def of(cls, file: str) -> FileBytes:
        """Those of a file, to read.

        Raises
        ------
        OSError
            If it can't be opened.
        """
        return cls(os.open(file, os.O_RDONLY))

    def __reduce__(self) -> str:
        raise TypeError("an open file is of no use to a process that did not inherit it")

    @property
    def size(self) -> int:
        """How many there are."""
        return os.fstat(self._fd).st_size

    def read(self, size: int, at: int) -> bytes:
        """So many bytes from a place.

        Raises
        ------
        OSError, ValueError
            If they can't be read, or there are fewer.
        """
        content = os.pread(self._fd, size, at)
        while len(content) < size and (more := os.pread(self._fd, size - len(content), at + len(content))):
            content += more
        if len(content) < size:
            raise ValueError("it is shorter than it says")
        return content

    def write(self, content: bytes, at: int) -> None:
        """Put bytes at a place.

        Raises
        ------
        OSError
            If they can't be written.
        """
        left = memoryview(content)
        while left:
            n = os.pwrite(self._fd, left, at)
            left, at = left[n:], at + n

    def sync(self) -> None:
        """Have them on the disk."""
        os.fsync(self._fd)


@dataclass(frozen=True, slots=True, eq=False)
class TableRows(Mapping[str, Any]):
    """A table in a file: a mapping of its columns, which are read when they are asked for.

    Columns are numbers (n,) or (n, k), words (n,) as str, or sequences of bytes, which stay in the file (`HeapRows`).
    """

    dtype: np.dtype[Any]
    in_heap: frozenset[str]
    n: int
    _at: int
    _heap_at: int
    _heap_size: int
    _content: FileBytes

    @classmethod
    def of(cls, hdu: Any, content: FileBytes) -> TableRows:
        """The table of an HDU of astropy."""
        header, at = hdu.header, hdu.fileinfo()["datLoc"]
        if not 0 < header["TFIELDS"] <= _MOST_COLUMNS or header["NAXIS1"] <= 0 or header["GCOUNT"] != 1:
            raise ValueError(f"its table {hdu.name} is none")
        dtype = hdu.columns.dtype.newbyteorder(">")
        n, size, heap = header["NAXIS2"], header["NAXIS1"] * header["NAXIS2"], header["PCOUNT"]
        gap = header.get("THEAP", size) - size
        if dtype.itemsize != header["NAXIS1"] or min(n, gap, heap - gap) < 0:
            raise ValueError(f"its table {hdu.name} contradicts itself")
        if at + size + heap > content.size:
            raise ValueError("it is shorter than its tables say")
        in_heap = frozenset(column.name for column in hdu.columns if column.format[0] in "PQ")
        return cls(dtype, in_heap, n, at, at + size + gap, heap - gap, content)

    def __len__(self) -> int:
        """Columns, as of any mapping; ``n`` counts the rows."""
        return len(self.dtype.names or ())

    def __iter__(self) -> Iterator[str]:
        return iter(self.dtype.names or ())

    def __contains__(self, name: object) -> bool:
        return name in (self.dtype.names or ())

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        if name in self.in_heap:
            return HeapRows(self, name)
        return _words(self.raw(name))

    def raw(self, name: str) -> npt.NDArray[Any]:
        """A column of numbers, or of words as bytes (``S``)."""
        return np.concatenate([_native(self._rows(low, high)[name]) for low, high in self._spans()])

    def part(self, low: int, high: int) -> dict[str, Any]:
        """The columns of the rows ``low`` to ``high``, what is bytes as lists."""
        rows = self._rows(low, high)
        return {name: self._bytes(rows[name]) if name in self.in_heap else _words(_native(rows[name])) for name in self}

    @property
    def rows_at_a_time(self) -> int:
        """Rows that hold little enough to be read at once."""
        size = self.dtype.itemsize + self._heap_size // max(self.n, 1)
        return max(_READ_BYTES // max(size, 1), 1)

    def heap(self, name: str, rows: npt.NDArray[np.int64]) -> list[bytes]:
        """A column of bytes, of some rows in any order."""
        if not len(rows):
            return []
        low, high = int(rows.min()), int(rows.max()) + 1
        if high - low <= _SCATTERED * len(rows):
            where = self._rows(low, high)[name][rows - low]
        else:
            where = np.concatenate([self._rows(k, k + 1)[name] for k in rows.tolist()])
        return self._bytes(where)

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Some rows at a time; one empty span where there is none."""
        step = max(_READ_BYTES // max(self.dtype.itemsize, 1), 1)
        return ((low, min(low + step, self.n)) for low in range(0, max(self.n, 1), step))

    def _rows(self, low: int, high: int) -> npt.NDArray[Any]:
        if not 0 <= low <= high <= self.n:
            raise IndexError(f"there are {self.n} rows")
        size = self.dtype.itemsize
        return np.frombuffer(self._content.read((high - low) * size, self._at + low * size), self.dtype)

    def _bytes(self, where: npt.NDArray[Any]) -> list[bytes]:
        """What descriptors (n, 2) of size and place in the heap stand for; read at once where it lies together."""
        size, start = where[:, 0].astype(np.int64), where[:, 1].astype(np.int64)
        if not len(where):
            return []
        inside = (size >= 0) & (size <= self._heap_size) & (start >= 0)
        if not (inside & (start <= self._heap_size - size)).all():  # a sum could overflow
            raise ValueError("it is shorter than its tables say")
        first, last = int(start.min()), int((start + size).max())
        places = zip(start.tolist(), size.tolist(), strict=True)
        if last - first > 2 * size.sum():
            return [self._content.read(n, self._heap_at + at) for at, n in places]
        together = self._content.read(last - first, self._heap_at + first)
        return [together[at - first : at - first + n] for at, n in places]


@dataclass(frozen=True, slots=True, eq=False)
class HeapRows(Sequence[bytes]):
    """A column of bytes that stays in its file."""

    table: TableRows
    name: str

    def __len__(self) -> int:
        return self.table.n

    def __getitem__(self, k: Any) -> Any:
        rows = np.arange(len(self))[k]
        return self.table.heap(self.name, rows) if isinstance(k, slice) else self.table.heap(self.name, rows[None])[0]

    def __iter__(self) -> Iterator[bytes]:
        step = self.table.rows_at_a_time
        for low in range(0, len(self), step):
            yield from self[low : low + step]


def _native(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array(values, values.dtype.newbyteorder("="))  # a copy: rows are let go


def _words(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind != "S":
        return values
    return np.array([word.decode("ascii").strip() for word in values.tolist()], object)
