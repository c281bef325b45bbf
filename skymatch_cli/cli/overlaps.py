"""What ``-v`` says about the overlaps: how well they agree, and the worst of them."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from skymatch_cli.model import Status
from skymatch_cli.output.plain import number_format
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import Report

_WORST = 8
_NOUN = ("overlap", "overlaps")
_NOTABLE, _LARGE = 3.0, 5.0  # pulls that get a colour
_BAR = 12  # characters of the bar of a pull of `_LARGE`
_PLAIN_WIDTH = 240  # without a terminal


@dataclass(frozen=True, slots=True)
class Pull:
    """One overlap: its images, its residual and error as text, and their ratio."""

    images: str
    residual: str
    delta_err: str
    pull: float


def pulls(report: Report) -> tuple[str, tuple[Pull, ...]]:
    """Summarise the overlaps in one line, and list the worst first; an empty list if none has a residual."""
    table = report.overlaps
    residual, err = table.column("residual"), table.column("delta_err")
    status = table.column("status")
    measured = (status == Status.OK) | (status == Status.DOWN_WEIGHTED)
    used = np.flatnonzero(measured & np.isfinite(residual) & (err > 0))
    if not len(used):
        return "no overlap has a residual", ()
    size = np.abs(residual[used]) / err[used]
    line = (
        f"residual / error of {len(used)} {_NOUN[len(used) > 1]}: median {np.median(size):.2f}, "
        f"largest {size.max():.2f}; above {_NOTABLE:g}: {np.count_nonzero(size > _NOTABLE)}"
    )
    write = number_format(residual[used], err[used])
    a, b, labels = table.column("a"), table.column("b"), tuple(map(printable, report.labels))
    worst = np.argsort(-size, kind="stable")[:_WORST]
    return line, tuple(
        Pull(f"{labels[a[e]]} - {labels[b[e]]}", write(residual[e]), write(err[e]), float(size[k]))
        for k, e in zip(worst, used[worst], strict=True)
    )


def print_overlaps(report: Report, console: Console) -> None:
    """Draw the summary on a console."""
    line, worst = pulls(report)
    console.print(Text(line))
    if not worst:
        return
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("overlap", overflow="fold")
    for title in ("residual", "± error", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for overlap in worst:
        style = "red" if overlap.pull > _LARGE else "yellow" if overlap.pull > _NOTABLE else ""
        bar = "━" * max(1, round(_BAR * min(overlap.pull / _LARGE, 1.0)))
        # Text, not str: a name may look like markup.
        table.add_row(
            Text(overlap.images), overlap.residual, overlap.delta_err, f"{overlap.pull:.2f}", Text(bar, style=style)
        )
    console.print(table)


def overlap_lines(report: Report) -> tuple[str, ...]:
    """The summary as plain lines, for logs."""
    stream = StringIO()
    print_overlaps(report, Console(file=stream, width=_PLAIN_WIDTH, color_system=None, highlight=False))
    return tuple(line.rstrip() for line in stream.getvalue().splitlines())
