"""The tables of a result as the HTML report shows them: cut where a browser would choke."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import TableName
from skymatch_cli.model import FloatArray, IntArray, StrArray
from skymatch_cli.output.plain import cells, is_number
from skymatch_cli.output.tables import Column, Report, Table

MOST_ROWS = 5000  # of a table, and shapes on the map: a browser stays quick, the file stays small
_UNIT_OF = {  # the column that names the unit, and the columns that are in it
    TableName.IMAGES: ("sky_unit", frozenset({"sky", "sky_err"})),
    TableName.OVERLAPS: ("unit", frozenset({"sky_a", "sky_b", "delta", "delta_err", "residual"})),
}
# what one looks for in a table
_FIRST = ("image", "sky", "sky_err", "a", "b", "residual", "pull", "delta", "delta_err", "sky_a", "sky_b")


@dataclass(frozen=True, slots=True)
class Heading:
    """The head of a column; ``text`` explains it."""

    title: str
    unit: str
    text: str
    numeric: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table ready to be shown.

    Attributes
    ----------
    id, title : str
    headings : tuple of Heading
    rows : list of (key, cells)
        The key is the row's index in the result.
    sorted_by : str
        Title of the column by which the rows stand.
    direction : {"ascending", "descending"}
    note : str
    """

    id: str
    title: str
    headings: tuple[Heading, ...]
    rows: list[tuple[int, tuple[str, ...]]]
    sorted_by: str
    direction: str
    note: str


@dataclass(frozen=True, slots=True)
class OverlapColumns:
    """What several pictures of the overlaps want.

    Attributes
    ----------
    a, b : (M,) int64
    area_arcmin2 : (M,) float64
    residual, pull : (M,) float64
        Pull: residual over the error of the difference; NaN where a pair is not used.
    status : (M,) object
    unit : str
        "" where units differ or there are none.
    worst_first : (M,) int64
        Indices by falling size of the pull.
    drawing_order : (M,) int64
        Large overlaps first and, where they are of one size, small pulls first: what matters lies on top.
    """

    a: IntArray
    b: IntArray
    area_arcmin2: FloatArray
    residual: FloatArray
    pull: FloatArray
    status: StrArray
    unit: str
    worst_first: IntArray
    drawing_order: IntArray

    @classmethod
    def of(cls, overlaps: Table) -> OverlapColumns:
        """Taken from the table of overlaps."""
        residual, area = overlaps.column("residual"), overlaps.column("area_arcmin2")
        pull = residual / overlaps.column("delta_err")
        size = np.nan_to_num(np.abs(pull), nan=-1.0)
        rounded = np.round(area / max(area.max(initial=0.0), 1e-300), 6)
        return cls(
            a=overlaps.column("a"),
            b=overlaps.column("b"),
            area_arcmin2=area,
            residual=residual,
            pull=pull,
            status=overlaps.column("status"),
            unit=common(overlaps.column("unit")),
            worst_first=np.argsort(-size, kind="stable"),
            drawing_order=np.lexsort((size, -rounded)),
        )


def common(words: npt.NDArray[Any]) -> str:
    """The word that all share, "" where they differ."""
    different = set(words.tolist())
    return str(different.pop()) if len(different) == 1 else ""


def sheets(report: Report, overlaps: OverlapColumns) -> tuple[Sheet, Sheet, Sheet]:
    """The three tables; overlaps with the pull beside the residual, the largest first."""
    shown = overlaps.worst_first[:MOST_ROWS]
    pull = Column("pull", overlaps.pull[shown], "residual / delta_err")
    return (
        _sheet(report, TableName.IMAGES, np.arange(len(report.images)), "the first"),
        _sheet(report, TableName.OVERLAPS, overlaps.worst_first, "those with the largest pulls, the first", pull),
        _sheet(report, TableName.COMPONENTS, np.arange(len(report.components)), "the first"),
    )


def _sheet(report: Report, name: TableName, order: IntArray, which: str, *more: Column) -> Sheet:
    whole = report.table(name)
    shown = order[:MOST_ROWS]
    unit_column, in_unit = _UNIT_OF.get(name, ("", frozenset[str]()))
    unit = common(whole.column(unit_column)) if unit_column else ""
    columns = [replace(c, values=c.values[shown]) for c in _telling(report, whole, unit_column)]
    columns = sorted((*columns, *more), key=lambda c: _FIRST.index(c.name) if c.name in _FIRST else len(_FIRST))
    _, text = cells(_with(report, Table(name, tuple(columns))), name)
    text = [tuple(f"{v:.2f}" for v in c.values) if c.name == "pull" else t for c, t in zip(columns, text, strict=True)]
    headings = (
        Heading("#", "", "Index in the result", numeric=True),
        *(Heading(c.name, unit if c.name in in_unit else "", c.description, is_number(c)) for c in columns),
    )
    rows = [
        (k, (str(k), *("–" if cell == "nan" else cell for cell in row)))
        for k, row in zip(shown.tolist(), zip(*text, strict=True), strict=True)
    ]
    sorted_by, direction = ("pull", "other") if more else ("#", "ascending")
    return Sheet(name.value, name.value.capitalize(), headings, rows, sorted_by, direction, _cut(len(whole), which))


def _with(report: Report, table: Table) -> Report:
    """The report with another table in the place of that name."""
    others: dict[str, Any] = {str(table.name): table}
    return replace(report, **others)


def _telling(report: Report, table: Table, unit_column: str) -> Iterator[Column]:
    """The columns that say something: one name for an image, no unit or group that is the same everywhere."""
    if table.name == TableName.IMAGES:
        yield Column("image", np.array(report.labels, dtype=object), "Image as the user named it")
    for column in table.columns:
        same = column.name == unit_column and len(set(column.values.tolist())) < 2
        by_file = column.name == "group" and np.array_equal(column.values, table.column("file"))
        if not same and not by_file and column.name not in {"file", "ext", "extver", "id"}:
            yield column


def _cut(n: int, which: str) -> str:
    return f"Of {n} rows these are {which} {MOST_ROWS}; the result file has all." if n > MOST_ROWS else ""


def without_folder(report: Report) -> tuple[Report, str]:
    """The report with names that don't repeat the folder which all images share, and that folder."""
    files = [str(file) for file in report.images.column("file")]
    folders = {file[: file.rfind("/") + 1] for file in files}
    folder = folders.pop() if len(folders) == 1 else ""

    def short(column: Column) -> Column:
        names = np.array([str(name).removeprefix(folder) for name in column.values], dtype=object)
        return replace(column, values=names) if column.name in {"file", "group"} else column

    images = Table(report.images.name, tuple(map(short, report.images.columns)))
    labels = tuple(label.removeprefix(folder) for label in report.labels)
    return replace(report, images=images, labels=labels), folder
