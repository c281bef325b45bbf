"""Binary tables of numbers and bytes, for the files between the steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_FORMS = {"i8": "K", "i4": "J", "f8": "D"}


@dataclass(frozen=True, slots=True)
class StoredTable:
    """Columns of one length: numbers (n,) or (n, k), words (n,) as bytes; or lists of bytes."""

    name: str
    columns: Mapping[str, Any]


def table_hdus(tables: Iterable[StoredTable]) -> list[Any]:
    """The tables as HDUs of astropy."""
    return [_hdu(table) for table in tables]


def read_tables(file: str, schema: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings of a file, and its tables by name: columns of numbers or words, or lists of bytes.

    Raises
    ------
    OSError, KeyError, ValueError
        If it can't be read, or has another layout.
    """
    from astropy.io import fits

    with fits.open(file, memmap=False) as hdus, Path(file).open("rb") as stream:
        found = hdus[0].header["SCHEMA"]
        if found != schema:
            raise ValueError(f"it has layout {found}, not {schema}")
        settings = json.loads(hdus[0].header["SETTINGS"])
        return settings, {hdu.name: _columns(hdu, stream) for hdu in hdus[1:]}


def _hdu(table: StoredTable) -> Any:
    from astropy.io import fits

    return fits.BinTableHDU.from_columns([_column(n, v) for n, v in table.columns.items()], name=table.name)


def _column(name: str, values: Any) -> Any:
    from astropy.io import fits

    if isinstance(values, np.ndarray):
        if values.dtype.kind == "S":
            return fits.Column(name=name, format=f"{values.dtype.itemsize}A", array=values)
        repeat = "" if values.ndim == 1 else str(values.shape[1])
        return fits.Column(name=name, format=repeat + _FORMS[values.dtype.str[1:]], array=values)
    rows = np.empty(len(values), object)
    for k, value in enumerate(values):  # one by one: arrays of one length would become a table
        rows[k] = np.frombuffer(value, np.uint8)
    return fits.Column(name=name, format="QB()", array=rows)


def _columns(hdu: Any, stream: Any) -> dict[str, Any]:
    return {column.name: _values(hdu, column, stream) for column in hdu.columns}


def _values(hdu: Any, column: Any, stream: Any) -> Any:
    if column.format[0] in "PQ":
        return _rows_of_bytes(hdu, column.name, stream)
    values = hdu.data[column.name]
    if values.dtype.kind in "SU":
        return np.array([str(v).strip() for v in values], object)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _rows_of_bytes(hdu: Any, name: str, stream: Any) -> list[bytes]:
    """The content of a column of bytes, cut from the heap of the table (FITS Standard 4.0, section 7.3.5)."""
    size = hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
    stream.seek(hdu.fileinfo()["datLoc"] + hdu.header.get("THEAP", size))
    heap = stream.read(hdu.header["PCOUNT"])
    where = np.recarray.field(hdu.data, name).reshape(-1, 2).tolist()
    rows = [heap[start : start + length] for length, start in where]
    if any(len(row) != length for row, (length, _) in zip(rows, where, strict=True)):
        raise ValueError("it is shorter than its tables say")
    return rows
