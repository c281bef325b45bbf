"""Text for people: names that can't harm a terminal, numbers with the digits that their errors support."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import TableName
from skymatch_cli.errors import plural
from skymatch_cli.model import Solution
from skymatch_cli.model.warning import counted
from skymatch_cli.output.printable import printable
from skymatch_cli.output.tables import SHAPE, Column, Report, Table

Cells = tuple[str, ...]

_MAX_COMPONENTS = 10
_MAX_DECIMALS = 9  # beyond, powers of ten are easier to read
_WITH_ERROR = {  # columns that get the digits of the error beside them
    TableName.IMAGES: ("sky_err", ("sky", "sky_err", "sky_err_noise", "truth", "sky - truth")),
    TableName.OVERLAPS: ("delta_err", ("sky_a", "sky_b", "delta", "delta_err", "residual")),
    TableName.COMPONENTS: ("", ()),
}
_SHORT = {
    **dict.fromkeys(("area_arcmin2", *SHAPE, "sky_pv", "rms_residual", "step_before", "step_after"), "{:.4g}"),
    **{"kept": "{:.3g}", "chi2": "{:.2f}", "dof": "{:.6g}"},
}


def number_format(values: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]) -> Callable[[float], str]:
    """How to write the numbers of a column: two significant digits of the smallest error, all aligned.

    ``values`` hold the largest numbers that will be written. Where no error is finite and above 0, they are written in
    full.
    """
    known = errors[np.isfinite(errors) & (errors > 0)]
    if not len(known):
        return lambda value: repr(value) if math.isfinite(value) else "nan"
    last = math.floor(math.log10(known.min())) - 1  # power of ten of the last digit
    if -last <= _MAX_DECIMALS:
        spec = f"z.{max(-last, 0)}f"
    else:
        largest = np.abs(np.concatenate([values[np.isfinite(values)], known])).max()
        spec = f"z.{min(max(math.floor(math.log10(largest)) - last, 1), 16)}e"
    return lambda value: format(value, spec) if math.isfinite(value) else "nan"


def cells(table: Table, labels: Sequence[str]) -> dict[str, Cells]:
    """The columns of a table as text by their names; nothing is left out, and images have their labels."""
    error, numbers = _WITH_ERROR[table.name]
    written = {}
    if error in table.names:
        largest = np.concatenate([table.column(n) for n in numbers if n in table.names])
        written = dict.fromkeys(numbers, number_format(largest, table.column(error)))
    return {column.name: _column_cells(column, labels, written.get(column.name)) for column in table.columns}


def text_lines(report: Report, name: str) -> list[str]:
    """One table as lines of text: every column as wide as it needs to be, numbers to the right."""
    table = report.table(name)
    padded = []
    for source, (title, column) in zip(table.columns, cells(table, report.labels).items(), strict=True):
        width = max(map(len, (title, *column)))
        align = str.rjust if is_number(source) else str.ljust
        padded.append([align(text, width) for text in (title, *column)])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def is_number(column: Column) -> bool:
    """Whether a column stands to the right when it is printed."""
    return bool(column.values.dtype != object) and column.name not in {"a", "b"}


def summary(report: Report) -> str:
    """One line about the whole run; its warnings are those that are told without ``-v``."""
    status = report.images.column("status") if "status" in report.images.names else ()
    without = sum(word != "ok" for word in status)
    parts = [
        plural(len(report.images), "image"),
        plural(len(report.overlaps), "overlap"),
        plural(len(report.components), "component"),
    ]
    if without:
        parts.append(f"{without} without a sky")
    if given := counted(report.warnings, ()):
        parts.append(plural(len(given), "warning"))
    return ", ".join(parts)


def component_lines(solution: Solution) -> tuple[str, ...]:
    """How well each component fits, of the first ten."""
    return tuple(_fit(solution, k) for k in range(min(len(solution.n_images), _MAX_COMPONENTS)))


def _fit(solution: Solution, k: int) -> str:
    """How well a component fits."""
    loops = "no loop"
    if solution.closure is not None and solution.n_loops is not None and solution.n_loops[k]:
        loops = f"closure {solution.closure[k]:.4g} (rms of loops: {solution.n_loops[k]})"
    return (
        f"component {k}: {solution.n_images[k]} images, {solution.anchor[k]}, rms residual "
        f"{solution.rms_residual[k]:.4g}, chi2 {solution.chi2[k]:.2f} for {solution.dof[k]:.6g} degrees of freedom, "
        f"{loops}"
    )


def _column_cells(column: Column, labels: Sequence[str], write: Callable[[float], str] | None) -> Cells:
    values: Sequence[Any] = column.values.tolist()
    if column.name in {"a", "b"}:
        return tuple(printable(labels[i]) for i in values)
    if column.values.dtype == object:
        return tuple(printable(text) or "-" for text in values)
    if column.values.dtype.kind == "f":
        write = write or _SHORT.get(column.name, "{!r}").format
        return tuple(write(value) for value in values)
    return tuple(map(str, values))
