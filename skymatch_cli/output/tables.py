"""The tables of a result as plain columns: what every output format is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from skymatch_cli.choices import TableName
from skymatch_cli.images.bunit import spelled_unit
from skymatch_cli.model import LEAST_KEPT, FloatArray, ImageInfo, Measurements, SkyWarning, Solution, Status
from skymatch_cli.model.skyplane import SHAPE_TERMS, SkyPlane

if TYPE_CHECKING:
    from astropy.table import QTable

SCHEMA = 2
"""Version of the JSON schema; the same number stands in the other formats that know one."""

_PLACES = 17  # a side, at which skies are compared

SHAPE = tuple(f"sky_{name}" for name in SHAPE_TERMS)
"""Columns that the images have where skies are planes or polynomials."""


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


_EACH_SHAPE = dict.fromkeys(
    SHAPE[:2], "Tilt of the sky along {x}, in sky_unit per pixel; sky is that of the image's centre"
) | dict.fromkeys(
    SHAPE[2:], "Coefficient of P{a}(u) P{x}(v), less its value at the centre, in sky_unit; u, v from -1 to 1"
)
COLUMNS: dict[TableName, dict[str, tuple[type, str]]] = {
    TableName.IMAGES: {
        "file": (str, "File as the user named it"),
        "ext": (str, "EXTNAME, or the index of an HDU without one"),
        "extver": (int, "EXTVER"),
        "plane": (int, "Plane of the cube, from 1; 0 for a two-dimensional image"),
        "section": (str, "Section of the HDU: [first:last,first:last]; empty for all of it"),
        "group": (str, "Images of one group share one unknown"),
        "component": (int, "Connected set of images (index into the components)"),
        "sky": (float, "Value to subtract from the original pixels, in sky_unit"),
        "sky_err": (float, "1-sigma error where the mean of the component is zero, in sky_unit"),
        "sky_err_noise": (float, "Part of sky_err that the noise of the pixels makes"),
        **{name: (float, text.format(a=name[-2], x=name[-1])) for name, text in _EACH_SHAPE.items()},
        "sky_pv": (float, "Highest less lowest sky over the image, in sky_unit"),
        "sky_unit": (str, "Unit of the image (BUNIT)"),
        "n_pixels": (int, "Good pixels that were seen"),
        "status": (str, "ok, or why there is no sky"),
    },
    TableName.OVERLAPS: {
        "a": (int, "Index of the first image"),
        "b": (int, "Index of the second image"),
        "area_arcmin2": (float, "Solid angle of the overlap"),
        "unit": (str, "Unit in which the pair is compared"),
        "sky_a": (float, "Sky of image a in the overlap, in unit"),
        "sky_b": (float, "Sky of image b in the overlap, in unit"),
        "n_a": (int, "Good pixels of image a that were used"),
        "n_b": (int, "Good pixels of image b that were used"),
        "delta": (float, "sky_a - sky_b, in unit"),
        "delta_err": (float, "1-sigma error of delta, in unit"),
        "residual": (float, "delta - (solution_a - solution_b), in unit"),
        "kept": (float, "Part of its weight that the overlap kept in the robust solution"),
        "status": (str, "ok, or why the pair counts little or not at all"),
    },
    TableName.COMPONENTS: {
        "id": (int, "Number of the component"),
        "n_images": (int, "Images in it"),
        "anchor": (str, "How the zero level was fixed"),
        "rms_residual": (float, "Root mean square of its residuals, in unit"),
        "chi2": (float, "Sum of squared residuals over the errors of the overlaps"),
        "dof": (float, "Degrees of freedom: independent information left"),
        "step_before": (float, "Largest step between its images as they are, in unit"),
        "step_after": (float, "Largest step with the skies subtracted, in unit"),
        "unit": (str, "Unit in which its images are compared"),
    },
}
"""The columns of a result in their order: of text, whole numbers or numbers, and what they mean."""

OPTIONAL = frozenset({"plane", "section", *SHAPE, "sky_pv", "kept"})
"""Columns that only some results have."""

_UNITS = {"area_arcmin2": "arcmin2"}  # of all rows of a column, whatever the images
_DTYPES: dict[type | None, Any] = {str: object, int: np.int64, float: np.float64}


def make_table(name: TableName, values: Mapping[str, Iterable[Any] | None], **about: str) -> Table:
    """A table of columns with their types and meanings; ``values`` None: it has no such column.

    ``about`` says what columns mean that are unlike those of a result.
    """
    made = []
    for column, found in values.items():
        kind, text = COLUMNS[name].get(column, (None, ""))
        if found is not None:
            cells = [str(value) for value in found] if kind is str else found
            array = np.array(cells, dtype=_DTYPES.get(kind))
            made.append(Column(column, array, about.get(column, text), _UNITS.get(column, "")))
    return Table(name, tuple(made))


def names_of(infos: Sequence[ImageInfo]) -> dict[str, list[Any] | None]:
    """The values of the columns that say which image a row is about; the same in every table of images."""
    refs = [info.ref for info in infos]
    planes = [ref.part.plane for ref in refs]
    sections = [ref.section or "" for ref in refs]
    return {
        "file": [ref.file for ref in refs],
        "ext": [ref.ext or ref.hdu for ref in refs],
        "extver": [ref.extver for ref in refs],
        "plane": [0 if plane is None else plane + 1 for plane in planes] if set(planes) - {None} else None,
        "section": sections if any(sections) else None,
        "group": [info.group for info in infos],
    }


def images_table(infos: Sequence[ImageInfo], measurements: Measurements, solution: Solution) -> Table:
    """One row for each image; where skies are no constants, ``sky`` is the value at the centre of the image."""
    tilt = solution.tilt
    shapes = {} if tilt is None else dict(zip(SHAPE, tilt.T, strict=False))
    values = {
        **names_of(infos),
        "component": solution.component,
        "sky": solution.sky,
        "sky_err": solution.sky_err,
        "sky_err_noise": solution.sky_err_noise,
        **shapes,
        "sky_pv": None if tilt is None else peak_to_valley([info.shape for info in infos], tilt),
        "sky_unit": [info.unit for info in infos],
        "n_pixels": measurements.n_good,
        "status": solution.status,
    }
    if solution.sigma_exact:
        return make_table(TableName.IMAGES, values)
    return make_table(TableName.IMAGES, values, sky_err=f"Estimate of the {COLUMNS[TableName.IMAGES]['sky_err'][1]}")


def peak_to_valley(shapes: Sequence[tuple[int, int]], tilt: FloatArray) -> FloatArray:
    """Highest less lowest value, (N,), of skies of these shapes (N, k) over images of (ny, nx) pixels: at 17 x 17."""
    found = []
    for shape, own in zip(shapes, tilt.tolist(), strict=True):
        y, x = (np.linspace(0, n - 1, _PLACES) for n in shape)
        found.append(np.ptp(SkyPlane(0.0, *own).at(x, y[:, None], shape)))
    return np.array(found)


def overlaps_table(infos: Sequence[ImageInfo], measurements: Measurements, solution: Solution) -> Table:
    """One row for each pair of overlapping images; a robust solution marks those that it hardly believes."""
    m, status = measurements, measurements.status
    if solution.kept is not None:
        status = np.where((status == Status.OK) & (solution.kept < LEAST_KEPT), Status.DOWN_WEIGHTED, status)
    values = {
        "a": m.a,
        "b": m.b,
        "area_arcmin2": m.area_arcmin2,
        "unit": [infos[a].comparison_unit for a in m.a],
        **{name: getattr(m, name) for name in ("sky_a", "sky_b", "n_a", "n_b", "delta", "delta_err")},
        "residual": solution.residual,
        "kept": solution.kept,
        "status": status,
    }
    return make_table(TableName.OVERLAPS, values)


def components_table(infos: Sequence[ImageInfo], solution: Solution) -> Table:
    """One row for each connected set of images."""
    _, first = np.unique(solution.component, return_index=True)
    names = ("n_images", "anchor", "rms_residual", "chi2", "dof", "step_before", "step_after")
    values = {
        "id": np.arange(len(solution.n_images)),
        **{name: getattr(solution, name) for name in names},
        "unit": [infos[i].comparison_unit for i in first],
    }
    return make_table(TableName.COMPONENTS, values)


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
