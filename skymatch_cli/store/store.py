"""Files between the steps: a plan, what was measured, a solution; FITS binary tables all.

Every such file has the tables IMAGES, OVERLAPS and COMPONENTS for people, with the settings in the primary header,
as a result has. Further tables hold, to the last digit, what the next step needs:

=========  ==================================================================================================
DETAILS    each image as the program knows it (JSON), and the cards of its WCS (zlib)
FILES      each file with its HDUs, and HEADERS: what the headers say of each image, for the next plan
POLYGONS   each overlap as a polygon of its tangent plane (well-known binary, radians)
PLANES     the tangent planes
HANDLING   settings that say how images are written
NOTES      warnings and what was skipped, as they were said
FOUND      each image: whether it was measured, its own sky, its good pixels
REGIONS    each image in each of its overlaps: sky, error, pixels; and how its pixels lie in blocks of the frame
CELLS      each image on each tangent plane as a mesh of cells (``--compare mesh``)
=========  ==================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from skymatch_cli.choices import TableName
from skymatch_cli.images.known import Headers
from skymatch_cli.model import FloatArray, ImageInfo, IntArray, OverlapGraph, TangentPlane
from skymatch_cli.model.polygons import Polygons
from skymatch_cli.output.formats import SCHEMA, write_fits
from skymatch_cli.output.planned import components, plan_report
from skymatch_cli.output.result import Result
from skymatch_cli.output.tables import Column, Report, Table, name_columns, pair_columns
from skymatch_cli.settings import Settings
from skymatch_cli.sky.shapes import polygons_of, shapes_of
from skymatch_cli.store.findings import Measured
from skymatch_cli.store.plainvalue import packed
from skymatch_cli.store.plan import Plan
from skymatch_cli.store.reading import Kind, opening, reading
from skymatch_cli.store.storedfindings import StoredFindings, Summary, found_tables
from skymatch_cli.store.storedheaders import header_tables, read_headers
from skymatch_cli.store.storedimages import StoredInfos, details_table
from skymatch_cli.store.storedtables import Columns, StoredTable, in_blocks, write_tables
from skymatch_cli.store.tablefile import TableFile, TableRows
from skymatch_cli.version import __version__

_AT_A_TIME = 256  # polygons that are made into rows


def plan_document(planned: Plan) -> Report:
    """The report of a plan; as FITS it is what ``measure`` reads."""
    report = plan_report(planned.settings, planned.infos, planned.footprints, planned.graph, planned.warnings)

    def tables(stream: BinaryIO) -> None:
        write_tables((*_plan_tables(planned), *header_tables(planned.headers)), stream)

    return replace(report, appendix=tables)


def write_result_tables(result: Result, stream: BinaryIO) -> None:
    """Write what a result says beyond its report: what ``apply`` reads."""
    write_tables((details_table(result.infos, with_wcs=False), _handling_table(result.settings)), stream)


def write_measured(planned: Plan, measured: Measured, stream: BinaryIO) -> None:
    """Write what was measured, with the plan that it belongs to, to a stream that can seek."""
    infos, graph = measured.infos, measured.graph
    summary = Summary.of(measured.found)
    images = _images_of_plan(infos, graph)
    component = next(column.values for column in images if column.name == "component")
    n_images = np.bincount(component).astype(np.int64)
    report = Report(
        version=__version__,
        settings=measured.settings.determining(),
        images=Table(
            TableName.IMAGES,
            (
                *images,
                Column("measured", summary.done.astype(np.int64), "1 where its pixels were measured"),
                Column("n_pixels", summary.n_good, "Good pixels that were seen"),
            ),
        ),
        overlaps=Table(TableName.OVERLAPS, pair_columns(graph.a, graph.b, graph.area_arcmin2)),
        components=Table(
            TableName.COMPONENTS,
            (
                Column("id", np.arange(len(n_images), dtype=np.int64), "Number of the component"),
                Column("n_images", n_images, "Images in it"),
            ),
        ),
        labels=(),
        warnings=planned.warnings,
    )
    write_fits(report, "images", stream)
    write_tables(_plan_tables(replace(planned, settings=measured.settings)), stream)
    write_tables(found_tables(measured.found, summary), stream)


def open_plan(file: str) -> Plan:
    """Open a plan, or a measurement; it has no footprints. Images and polygons are read when they are asked for.

    Raises
    ------
    InputError
        If there is no such file, or it is none of these: also later, where what is asked for is damaged.
    """
    with opening(file, Kind.PLAN):
        return _plan(file, Kind.PLAN, TableFile(file, SCHEMA))


def read_plan(file: str) -> Plan:
    """Read a plan whole: see `open_plan`."""
    return _held(open_plan(file))


def read_plan_headers(file: str) -> Headers:
    """What the images of a plan say, and their files, for a later plan.

    Raises
    ------
    InputError
        If there is no such file, or it is no plan.
    """
    with opening(file, Kind.PLAN):
        tables = TableFile(file, SCHEMA).tables
        return read_headers(tables, StoredInfos(file, Kind.PLAN, tables))


def open_measured(file: str) -> tuple[Plan, Measured]:
    """Open what was measured, and the plan that it belongs to; what is large is read when it is asked for.

    Raises
    ------
    InputError
        If there is no such file, or it holds no measurement: also later, where what is asked for is damaged.
    """
    with opening(file, Kind.MEASUREMENT):
        read = TableFile(file, SCHEMA)
        planned = _plan(file, Kind.MEASUREMENT, read)
        found = StoredFindings(file, read.tables, planned.graph)
        return planned, Measured(planned.infos, planned.graph, planned.settings, found)


def read_measured(file: str) -> tuple[Plan, Measured]:
    """Read a measurement whole: see `open_measured`."""
    planned, measured = open_measured(file)
    planned = _held(planned)
    return planned, replace(measured, infos=planned.infos, graph=planned.graph, found=tuple(measured.found))


def _held(planned: Plan) -> Plan:
    """A plan with all that it says in memory."""
    graph = planned.graph
    polygon = graph.polygon.part(np.arange(len(graph.polygon)))
    return replace(planned, infos=tuple(planned.infos), graph=replace(graph, polygon=polygon))


@dataclass(frozen=True, slots=True)
class Solved:
    """What is to be written to images: skies and errors (N,), tilts (N, 2) or None; the images have no WCS."""

    settings: Settings
    infos: Sequence[ImageInfo]
    sky: FloatArray
    sky_err: FloatArray
    tilt: FloatArray | None

    def part(self, images: Sequence[int]) -> Solved:
        """Some of the images."""
        of = np.array(images, np.int64)
        tilt = None if self.tilt is None else self.tilt[of]
        return Solved(self.settings, tuple(self.infos[i] for i in images), self.sky[of], self.sky_err[of], tilt)


def read_solution(file: str) -> Solved:
    """Read the skies of a solution.

    Raises
    ------
    InputError
        If there is no such file, or it holds no solution.
    """
    with opening(file, Kind.SOLUTION):
        read = TableFile(file, SCHEMA)
        images = read.tables["IMAGES"]
        tilt = np.stack([images["sky_dx"], images["sky_dy"]], axis=1) if "sky_dx" in images else None
        infos = tuple(StoredInfos(file, Kind.SOLUTION, read.tables))
        return Solved(_settings(read), infos, images["sky"], images["sky_err"], tilt)


class _StoredPolygons:
    """The overlaps of a file, as `PolygonRows` that stay there."""

    def __init__(self, file: str, kind: Kind, table: TableRows) -> None:
        self._file, self._kind, self._table = file, kind, table

    def __len__(self) -> int:
        return self._table.n

    def part(self, rows: IntArray) -> Polygons:
        """The polygons of some rows."""
        import shapely

        with reading(self._file, self._kind):
            content = self._table.heap("wkb", rows)
            shapes = np.empty(len(content), object)
            shapes[:] = shapely.from_wkb(content)
            return polygons_of(shapes)


def _polygons_table(graph: OverlapGraph) -> StoredTable:
    import shapely

    def rows(low: int, high: int) -> Columns:
        shapes = shapes_of(graph.polygon.part(np.arange(low, high)))
        return {"plane": graph.plane[low:high], "wkb": [bytes(w) for w in shapely.to_wkb(shapes)]}

    return StoredTable("POLYGONS", len(graph.a), in_blocks(len(graph.a), _AT_A_TIME, rows))


def _images_of_plan(infos: Sequence[ImageInfo], graph: OverlapGraph) -> tuple[Column, ...]:
    """What a plan says of every image: its name, its group and its component."""

    def columns(infos: Sequence[ImageInfo], component: IntArray) -> tuple[Column, ...]:
        what = "Connected set of images (index into the components)"
        return *name_columns(infos), Column("component", component, what)

    if not isinstance(infos, StoredInfos):
        return columns(infos, components(infos, graph))
    return tuple(replace(c, values=infos.column(c.name)) for c in columns((), np.empty(0, np.int64)))


def _plan_tables(planned: Plan) -> tuple[StoredTable, ...]:
    graph = planned.graph
    said = [("warning", w) for w in planned.warnings] + [("skipped", s) for s in planned.skipped]
    return (
        details_table(planned.infos, with_wcs=True),
        _handling_table(planned.settings),
        _polygons_table(graph),
        StoredTable.of(
            "PLANES",
            {
                "ra_deg": np.array([p.ra_deg for p in graph.planes]),
                "dec_deg": np.array([p.dec_deg for p in graph.planes]),
            },
        ),
        StoredTable.of("NOTES", {"kind": [k.encode() for k, _ in said], "said": [packed(text) for _, text in said]}),
    )


def _plan(file: str, kind: Kind, read: TableFile) -> Plan:
    tables = read.tables
    infos = StoredInfos(file, kind, tables)
    planes, overlaps, polygons = (tables[name] for name in ("PLANES", "OVERLAPS", "POLYGONS"))
    graph = OverlapGraph(
        len(infos),
        overlaps["a"],
        overlaps["b"],
        overlaps["area_arcmin2"],
        _StoredPolygons(file, kind, polygons),
        polygons["plane"],
        tuple(map(TangentPlane, planes["ra_deg"].tolist(), planes["dec_deg"].tolist())),
    )
    _check(graph)
    _check_images(infos, graph)
    notes = [(k, json.loads(said)) for k, said in zip(tables["NOTES"]["kind"], tables["NOTES"]["said"], strict=True)]
    return Plan(
        settings=_settings(read),
        infos=infos,
        footprints=(),
        graph=graph,
        skipped=tuple(said for kind, said in notes if kind == b"skipped"),
        warnings=tuple(said for kind, said in notes if kind == b"warning"),
    )


def _check(graph: OverlapGraph) -> None:
    """ValueError where the tables of a plan don't belong together."""
    numbers = ((graph.a, graph.n_images), (graph.b, graph.n_images), (graph.plane, len(graph.planes)))
    if len(graph.a) != len(graph.polygon) or any(
        (index < 0).any() or (index >= limit).any() for index, limit in numbers
    ):
        raise ValueError("its overlaps are not of its images")
    step = np.diff(graph.a)
    if (graph.a >= graph.b).any() or (step < 0).any() or (np.diff(graph.b)[step == 0] < 0).any():
        raise ValueError("its overlaps are not in order")


def _check_images(infos: StoredInfos, graph: OverlapGraph) -> None:
    """ValueError where the table IMAGES is not that of a plan: what is measured is written beside it, hours later."""
    for column in _images_of_plan(infos, graph):
        values, numbers = column.values, column.name in {"extver", "component"}
        if values.dtype.kind != ("i" if numbers else "S") or values.ndim != 1:
            raise ValueError(f"its images have no {column.name}")
        if column.name == "component" and ((values < 0) | (values >= len(infos))).any():
            raise ValueError("its components are not of its images")


def _handling_table(settings: Settings) -> StoredTable:
    """Settings that say how images are written: the later steps begin with them."""
    return StoredTable.of("HANDLING", {"settings": [packed({"sky_keyword": settings.sky_keyword})]})


def _settings(read: TableFile) -> Settings:
    return Settings.of({**read.settings, **json.loads(read.tables["HANDLING"]["settings"][0])})
