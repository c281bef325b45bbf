"""The tables of a result as plain columns: what every output format is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import TableName
from skymatch_cli.images.bunit import spelled_unit
from skymatch_cli.model import LEAST_KEPT, FloatArray, ImageInfo, Measurements, SkyWarning, Solution, Status, StrArray
from skymatch_cli.model.skyplane import SHAPE_TERMS, bends

if TYPE_CHECKING:
    from astropy.table import QTable

SCHEMA = 2
"""Version of the JSON schema; the same number stands in the other formats that know one."""

_PLACES = 17  # a side, at which skies are compared

SHAPE = tuple(f"sky_{name}" for name in SHAPE_TERMS)
"""Columns that the images have with the model ``plane``."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    values: npt.NDArray[Any]  # (n,) float64 (NaN: no value), int64 or object (str)
    description: str
    # unit of the whole column in astropy's spelling; "" where it has none, or one that varies from row to row
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one length."""

    name: TableName
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns[0].values)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> npt.NDArray[Any]:
        """The values of one column."""
        return next(column.values for column in self.columns if column.name == name)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows as Python's own numbers and strings."""
        return zip(*(column.values.tolist() for column in self.columns), strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is said about a run: three tables, and what holds for all of them.

    ``labels`` names the images for people; ``settings`` are those that determine the result. ``appendix`` writes
    further HDUs onto a stream that can seek, which only FITS keeps: what the next step needs.
    """

    version: str
    settings: dict[str, Any]
    images: Table
    overlaps: Table
    components: Table
    labels: tuple[str, ...]
    warnings: tuple[SkyWarning, ...] = ()
    appendix: Callable[[BinaryIO], object] = lambda stream: None  # noqa: ARG005 (nothing further)

    @property
    def tables(self) -> tuple[Table, Table, Table]:
        """The three tables in their usual order."""
        return self.images, self.overlaps, self.components

    def tilt(self) -> npt.NDArray[np.float64] | None:
        """Shapes of the images' skies: tilts along x and y, and what bends; (N, 2, 5 or 9), None for constants."""
        names = [name for name in SHAPE if name in self.images.names]
        return np.stack([self.images.column(name) for name in names], axis=1) if names else None

    def table(self, name: str) -> Table:
        """One table by its name."""
        return next(table for table in self.tables if table.name == name)


_IN_UNIT_OF = {  # the column that names the unit of each row, the columns in it, and by what it is divided
    TableName.IMAGES: (
        "sky_unit",
        dict.fromkeys(("sky", "sky_err", "sky_err_noise", *SHAPE[2:], "sky_pv"), "") | dict.fromkeys(SHAPE[:2], "pix"),
    ),
    TableName.OVERLAPS: ("unit", dict.fromkeys(("sky_a", "sky_b", "delta", "delta_err", "residual"), "")),
    TableName.COMPONENTS: ("unit", dict.fromkeys(("rms_residual", "step_before", "step_after"), "")),
}
IN_UNIT = {name: per for _, members in _IN_UNIT_OF.values() for name, per in members.items()}
"""Columns in the unit of the images, and by what it is divided: "" or "pix"."""


def with_units(table: Table) -> Table:
    """The table with the unit that all its rows have in common, if there is one, at the columns themselves."""
    column, members = _IN_UNIT_OF[table.name]
    spellings = set(table.column(column)) if column in table.names else set()
    unit = spelled_unit(spellings.pop()) if len(spellings) == 1 else ""
    if not unit:
        return table
    per = {"": unit, "pix": spelled_unit(f"{unit} pix-1")}
    return Table(
        table.name, tuple(replace(c, unit=per[members[c.name]]) if c.name in members else c for c in table.columns)
    )


def strings(values: Iterable[object]) -> npt.NDArray[np.object_]:
    """A column of text; enums become plain strings."""
    return np.array([str(value) for value in values], dtype=object)


def section_column(sections: Sequence[str]) -> tuple[Column, ...]:
    """The sections of HDUs, where there are any."""
    if not any(sections):
        return ()
    return (Column("section", strings(sections), "Section of the HDU: [first:last,first:last]; empty for all of it"),)


def name_columns(infos: Sequence[ImageInfo]) -> tuple[Column, ...]:
    """The columns that say which image a row is about; the same in every table of images."""
    refs = [info.ref for info in infos]
    return (
        Column("file", strings(ref.file for ref in refs), "File as the user named it"),
        Column("ext", strings(ref.ext or ref.hdu for ref in refs), "EXTNAME, or the index of an HDU without one"),
        Column("extver", np.array([ref.extver for ref in refs], dtype=np.int64), "EXTVER"),
        *plane_column([ref.part.plane for ref in refs]),
        *section_column([str(ref.section or "") for ref in refs]),
        Column("group", strings(info.group for info in infos), "Images of one group share one unknown"),
    )


def plane_column(planes: Sequence[int | None]) -> tuple[Column, ...]:
    """The planes of cubes, where there are any."""
    if all(plane is None for plane in planes):
        return ()
    numbers = np.array([0 if plane is None else plane + 1 for plane in planes], np.int64)
    return (Column("plane", numbers, "Plane of the cube, from 1; 0 for a two-dimensional image"),)


def images_table(infos: tuple[ImageInfo, ...], measurements: Measurements, solution: Solution) -> Table:
    """One row for each image."""
    return Table(
        TableName.IMAGES,
        (
            *name_columns(infos),
            Column("component", solution.component, "Connected set of images (index into the components)"),
            Column("sky", solution.sky, "Value to subtract from the original pixels, in sky_unit"),
            Column("sky_err", solution.sky_err, _error_meaning(solution)),
            Column("sky_err_noise", solution.sky_err_noise, "Part of sky_err that the noise of the pixels makes"),
            *_tilt_columns(infos, solution),
            Column("sky_unit", strings(info.unit for info in infos), "Unit of the image (BUNIT)"),
            Column("n_pixels", measurements.n_good, "Good pixels that were seen"),
            Column("status", strings(solution.status), "ok, or why there is no sky"),
        ),
    )


def _error_meaning(solution: Solution) -> str:
    what = "1-sigma error where the mean of the component is zero, in sky_unit"
    return what if solution.sigma_exact else f"Estimate of the {what}"


def _tilt_columns(infos: Sequence[ImageInfo], solution: Solution) -> tuple[Column, ...]:
    """The tilts, where the skies are planes; ``sky`` is then the value at the centre of the image."""
    if solution.tilt is None:
        return ()
    what = "Highest less lowest sky over the image, in sky_unit"
    return (
        *(Column(name, values, _shape_meaning(name)) for name, values in zip(SHAPE, solution.tilt.T, strict=False)),
        Column("sky_pv", peak_to_valley([info.shape for info in infos], solution.tilt), what),
    )


def peak_to_valley(shapes: Sequence[tuple[int, int]], tilt: FloatArray) -> FloatArray:
    """Highest less lowest value, (N,), of skies of these shapes (N, k) over images of (ny, nx) pixels: at 17 x 17."""
    found = np.zeros(len(tilt))
    of_shape: dict[tuple[int, int], list[int]] = {}
    for i, shape in enumerate(shapes):
        of_shape.setdefault(shape, []).append(i)
    for shape, images in of_shape.items():
        y, x = (0.5 * (n - 1) * np.linspace(-1, 1, _PLACES) for n in shape)
        terms = np.stack([term.ravel() for term in (*np.meshgrid(x, y), *bends(x, y[:, None], shape))])
        found[images] = np.ptp(tilt[images] @ terms[: tilt.shape[1]], axis=1)
    return found


def _shape_meaning(name: str) -> str:
    if name in SHAPE[:2]:
        return f"Tilt of the sky along {name[-1]}, in sky_unit per pixel; sky is that of the image's centre"
    return f"Coefficient of P{name[-2]}(u) P{name[-1]}(v), less its value at the centre, in sky_unit; u, v from -1 to 1"


def overlaps_table(infos: tuple[ImageInfo, ...], measurements: Measurements, solution: Solution) -> Table:
    """One row for each pair of overlapping images."""
    m = measurements
    return Table(
        TableName.OVERLAPS,
        (
            *pair_columns(m.a, m.b, m.area_arcmin2),
            Column("unit", strings(infos[a].comparison_unit for a in m.a), "Unit in which the pair is compared"),
            Column("sky_a", m.sky_a, "Sky of image a in the overlap, in unit"),
            Column("sky_b", m.sky_b, "Sky of image b in the overlap, in unit"),
            Column("n_a", m.n_a, "Good pixels of image a that were used"),
            Column("n_b", m.n_b, "Good pixels of image b that were used"),
            Column("delta", m.delta, "sky_a - sky_b, in unit"),
            Column("delta_err", m.delta_err, "1-sigma error of delta, in unit"),
            Column("residual", solution.residual, "delta - (solution_a - solution_b), in unit"),
            *_kept_columns(solution),
            Column(
                "status", strings(_pair_status(m.status, solution)), "ok, or why the pair counts little or not at all"
            ),
        ),
    )


def _kept_columns(solution: Solution) -> tuple[Column, ...]:
    """The part of its weight that each overlap kept, where the solution is robust."""
    if solution.kept is None:
        return ()
    return (Column("kept", solution.kept, "Part of its weight that the overlap kept in the robust solution"),)


def _pair_status(status: StrArray, solution: Solution) -> StrArray:
    """Statuses of the overlaps; a robust solution adds a word for those that it hardly believes."""
    if solution.kept is None:
        return status
    doubted = (status == Status.OK) & (solution.kept < LEAST_KEPT)
    return np.where(doubted, Status.DOWN_WEIGHTED, status).astype(object)


def pair_columns(
    a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], area: npt.NDArray[np.float64]
) -> tuple[Column, ...]:
    """The columns that say which overlap a row is about; the same in every table of overlaps."""
    return (
        Column("a", a, "Index of the first image"),
        Column("b", b, "Index of the second image"),
        Column("area_arcmin2", area, "Solid angle of the overlap", "arcmin2"),
    )


def components_table(infos: Sequence[ImageInfo], solution: Solution) -> Table:
    """One row for each connected set of images."""
    _, first = np.unique(solution.component, return_index=True)
    units = [infos[i].comparison_unit for i in first]
    return Table(
        TableName.COMPONENTS,
        (
            Column("id", np.arange(len(solution.n_images), dtype=np.int64), "Number of the component"),
            Column("n_images", solution.n_images, "Images in it"),
            Column("anchor", strings(solution.anchor), "How the zero level was fixed"),
            Column("rms_residual", solution.rms_residual, "Root mean square of its residuals, in unit"),
            Column("chi2", solution.chi2, "Sum of squared residuals over the errors of the overlaps"),
            Column("dof", solution.dof, "Degrees of freedom: independent information left"),
            Column("step_before", solution.step_before, "Largest step between its images as they are, in unit"),
            Column("step_after", solution.step_after, "Largest step with the skies subtracted, in unit"),
            Column("unit", strings(units), "Unit in which its images are compared"),
        ),
    )


def meta_of(report: Report) -> dict[str, Any]:
    """What a table says of its run, where its format can hold it."""
    meta: dict[str, Any] = {"schema": SCHEMA, "version": report.version, "settings": report.settings}
    return meta | {"warnings": [warning.as_dict() for warning in report.warnings]}


def to_qtable(table: Table, meta: dict[str, Any] | None = None) -> QTable:
    """The table as an astropy ``QTable`` with units and descriptions."""
    from astropy.table import Column as AstropyColumn
    from astropy.table import QTable

    made = QTable(meta=meta)
    for column in table.columns:
        values = column.values
        if values.dtype == object:
            values = np.array(values, dtype=str if len(values) else "U1")  # no row: a width is needed all the same
        made[column.name] = AstropyColumn(values, unit=column.unit or None, description=column.description)
    return made
