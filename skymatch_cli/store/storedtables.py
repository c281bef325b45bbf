"""Binary tables of numbers and bytes, for the files between the steps: written a few rows at a time.

What a table holds in bytes lies on its heap, after its rows (FITS Standard 4.0, section 7.3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

_FORMS = {"i8": "K", "i4": "J", "f8": "D"}
_BLOCK = 2880  # bytes: every part of a FITS file is a whole number of blocks

Columns = Mapping[str, Any]
"""Columns of one length: numbers (n,) or (n, k), words (n,) as bytes (``S``) or sequences of bytes."""


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table to write.

    Attributes
    ----------
    name : str
    n : int
        Rows.
    blocks : callable
        Makes its rows, some at a time and at least once, in blocks with the same columns.
    """

    name: str
    n: int
    blocks: Callable[[], Iterable[Columns]]

    @classmethod
    def of(cls, name: str, columns: Columns) -> StoredTable:
        """A table of columns that are there."""
        return cls(name, len(next(iter(columns.values()))), lambda: [columns])


def in_blocks(n: int, step: int, rows: Callable[[int, int], Columns]) -> Callable[[], Iterator[Columns]]:
    """The ``blocks`` of a table: what ``rows(low, high)`` makes of ``n`` things, ``step`` at a time."""

    def blocks() -> Iterator[Columns]:
        for low in range(0, max(n, 1), step):
            yield rows(low, min(low + step, n))

    return blocks


def write_tables(tables: Iterable[StoredTable], stream: BinaryIO) -> None:
    """Write tables one after another as HDUs, where a stream that can seek stands."""
    for table in tables:
        _write(table, stream)


def _write(table: StoredTable, stream: BinaryIO) -> None:
    """The rows go to their places while the heap grows behind them; the header, which counts its bytes, comes last."""
    blocks = iter(table.blocks())
    block = next(blocks)
    forms = {name: _form(values) for name, values in block.items()}
    dtype = np.dtype([(name, form.dtype) for name, form in forms.items()])
    header_at = stream.tell()
    rows_at = header_at + len(_header(table, forms, 0))
    heap_at, row, heap = rows_at + table.n * dtype.itemsize, 0, 0
    while True:
        rows = np.zeros(_length(block), dtype)
        pieces: list[bytes] = []
        for name, values in block.items():
            if forms[name].in_heap:
                sizes = np.fromiter(map(len, values), np.int64, len(rows))
                rows[name][:, 0] = sizes
                rows[name][:, 1] = heap + np.cumsum(sizes) - sizes
                heap += int(sizes.sum())
                forms[name].longest = max(forms[name].longest, int(sizes.max(initial=0)))
                pieces.extend(values)
            else:
                rows[name] = values
        stream.seek(rows_at + row * dtype.itemsize)
        stream.write(rows.tobytes())
        row += len(rows)
        stream.seek(heap_at + heap - sum(map(len, pieces)))
        stream.writelines(pieces)
        if (following := next(blocks, None)) is None:
            break
        block = following
    if row != table.n:
        raise ValueError(f"table {table.name} has {row} rows, not {table.n}")
    end = heap_at + heap
    stream.seek(end)
    stream.write(bytes(-(end - rows_at) % _BLOCK))
    following_at = stream.tell()
    stream.seek(header_at)
    stream.write(_header(table, forms, heap))
    stream.seek(following_at)


@dataclass(slots=True)
class _Form:
    """How a column is kept: its part of a row, and for bytes the most that one row has."""

    code: str
    dtype: Any
    in_heap: bool = False
    longest: int = 0

    def __str__(self) -> str:
        return f"QB({self.longest})" if self.in_heap else self.code


def _form(values: Any) -> _Form:
    if not isinstance(values, np.ndarray):
        return _Form("QB()", (">i8", (2,)), in_heap=True)
    if values.dtype.kind == "S":
        return _Form(f"{values.dtype.itemsize}A", values.dtype)
    repeat = () if values.ndim == 1 else values.shape[1:]
    return _Form("".join(map(str, repeat)) + _FORMS[values.dtype.str[1:]], (values.dtype.newbyteorder(">"), repeat))


def _header(table: StoredTable, forms: Mapping[str, _Form], heap: int) -> bytes:
    from astropy.io import fits

    columns = [fits.Column(name=name, format=form.code) for name, form in forms.items()]
    header = fits.BinTableHDU.from_columns(columns, nrows=0, name=table.name).header
    header["NAXIS2"], header["PCOUNT"] = table.n, heap
    for number, form in enumerate(forms.values(), start=1):
        header[f"TFORM{number}"] = str(form)
    text: str = header.tostring()
    return text.encode("ascii")


def _length(block: Columns) -> int:
    return len(next(iter(block.values())))
