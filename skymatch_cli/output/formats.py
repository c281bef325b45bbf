"""A report as bytes, in every format: the same bytes for the same report, and every digit of a number.

JSON holds text as it is. The other formats have control characters as escapes (FITS: whatever is not ASCII), and
CSV has an apostrophe before text that a spreadsheet would run as a formula.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, TextIO

import numpy as np

from skymatch_cli.choices import Format
from skymatch_cli.output.plain import text_lines
from skymatch_cli.output.printable import ascii_only, harmless_cell, printable
from skymatch_cli.output.tables import SCHEMA, Column, Report, Table, meta_of, to_qtable

Writer = Callable[[Report, str, BinaryIO], None]


def write_table(report: Report, table: str, stream: BinaryIO) -> None:
    """Plain text: aligned columns, never cut."""
    with _text(stream) as text:
        text.writelines(line + "\n" for line in text_lines(report, table))


def write_csv(report: Report, table: str, stream: BinaryIO) -> None:
    """CSV of one table (RFC 4180, with newlines alone); text can't act on a terminal or in a spreadsheet."""
    chosen = _with_text(report.table(table), harmless_cell)
    with _text(stream) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(chosen.names)
        writer.writerows(chosen.rows())


def write_ecsv(report: Report, table: str, stream: BinaryIO) -> None:
    """ECSV of one table, with units, descriptions and settings."""
    from astropy.io import ascii as astropy_ascii

    made = to_qtable(_with_text(report.table(table), printable), meta=meta_of(report))
    with _text(stream) as text:
        astropy_ascii.write(made, text, format="ecsv")


def write_json(report: Report, table: str, stream: BinaryIO) -> None:  # noqa: ARG001 (holds all tables)
    """JSON of everything, one row a line."""
    with _text(stream) as text:
        text.writelines(json_chunks(report))


def write_fits(report: Report, table: str, stream: BinaryIO) -> None:  # noqa: ARG001 (holds all tables)
    """FITS: tables IMAGES, OVERLAPS, COMPONENTS; settings (as JSON) and warnings in the primary header."""
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header["CREATOR"] = f"skymatch {report.version}"
    primary.header["SCHEMA"] = (SCHEMA, "version of the layout of these tables")
    primary.header["SETTINGS"] = _dumps(report.settings)
    primary.header["NWARN"] = (len(report.warnings), "warnings (JSON), in WARN1, WARN2, ...")
    for number, warning in enumerate(report.warnings, start=1):
        primary.header[f"WARN{number}"] = ascii_only(json.dumps(warning.as_dict()))
    hdus = fits.HDUList([primary, *map(_fits_table, report.tables)])
    for hdu in hdus:
        if "\nCONTINUE" in hdu.header.tostring(sep="\n"):
            hdu.header["LONGSTRN"] = ("OGIP 1.0", "long strings go on in CONTINUE cards")
    whole = io.BytesIO()  # for other streams the library needs a name
    hdus.writeto(whole)
    stream.write(whole.getbuffer())
    report.appendix(stream)


def write_vot(report: Report, table: str, stream: BinaryIO) -> None:  # noqa: ARG001 (holds all tables)
    """VOTable of all three tables, with the settings and warnings as parameters and infos of the resource."""
    from astropy.io.votable.tree import Info, Param, Resource, TableElement, VOTableFile

    votable = VOTableFile(version="1.4")
    resource = Resource(name="skymatch")
    votable.resources.append(resource)
    for name, value in (("version", report.version), ("settings", _dumps(report.settings))):
        resource.params.append(
            Param(votable, ID=name, name=name, datatype="char", arraysize="*", value=ascii_only(value))
        )
    for number, warning in enumerate(report.warnings, start=1):
        resource.infos.append(
            Info(ID=f"warning{number}", name="warning", value=printable(f"{warning.name}: {warning}"))
        )
    for source in report.tables:
        element = TableElement.from_table(votable, to_qtable(_with_text(source, printable)))
        element.name = element.ID = source.name
        for column in element.fields:
            column.ID = None  # an ID is unique in its document, and two tables have columns of one name
            if column.arraysize == "1":  # strings of one character, which the standard wants to be called strings
                column.arraysize = "*"
        resource.tables.append(element)
    whole = io.BytesIO()
    # astropy's writer in C goes one byte beyond its buffer (astropy issue 20419); its writer in Python gives the same.
    votable.to_xml(whole, _debug_python_based_parser=True)
    # The library signs with its own version in a comment; the result shall not change with it.
    stream.write(re.sub(rb"<!--.*?-->\n?", b"", whole.getvalue(), count=1, flags=re.DOTALL))


WRITERS: dict[Format, Writer] = {
    Format.TABLE: write_table,
    Format.ECSV: write_ecsv,
    Format.CSV: write_csv,
    Format.JSON: write_json,
    Format.FITS: write_fits,
    Format.VOT: write_vot,
}


def json_chunks(report: Report) -> Iterator[str]:
    """The JSON document in pieces; NaN and infinities are null, floats the shortest that read back the same."""
    yield f'{{\n "schema": {SCHEMA},\n "version": {_dumps(report.version)},\n "settings": {_dumps(report.settings)}'
    for table in report.tables:
        yield f',\n "{table.name}": ['
        separator = "\n  "
        for row in _json_rows(table):
            yield separator + row
            separator = ",\n  "
        yield "\n ]" if len(table) else "]"
    yield f',\n "warnings": {_dumps([warning.as_dict() for warning in report.warnings])}\n}}\n'


def _json_rows(table: Table) -> Iterator[str]:
    columns = (
        [v if math.isfinite(v) else None for v in c.values.tolist()]
        if c.values.dtype.kind == "f"
        else c.values.tolist()
        for c in table.columns
    )
    return (_dumps(dict(zip(table.names, row, strict=True))) for row in zip(*columns, strict=True))


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


@contextmanager
def _text(stream: BinaryIO) -> Iterator[TextIO]:
    """Text on a stream of bytes; file names that are not UTF-8 keep their bytes."""
    wrapper = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="\n")
    try:
        yield wrapper
        wrapper.flush()
    finally:
        wrapper.detach()


def _with_text(table: Table, convert: Callable[[str], str]) -> Table:
    """The table with its text converted."""

    def converted(column: Column) -> Column:
        if column.values.dtype != object:
            return column
        return replace(column, values=np.array([convert(text) for text in column.values], dtype=object))

    return Table(table.name, tuple(map(converted, table.columns)))


def _fits_table(table: Table) -> Any:
    from astropy.io import fits

    columns = []
    for column in _with_text(table, ascii_only).columns:
        kind = column.values.dtype.kind
        width = max((len(text) for text in column.values), default=0) if kind == "O" else column.values.dtype.itemsize
        values = column.values.astype(f"S{max(width, 1)}") if kind == "O" else column.values
        form = {"i": "K", "f": "D"}.get(kind, f"{max(width, 1)}A")
        columns.append(fits.Column(name=column.name, format=form, unit=_fits_unit(column.unit), array=values))
    hdu = fits.BinTableHDU.from_columns(columns, name=table.name.upper())
    for number, column in enumerate(table.columns, start=1):
        hdu.header[f"TCOMM{number}"] = column.description
    return hdu


def _fits_unit(unit: str) -> str | None:
    """The unit for a FITS column; None where FITS knows no such unit, and its readers would complain."""
    from astropy import units

    try:
        units.Unit(unit, format="fits")
    except ValueError:
        return None
    return unit or None
