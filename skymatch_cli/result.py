"""Solution -> tables and files: what a run found, and what a plan says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .choices import TableName
from .model import FloatArray, ImageInfo, IntArray, Measurements, OverlapGraph, Solution
from .settings import Settings
from .tables import (
    Column,
    Report,
    Table,
    components_table,
    images_table,
    name_columns,
    overlaps_table,
    pair_columns,
    to_qtable,
)

if TYPE_CHECKING:
    from os import PathLike

    from astropy.table import QTable


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run found.

    Attributes
    ----------
    settings : Settings
    infos : tuple of ImageInfo
        The N images.
    measurements : Measurements
        The M overlaps.
    solution : Solution
    warnings : tuple of str
        Everything the user should know, in the order of the steps.
    skipped : tuple of str
        Inputs and HDUs that were not used, and why.
    """

    settings: Settings
    infos: tuple[ImageInfo, ...]
    measurements: Measurements
    solution: Solution
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @cached_property
    def report(self) -> Report:
        """The tables as plain columns: what every file format is made of."""
        parts = self.infos, self.measurements, self.solution
        tables = (images_table(*parts), overlaps_table(*parts), components_table(self.solution))
        return _report(self.settings, self.infos, tables, self.warnings)

    @cached_property
    def images(self) -> QTable:
        """One row for each image; ``sky`` and ``sky_err`` are in the unit that ``sky_unit`` names."""
        return to_qtable(self.report.images)

    @cached_property
    def overlaps(self) -> QTable:
        """One row for each overlapping pair; values are in the comparison unit that ``unit`` names."""
        return to_qtable(self.report.overlaps)

    @cached_property
    def components(self) -> QTable:
        """One row for each connected set of images."""
        return to_qtable(self.report.components)

    def to_json(self) -> str:
        """The result as JSON: every digit of a number, null where there is none."""
        from .formats import json_chunks

        return "".join(json_chunks(self.report))

    def write(
        self,
        file: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 (the name of the option)
        table: str = "images",
        overwrite: bool = False,
    ) -> None:
        """Write the result to a file.

        Parameters
        ----------
        file : path
            Its suffix names the format: ``.ecsv``, ``.csv``, ``.json``, ``.fits`` or ``.vot``.
        format : str, optional
            For another suffix.
        table : {"images", "overlaps", "components"}
            Which table, for formats that hold one (ECSV, CSV, text).
        overwrite : bool
            Replace a file that exists.

        Raises
        ------
        UsageError
            If the format is unknown or contradicts the suffix, or the file exists.
        SkymatchError
            If it can't be written.
        """
        import os

        from .output import Output

        output = Output(output=os.fspath(file), format=format, table=table)
        output.check(overwrite=overwrite, inputs=input_paths(self.infos))
        output.save(self.report)


def plan_report(
    settings: Settings,
    infos: tuple[ImageInfo, ...],
    graph: OverlapGraph,
    *,
    component: IntArray,
    area_arcmin2: FloatArray,
    warnings: tuple[str, ...] = (),
) -> Report:
    """The tables of a plan: footprints, overlaps and components, and an estimate of the work.

    Parameters
    ----------
    settings, infos, graph
        Of the plan.
    component : (N,) int64
        Component of every image, from 0.
    area_arcmin2 : (N,) float64
        Solid angle of every footprint, above 0.
    warnings : tuple of str
    """
    n_pixels = np.array([info.shape[0] * info.shape[1] for info in infos], dtype=np.int64)
    per_arcmin2 = n_pixels / area_arcmin2
    n_a = np.rint(graph.area_arcmin2 * per_arcmin2[graph.a]).astype(np.int64)
    n_b = np.rint(graph.area_arcmin2 * per_arcmin2[graph.b]).astype(np.int64)
    n_overlaps = np.bincount(np.concatenate([graph.a, graph.b]), minlength=len(infos)).astype(np.int64)
    images = (
        *name_columns(infos),
        Column("component", component, "Connected set of images (index into the components)"),
        Column("area_arcmin2", area_arcmin2, "Solid angle of the footprint", "arcmin2"),
        Column("n_overlaps", n_overlaps, "Images that it overlaps"),
        Column("n_pixels", n_pixels, "Pixels of the image"),
    )
    overlaps = (
        *pair_columns(graph.a, graph.b, graph.area_arcmin2),
        Column("n_a", n_a, "Pixels of image a in the overlap (estimate)"),
        Column("n_b", n_b, "Pixels of image b in the overlap (estimate)"),
    )
    components = _planned_components(component, component[graph.a], n_pixels, n_a + n_b)
    tables = (Table(TableName.IMAGES, images), Table(TableName.OVERLAPS, overlaps), components)
    return _report(settings, infos, tables, warnings)


def _planned_components(of_image: IntArray, of_pair: IntArray, image_pixels: IntArray, pair_pixels: IntArray) -> Table:
    n = int(of_image.max(initial=-1)) + 1

    def sums(index: IntArray, values: IntArray) -> IntArray:
        total = np.zeros(n, dtype=np.int64)
        np.add.at(total, index, values)
        return total

    overlap_pixels = "Pixels in its overlaps (estimate), each as often as an overlap needs it"
    return Table(
        TableName.COMPONENTS,
        (
            Column("id", np.arange(n, dtype=np.int64), "Number of the component"),
            Column("n_images", sums(of_image, np.ones_like(of_image)), "Images in it"),
            Column("n_overlaps", sums(of_pair, np.ones_like(of_pair)), "Overlaps in it"),
            Column("n_pixels", sums(of_image, image_pixels), "Pixels of its images"),
            Column("n_overlap_pixels", sums(of_pair, pair_pixels), overlap_pixels),
        ),
    )


def input_paths(infos: tuple[ImageInfo, ...]) -> tuple[str, ...]:
    """The files that a run reads: images and masks."""
    refs = [info.ref for info in infos]
    return tuple({ref.path: None for ref in refs} | {ref.mask.path: None for ref in refs if ref.mask})


def _report(
    settings: Settings, infos: tuple[ImageInfo, ...], tables: tuple[Table, Table, Table], warnings: tuple[str, ...]
) -> Report:
    from . import __version__

    determining: dict[str, Any] = settings.determining()
    images, overlaps, components = tables
    return Report(
        version=__version__,
        settings=determining,
        images=images,
        overlaps=overlaps,
        components=components,
        labels=tuple(info.ref.label for info in infos),
        warnings=warnings,
    )
