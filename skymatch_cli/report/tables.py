"""The tables of the HTML report: columns that are not the same everywhere, cut to what a browser can show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.choices import TableName
from skymatch_cli.model import IntArray
from skymatch_cli.output.plain import cells, is_number
from skymatch_cli.output.tables import IN_UNIT, Column, Report, Table

from .overlaps import OverlapColumns, common_word

MOST_ROWS = 5000  # of a table, and shapes on the map: a browser stays quick, the file stays small
_UNIT_COLUMNS = ("sky_unit", "unit")
_UNITS = {"n_pixels": "pixels", "n_a": "pixels", "n_b": "pixels", "pull": "σ", "arcmin2": "arcmin²"}
# what one looks for in a table comes first
_FIRST = (
    *("image", "sky", "sky_err", "sky_err_noise"),
    *("a", "b", "residual", "pull", "delta", "delta_err", "sky_a", "sky_b"),
)
_NAMES = frozenset({"image", "a", "b", "group"})


@dataclass(frozen=True, slots=True)
class Heading:
    """The head of a column; ``text`` explains it, ``kind`` is "number", "name" (may wrap) or "word"."""

    title: str
    unit: str
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table ready to be shown."""

    id: str
    title: str
    headings: tuple[Heading, ...]
    rows: list[tuple[int, tuple[str, ...]]]  # (key, cells): the key is the row's index in the result
    sorted_by: str  # title of the column by which the rows are sorted
    direction: str  # {"ascending", "descending"}
    note: str  # what was left out, "" if nothing was


def sheets(report: Report, overlaps: OverlapColumns) -> tuple[Sheet, Sheet, Sheet]:
    """Lay out the three tables; the overlaps get a column of pulls and are sorted by it, the largest first."""
    shown = overlaps.worst_first[:MOST_ROWS]
    pull = Column("pull", overlaps.pull[shown], "residual / delta_err")
    every_image, every_component = np.arange(len(report.images)), np.arange(len(report.components))
    return (
        _sheet(report, TableName.IMAGES, every_image, "the first", overlaps.unit),
        _sheet(report, TableName.OVERLAPS, overlaps.worst_first, "those with the largest pulls,", overlaps.unit, pull),
        _sheet(report, TableName.COMPONENTS, every_component, "the first", overlaps.unit),
    )


def _sheet(report: Report, name: TableName, order: IntArray, which: str, unit: str, *more: Column) -> Sheet:
    """Lay out one table; ``unit`` is that of its values where the table has no column of units."""
    whole = report.table(name)
    shown = order[:MOST_ROWS]
    unit_column = next((column for column in _UNIT_COLUMNS if column in whole.names), "")
    unit = common_word(whole.column(unit_column)) if unit_column else unit
    columns = [replace(c, values=c.values[shown]) for c in _shown_columns(report, whole, unit_column)]
    columns = sorted((*columns, *more), key=lambda c: _FIRST.index(c.name) if c.name in _FIRST else len(_FIRST))
    text = cells(Table(name, tuple(columns)), report.labels)
    text |= {c.name: tuple(f"{value:.2f}" for value in c.values) for c in more}
    rows = [
        (k, (str(k), *("–" if cell == "nan" else cell for cell in row)))
        for k, row in zip(shown.tolist(), zip(*text.values(), strict=True), strict=True)
    ]
    headings = (Heading("#", "", "Index in the result", "number"), *(_heading(c, unit) for c in columns))
    sorted_by, direction = ("pull", "other") if more else ("#", "ascending")
    return Sheet(name.value, name.value.capitalize(), headings, rows, sorted_by, direction, _cut(len(whole), which))


def _heading(column: Column, unit: str) -> Heading:
    """Name a column, with its unit below the name."""
    if (per := IN_UNIT.get(column.name)) is not None:
        shown = f"{unit} / pixel" if per and unit else unit
    else:
        shown = _UNITS.get(column.name) or _UNITS.get(column.unit, column.unit)
    kind = "name" if column.name in _NAMES else "number" if is_number(column) else "word"
    title = "area" if column.name == "area_arcmin2" else column.name
    return Heading(title, shown, f"{column.name}: {column.description}", kind)


def _shown_columns(report: Report, table: Table, unit_column: str) -> Iterator[Column]:
    """Yield the columns to show: one name per image, no unit or group that is the same everywhere."""
    if table.name == TableName.IMAGES:
        yield Column("image", np.array(report.labels, dtype=object), "Image as the user named it")
    for column in table.columns:
        same = column.name == unit_column and len(set(column.values.tolist())) < 2
        by_file = column.name == "group" and np.array_equal(column.values, table.column("file"))
        if not same and not by_file and column.name not in {"file", "ext", "extver", "id"}:
            yield column


def _cut(n: int, which: str) -> str:
    return f"{MOST_ROWS} of {n} rows are shown: {which} {MOST_ROWS}. The result file has all." if n > MOST_ROWS else ""


def with_short_names(report: Report) -> tuple[Report, str]:
    """Shorten the names of the images, in warnings too, by what all share: the folder, and in tables the extension.

    Also return what was left out, for people; "" if nothing was.
    """
    files = [str(file) for file in report.images.column("file")]
    folders = {file[: file.rfind("/") + 1] for file in files}
    folder = folders.pop() if len(folders) == 1 else ""
    selectors = {label[label.rindex("[") :] if label.endswith("]") else "" for label in report.labels}
    selector = selectors.pop() if len(selectors) == 1 and len(set(files)) == len(files) else ""

    def short(column: Column) -> Column:
        names = np.array([str(name).removeprefix(folder) for name in column.values], dtype=object)
        return replace(column, values=names) if column.name in {"file", "group"} else column

    images = Table(report.images.name, tuple(map(short, report.images.columns)))
    labels = tuple(label.removeprefix(folder).removesuffix(selector) for label in report.labels)
    parts = (folder and f"in {folder}", selector and f"extension {selector} of its file")
    note = ", ".join(part for part in parts if part)
    beginning = re.compile(rf"(?<![^\s('\"]){re.escape(folder)}")
    warnings = tuple(replace(said, text=beginning.sub("", said.text)) for said in report.warnings)
    return replace(report, images=images, labels=labels, warnings=warnings), note and f"Each image is {note}."
