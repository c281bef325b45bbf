"""The table that a person sees in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from skymatch_cli.choices import TableName
from skymatch_cli.plain import Cells, cells, is_number, summary
from skymatch_cli.printable import printable
from skymatch_cli.tables import Report

_TITLES = {
    "sky_err": "± error",
    "sky_unit": "unit",
    "n_pixels": "pixels",
    "n_images": "images",
    "n_overlaps": "overlaps",
    "n_overlap_pixels": "overlap pixels",
    "area_arcmin2": "arcmin²",
    "delta_err": "± error",
    "rms_residual": "rms residual",
}
_NAMES = frozenset({"image", "group", "a", "b", "anchor"})


def print_table(report: Report, name: str, *, console: Console | None = None) -> None:
    """Print one table, fitted to the width: long names are broken over lines, numbers never are."""
    shown = _columns(report, name)
    numbers = {column.name for column in report.table(name).columns if is_number(column)}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=summary(report), caption_justify="left")
    for title in shown:
        table.add_column(
            _TITLES.get(title, title),
            justify="right" if title in numbers else "left",
            no_wrap=title not in _NAMES,
            overflow="fold",
        )
    for row in zip(*shown.values(), strict=True):
        # Text, not str: a name may look like markup.
        table.add_row(*map(_cell, shown, row))
    (console or Console(highlight=False)).print(table)


def _cell(title: str, text: str) -> Text:
    return Text(text, style="bold yellow" if title == "status" and text != "ok" else "")


def _columns(report: Report, name: str) -> dict[str, Cells]:
    """The columns that say something: not the group where it is the file, not the component where there is one."""
    columns = dict(zip(*cells(report, name), strict=True))
    if name != TableName.IMAGES:
        return columns
    if columns["group"] == columns["file"]:
        del columns["group"]
    if len(report.components) <= 1:
        del columns["component"]
    for part in ("file", "ext", "extver"):
        del columns[part]
    return {"image": tuple(map(printable, report.labels))} | columns
