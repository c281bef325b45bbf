"""Files between the steps: a plan, what was measured, a solution; FITS binary tables all.

Every such file has the tables IMAGES, OVERLAPS and COMPONENTS for people, with the settings in the primary header,
as a result has. Further tables hold, to the last digit, what the next step needs:

=========  ==================================================================================================
DETAILS    each image as the program knows it (JSON), and the cards of its WCS (zlib)
FILES      each file with its HDUs, and HEADERS: what the headers say of each image, for the next plan
POLYGONS   each overlap as a polygon of its tangent plane (well-known binary, radians)
PLANES     the tangent planes
NOTES      warnings and what was skipped, as they were said
FOUND      each image: whether it was measured, its own sky, its good pixels
REGIONS    each image in each of its overlaps: sky, error, pixels; and how its pixels lie in blocks of the frame
CELLS      each image on each tangent plane as a mesh of cells (``--compare mesh``)
=========  ==================================================================================================
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from skymatch_cli.choices import TableName
from skymatch_cli.errors import InputError
from skymatch_cli.ext.gwcs import GwcsWcs
from skymatch_cli.fits.known import Headers
from skymatch_cli.geometry.celestial import FitsWcs, LookupTable
from skymatch_cli.geometry.frames import SkyFrame
from skymatch_cli.geometry.shapes import polygons_of, shapes_of
from skymatch_cli.model import FloatArray, ImageInfo, OverlapGraph, TangentPlane
from skymatch_cli.output.formats import SCHEMA, write_fits
from skymatch_cli.output.planned import components, plan_report
from skymatch_cli.output.result import Result, make_report
from skymatch_cli.output.tables import Column, Report, Table, name_columns, pair_columns
from skymatch_cli.settings import Settings
from skymatch_cli.steps.findings import Measured
from skymatch_cli.steps.plainvalue import from_plain, to_plain
from skymatch_cli.steps.plan import Plan
from skymatch_cli.steps.storedfindings import found_tables, read_found
from skymatch_cli.steps.storedheaders import header_tables, read_headers
from skymatch_cli.steps.storedtables import StoredTable, read_tables, table_hdus

_HINTS = {
    "a plan": "name a file that `skymatch plan -o PLAN.fits` wrote",
    "a measurement": "name a file that `skymatch measure -o MEASURED.fits` wrote",
    "a solution": "name a file that `skymatch solve -o SOLUTION.fits` or `skymatch match -o` wrote",
}


def plan_document(planned: Plan) -> Report:
    """The report of a plan; as FITS it is what ``measure`` reads."""
    report = plan_report(planned.settings, planned.infos, planned.footprints, planned.graph, planned.warnings)
    return replace(report, appendix=lambda: table_hdus((*_plan_tables(planned), *header_tables(planned.headers))))


def result_tables(result: Result) -> list[Any]:
    """What a result says beyond its report: what ``apply`` reads."""
    return table_hdus((_details_table(result.infos, with_wcs=False), _handling_table(result.settings)))


def write_measured(planned: Plan, measured: Measured, stream: BinaryIO) -> None:
    """Write what was measured, with the plan that it belongs to."""
    infos, graph = measured.infos, measured.graph
    component = components(infos, graph)
    n_images = np.bincount(component).astype(np.int64)
    done = np.array([f is not None for f in measured.found], np.int64)
    n_good = np.array([0 if f is None else f.n_good for f in measured.found], np.int64)
    tables = (
        Table(
            TableName.IMAGES,
            (
                *name_columns(infos),
                Column("component", component, "Connected set of images (index into the components)"),
                Column("measured", done, "1 where its pixels were measured"),
                Column("n_pixels", n_good, "Good pixels that were seen"),
            ),
        ),
        Table(TableName.OVERLAPS, pair_columns(graph.a, graph.b, graph.area_arcmin2)),
        Table(
            TableName.COMPONENTS,
            (
                Column("id", np.arange(len(n_images), dtype=np.int64), "Number of the component"),
                Column("n_images", n_images, "Images in it"),
            ),
        ),
    )
    report = make_report(measured.settings, infos, tables, planned.warnings)
    further = (*_plan_tables(replace(planned, settings=measured.settings)), *found_tables(measured.found))
    write_fits(replace(report, appendix=lambda: table_hdus(further)), "images", stream)


def read_plan(file: str) -> Plan:
    """Read a plan, from a plan or from a measurement; it has no footprints.

    Raises
    ------
    InputError
        If there is no such file, or it is none of these.
    """
    with _reading(file, "a plan"):
        return _plan(*read_tables(file, SCHEMA))


def read_plan_headers(file: str) -> Headers:
    """What the images of a plan say, and their files, for a later plan.

    Raises
    ------
    InputError
        If there is no such file, or it is no plan.
    """
    with _reading(file, "a plan"):
        _, tables = read_tables(file, SCHEMA)
        return read_headers(tables, _infos(tables["DETAILS"]))


def read_measured(file: str) -> tuple[Plan, Measured]:
    """Read what was measured, and the plan that it belongs to.

    Raises
    ------
    InputError
        If there is no such file, or it holds no measurement.
    """
    with _reading(file, "a measurement"):
        settings, tables = read_tables(file, SCHEMA)
        planned = _plan(settings, tables)
        found = read_found(tables, len(planned.infos))
        return planned, Measured(planned.infos, planned.graph, planned.settings, tuple(found))


@dataclass(frozen=True, slots=True)
class Solved:
    """What is to be written to images: skies and errors (N,), tilts (N, 2) or None; the images have no WCS."""

    settings: Settings
    infos: tuple[ImageInfo, ...]
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
    with _reading(file, "a solution"):
        settings, tables = read_tables(file, SCHEMA)
        images = tables["IMAGES"]
        tilt = np.stack([images["sky_dx"], images["sky_dy"]], axis=1) if "sky_dx" in images else None
        infos = _infos(tables["DETAILS"])
        return Solved(_settings(settings, tables), infos, images["sky"], images["sky_err"], tilt)


@contextmanager
def _reading(file: str, what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy's remarks on damaged files; what is wrong is said below
            yield
    except FileNotFoundError:
        raise InputError.at(file, "no such file") from None
    except OSError as error:
        raise InputError.at(file, f"can't be read: {error.strerror or error}", _HINTS[what]) from None
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a damaged file trips over)
        raise InputError.at(file, f"is not {what} of this version: {error!s:.80}", _HINTS[what]) from None


def _plan_tables(planned: Plan) -> tuple[StoredTable, ...]:
    import shapely

    graph = planned.graph
    shapes = shapes_of(graph.polygon.part(np.arange(len(graph.polygon))))
    said = [("warning", w) for w in planned.warnings] + [("skipped", s) for s in planned.skipped]
    return (
        _details_table(planned.infos, with_wcs=True),
        _handling_table(planned.settings),
        StoredTable("POLYGONS", {"plane": graph.plane, "wkb": [bytes(w) for w in shapely.to_wkb(shapes)]}),
        StoredTable(
            "PLANES",
            {
                "ra_deg": np.array([p.ra_deg for p in graph.planes]),
                "dec_deg": np.array([p.dec_deg for p in graph.planes]),
            },
        ),
        StoredTable("NOTES", {"kind": [k.encode() for k, _ in said], "said": [_json(text) for _, text in said]}),
    )


def _plan(settings: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Plan:
    import shapely

    infos = _infos(tables["DETAILS"])
    planes = tables["PLANES"]
    overlaps, polygons = tables["OVERLAPS"], tables["POLYGONS"]
    graph = OverlapGraph(
        len(infos),
        overlaps["a"],
        overlaps["b"],
        overlaps["area_arcmin2"],
        polygons_of(shapely.from_wkb(polygons["wkb"])),
        polygons["plane"],
        tuple(map(TangentPlane, planes["ra_deg"].tolist(), planes["dec_deg"].tolist())),
    )
    notes = [(k, json.loads(said)) for k, said in zip(tables["NOTES"]["kind"], tables["NOTES"]["said"], strict=True)]
    return Plan(
        settings=_settings(settings, tables),
        infos=infos,
        footprints=(),
        graph=graph,
        skipped=tuple(said for kind, said in notes if kind == b"skipped"),
        warnings=tuple(said for kind, said in notes if kind == b"warning"),
    )


def _handling_table(settings: Settings) -> StoredTable:
    """Settings that say how images are written: the later steps begin with them."""
    return StoredTable("HANDLING", {"settings": [_json({"sky_keyword": settings.sky_keyword})]})


def _settings(determining: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Settings:
    return Settings.of({**determining, **json.loads(tables["HANDLING"]["settings"][0])})


def _details_table(infos: Iterable[ImageInfo], *, with_wcs: bool) -> StoredTable:
    infos = tuple(infos)
    columns: dict[str, Any] = {"detail": [_json(to_plain(replace(info, wcs=None))) for info in infos]}
    if with_wcs:
        columns["wcs"] = [_wcs_json(info) for info in infos]
        columns["cards"] = [getattr(info.wcs, "cards", b"") for info in infos]
    return StoredTable("DETAILS", columns)


def _wcs_json(info: ImageInfo) -> bytes:
    wcs = info.wcs
    if wcs is None:
        return b""
    if isinstance(wcs, GwcsWcs):
        return _json({"gwcs": True, "frame": to_plain(wcs.frame)})
    if not isinstance(wcs, FitsWcs):
        raise InputError.at(info.ref.label, "its WCS can't be kept in a file", "use match, which needs none")
    return _json({"tables": to_plain(wcs.tables), "frame": to_plain(wcs.frame), "straight": wcs.straight})


def _infos(details: Mapping[str, Any]) -> tuple[ImageInfo, ...]:
    infos = [from_plain(ImageInfo, json.loads(text)) for text in details["detail"]]
    if "wcs" not in details:
        return tuple(infos)
    kept = zip(infos, details["wcs"], details["cards"], strict=True)
    return tuple(replace(info, wcs=_wcs(info.shape, text, cards)) for info, text, cards in kept)


def _wcs(shape: tuple[int, int], text: bytes, cards: bytes) -> FitsWcs | GwcsWcs | None:
    if not text:
        return None
    plain = json.loads(text)
    if "gwcs" in plain:
        return GwcsWcs(shape, cards, from_plain(SkyFrame, plain["frame"]))
    tables = tuple(None if t is None else from_plain(LookupTable, t) for t in plain["tables"])
    return FitsWcs(shape, cards, tables, from_plain(SkyFrame, plain["frame"]), plain["straight"])


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
