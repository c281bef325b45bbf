"""The tables of a plan: footprints, overlaps and components, and an estimate of the work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.choices import TableName
from skymatch_cli.compare.mesh.connected import connected
from skymatch_cli.model import ImageInfo, IntArray, OverlapGraph, SkyWarning
from skymatch_cli.output.result import make_report
from skymatch_cli.output.tables import Report, make_table, names_of
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.sky.sphere import ring_sr

_ARCMIN2_PER_SR = (180 * 60 / np.pi) ** 2
_ABOUT_IMAGES = {
    "area_arcmin2": "Solid angle of the footprint",
    "n_overlaps": "Images that it overlaps",
    "n_pixels": "Pixels of the image",
}
_ABOUT_OVERLAPS = {f"n_{end}": f"Pixels of image {end} in the overlap (estimate)" for end in "ab"}
_ABOUT_COMPONENTS = {
    "n_overlaps": "Overlaps in it",
    "n_pixels": "Pixels of its images",
    "n_overlap_pixels": "Pixels in its overlaps (estimate), counted once per overlap",
}


def plan_report(
    settings: Settings,
    infos: Sequence[ImageInfo],
    footprints: Sequence[Footprint],
    graph: OverlapGraph,
    warnings: tuple[SkyWarning, ...] = (),
) -> Report:
    """What the headers alone say, as the tables of a result.

    Pixels in overlaps are estimated from the areas: every pixel of an image is taken to be of one size.
    """
    area = np.array([footprint_arcmin2(footprint) for footprint in footprints])
    component = components(infos, graph)
    n_pixels = np.array([info.shape[0] * info.shape[1] for info in infos], dtype=np.int64)
    n_a, n_b = (np.rint(graph.area_arcmin2 * (n_pixels / area)[index]).astype(np.int64) for index in (graph.a, graph.b))
    n_overlaps = np.bincount(np.concatenate([graph.a, graph.b]), minlength=len(infos)).astype(np.int64)
    images = {
        **names_of(infos),
        "component": component,
        "area_arcmin2": area,
        "n_overlaps": n_overlaps,
        "n_pixels": n_pixels,
    }
    overlaps = {"a": graph.a, "b": graph.b, "area_arcmin2": graph.area_arcmin2, "n_a": n_a, "n_b": n_b}
    of_pair, n = component[graph.a], int(component.max(initial=-1)) + 1
    of_components = {
        "id": np.arange(n),
        "n_images": np.bincount(component, minlength=n),
        "n_overlaps": np.bincount(of_pair, minlength=n),
        "n_pixels": np.bincount(component, n_pixels, n).astype(np.int64),
        "n_overlap_pixels": np.bincount(of_pair, n_a + n_b, n).astype(np.int64),
    }
    tables = (
        make_table(TableName.IMAGES, images, **_ABOUT_IMAGES),
        make_table(TableName.OVERLAPS, overlaps, **_ABOUT_OVERLAPS),
        make_table(TableName.COMPONENTS, of_components, **_ABOUT_COMPONENTS),
    )
    return make_report(settings, infos, tables, warnings)


def footprint_arcmin2(footprint: Footprint) -> float:
    """Solid angle of a footprint: its parts without their holes."""
    return _ARCMIN2_PER_SR * sum(ring_sr(part.rings[0]) - sum(map(ring_sr, part.rings[1:])) for part in footprint.parts)


def components(infos: Sequence[ImageInfo], graph: OverlapGraph) -> IntArray:
    """Connected set of every image, (N,) int64: joined by overlaps and groups, numbered by the first image."""
    first = {info.group: k for k, info in reversed(list(enumerate(infos)))}
    leader = np.array([first[info.group] for info in infos], dtype=np.int64)
    each = np.arange(len(infos))  # scipy numbers them as it comes to them, image by image
    return connected(len(infos), np.append(graph.a, each), np.append(graph.b, leader))
