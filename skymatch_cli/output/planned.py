"""The tables of a plan: footprints, overlaps and components, and an estimate of the work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.choices import TableName
from skymatch_cli.model import ImageInfo, IntArray, OverlapGraph, SkyWarning
from skymatch_cli.output.result import make_report
from skymatch_cli.output.tables import Column, Report, Table, name_columns, pair_columns
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.sky.sphere import ring_sr

_ARCMIN2_PER_SR = (180 * 60 / np.pi) ** 2


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
    images = (
        *name_columns(infos),
        Column("component", component, "Connected set of images (index into the components)"),
        Column("area_arcmin2", area, "Solid angle of the footprint", "arcmin2"),
        Column("n_overlaps", n_overlaps, "Images that it overlaps"),
        Column("n_pixels", n_pixels, "Pixels of the image"),
    )
    overlaps = (
        *pair_columns(graph.a, graph.b, graph.area_arcmin2),
        Column("n_a", n_a, "Pixels of image a in the overlap (estimate)"),
        Column("n_b", n_b, "Pixels of image b in the overlap (estimate)"),
    )
    tables = (
        Table(TableName.IMAGES, images),
        Table(TableName.OVERLAPS, overlaps),
        _components_table(component, component[graph.a], n_pixels, n_a + n_b),
    )
    return make_report(settings, infos, tables, warnings)


def footprint_arcmin2(footprint: Footprint) -> float:
    """Solid angle of a footprint: its parts without their holes."""
    return _ARCMIN2_PER_SR * sum(ring_sr(part.rings[0]) - sum(map(ring_sr, part.rings[1:])) for part in footprint.parts)


def components(infos: Sequence[ImageInfo], graph: OverlapGraph) -> IntArray:
    """Connected set of every image, (N,) int64: joined by overlaps and groups, numbered by the first image."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = {info.group: k for k, info in reversed(list(enumerate(infos)))}
    leader = np.array([first[info.group] for info in infos], dtype=np.int64)
    a = np.concatenate([graph.a, np.arange(len(infos))])
    b = np.concatenate([graph.b, leader])
    links = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(infos), len(infos)))
    label = connected_components(links, directed=False)[1]
    return np.asarray(label, dtype=np.int64)  # scipy numbers them as it comes to them, image by image


def _components_table(of_image: IntArray, of_pair: IntArray, image_pixels: IntArray, pair_pixels: IntArray) -> Table:
    n = int(of_image.max(initial=-1)) + 1

    def sums(index: IntArray, values: IntArray) -> IntArray:
        total = np.zeros(n, dtype=np.int64)
        np.add.at(total, index, values)
        return total

    overlap_pixels = "Pixels in its overlaps (estimate), counted once per overlap"
    columns = (
        Column("id", np.arange(n, dtype=np.int64), "Number of the component"),
        Column("n_images", sums(of_image, np.ones_like(of_image)), "Images in it"),
        Column("n_overlaps", sums(of_pair, np.ones_like(of_pair)), "Overlaps in it"),
        Column("n_pixels", sums(of_image, image_pixels), "Pixels of its images"),
        Column("n_overlap_pixels", sums(of_pair, pair_pixels), overlap_pixels),
    )
    return Table(TableName.COMPONENTS, columns)
