"""What a person sees in a terminal: the table of the images or overlaps, and with ``-v`` how well overlaps agree."""

from __future__ import annotations

from io import StringIO

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from skymatch_cli.choices import TableName
from skymatch_cli.errors import plural
from skymatch_cli.model import Status
from skymatch_cli.output.plain import Cells, cells, is_number, number_format, summary, text_lines
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import Report

_TITLES = {
    **{"sky_err": "± error", "delta_err": "± error", "sky_unit": "unit", "area_arcmin2": "arcmin²"},
    **{"n_pixels": "pixels", "n_images": "images", "n_overlaps": "overlaps", "n_overlap_pixels": "overlap pixels"},
    **{"rms_residual": "rms residual", "step_before": "step before", "step_after": "after"},
}
_NAMES = frozenset({"image", "group", "a", "b", "anchor"})
_MIN_NAME_WIDTH = 12
_GAP = 2
_EXPENDABLE = (
    *("n_a", "n_b", "sky_a", "sky_b", "area_arcmin2", "n_pixels", "dof", "rms_residual"),
    *("unit", "sky_unit", "n_overlap_pixels", "chi2"),
)
_WORST = 8  # overlaps that are listed
_NOTABLE, _LARGE = 3.0, 5.0  # pulls that get a colour
_BAR = 12  # characters of the bar of a pull of `_LARGE`
_PLAIN_WIDTH = 240  # without a terminal


def print_table(report: Report, name: str, *, console: Console | None = None) -> None:
    """Print one table, fitted to the width: long names are broken; columns without room are left out, and named."""
    console = console or Console(highlight=False)
    columns = _columns(report, name)
    left_out = []
    for title in _EXPENDABLE:
        if title in columns and _needed_width(columns) > console.width:
            left_out.append(title)
            del columns[title]
    note = f"; no room for {', '.join(left_out)}" if left_out else ""
    if _needed_width(columns) > console.width:
        console.out("\n".join(text_lines(report, name)))
    else:
        numbers = {column.name for column in report.table(name).columns if is_number(column)}
        console.print(_drawn(columns, numbers))
    console.out(summary(report) + note)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _drawn(columns: dict[str, Cells], numbers: set[str]) -> Table:
    table = _table()
    for title, texts in columns.items():
        is_name = title in _NAMES
        table.add_column(
            _TITLES.get(title, title),
            justify="right" if title in numbers else "left",
            min_width=None if is_name else _width(title, texts),
            no_wrap=not is_name,
            overflow="fold",
        )
    for row in zip(*columns.values(), strict=True):
        # Text, not str: a name may look like markup.
        table.add_row(*map(_cell, columns, row))
    return table


def _cell(title: str, text: str) -> Text:
    return Text(text, style="bold yellow" if title == "status" and text != "ok" else "")


def _width(title: str, texts: Cells) -> int:
    return max(map(cell_len, (_TITLES.get(title, title), *texts)))


def _needed_width(columns: dict[str, Cells]) -> int:
    widths = (min(_width(t, c), _MIN_NAME_WIDTH) if t in _NAMES else _width(t, c) for t, c in columns.items())
    return sum(widths) + _GAP * len(columns)


def _columns(report: Report, name: str) -> dict[str, Cells]:
    """Return the columns to show: no group that is the file, no component if there is one only."""
    columns = cells(report.table(name), report.labels)
    if name != TableName.IMAGES:
        return columns
    columns.pop("sky_err_noise", None)
    if columns["group"] == columns["file"]:
        del columns["group"]
    if len(report.components) <= 1:
        del columns["component"]
    for part in ("file", "ext", "extver"):
        del columns[part]
    return {"image": tuple(map(printable, report.labels))} | columns


def print_overlaps(report: Report, console: Console) -> None:
    """Summarise the overlaps on a console in one line, and list the worst, the worst first."""
    table = report.overlaps
    residual, err, status = (table.column(name) for name in ("residual", "delta_err", "status"))
    measured = (status == Status.OK) | (status == Status.DOWN_WEIGHTED)
    used = np.flatnonzero(measured & np.isfinite(residual) & (err > 0))
    if not len(used):
        console.print(Text("no overlap has a residual"))
        return
    pull = np.abs(residual[used]) / err[used]
    console.print(
        Text(
            f"residual / error of {plural(len(used), 'overlap')}: median {np.median(pull):.2f}, "
            f"largest {pull.max():.2f}; above {_NOTABLE:g}: {np.count_nonzero(pull > _NOTABLE)}"
        )
    )
    drawn = _table()
    drawn.add_column("overlap", overflow="fold")
    for title in ("residual", "± error", "ratio"):
        drawn.add_column(title, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    write = number_format(residual[used], err[used])
    a, b, labels = table.column("a"), table.column("b"), tuple(map(printable, report.labels))
    for k in np.argsort(-pull, kind="stable")[:_WORST].tolist():
        e, size = used[k], float(pull[k])
        style = "red" if size > _LARGE else "yellow" if size > _NOTABLE else ""
        bar = Text("━" * max(1, round(_BAR * min(size / _LARGE, 1.0))), style=style)
        # Text, not str: a name may look like markup.
        names = Text(f"{labels[a[e]]} - {labels[b[e]]}")
        drawn.add_row(names, write(residual[e]), write(err[e]), f"{size:.2f}", bar)
    console.print(drawn)


def overlap_lines(report: Report) -> tuple[str, ...]:
    """The summary as plain lines, for logs."""
    stream = StringIO()
    print_overlaps(report, Console(file=stream, width=_PLAIN_WIDTH, color_system=None, highlight=False))
    return tuple(line.rstrip() for line in stream.getvalue().splitlines())
