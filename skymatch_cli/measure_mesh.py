"""Overlaps to measurements, the mesh way: each image is reduced once to soft cells, then cells are compared.

See ``mesh`` for what a cell is and ``mesh_compare`` for how images are compared cell by cell. An image is
read once, by one worker, which also measures its own sky where asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .cells import MeshGrid
from .errors import InputError, Problem
from .execution import Progress, run
from .image import Pixels, read_pixels
from .measure import group_numbers, local_skies
from .mesh import BLOCK_PIX, CellMesh, reduce_image
from .mesh_compare import compare
from .model import (
    BoolArray,
    FloatArray,
    ImageInfo,
    Measurements,
    OverlapGraph,
    SkyStatistic,
    Status,
)
from .raster import Spans, polygon_spans
from .rings import pixel_rings
from .settings import Settings
from .tiles import region_statistics

DEFAULT_PITCH_PIX = 8.0
_LEAST_PITCH_PIX = 3.0
_CELLS_ACROSS = 6.0  # cells across an overlap: windows are three cells wide, and those cut by the border are lost


@dataclass(frozen=True, slots=True)
class _Reduced:
    """What one worker found in one image."""

    meshes: tuple[CellMesh | None, ...]  # one for each plane of the graph
    status: Status
    local: SkyStatistic | None
    n_good: int
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def measure_mesh(
    infos: Sequence[ImageInfo],
    graph: OverlapGraph,
    settings: Settings,
    *,
    with_local: bool,
    progress: Progress | None = None,
) -> tuple[Measurements, tuple[Problem, ...], tuple[str, ...]]:
    """Measure every overlap of the graph cell by cell.

    Parameters and returns are those of ``measure.measure_pooled``.
    """
    grids = mesh_grids(infos, graph, settings.mesh_size)

    def work(i: int) -> _Reduced:
        return _reduce(i, infos[i], graph, settings, grids, with_local=with_local)

    found = list(run(work, range(len(infos)), jobs=settings.jobs, progress=progress))
    meshes = [[f.meshes[k] for f in found] for k in range(len(grids))]
    usable = np.array([f.status for f in found], object)
    measurements = replace(
        compare(meshes, graph, group_numbers(infos), usable),
        n_good=np.array([f.n_good for f in found], np.int64),
        local=local_skies([f.local for f in found]),
    )
    return measurements, tuple(p for f in found for p in f.problems), tuple(w for f in found for w in f.warnings)


def mesh_grids(infos: Sequence[ImageInfo], graph: OverlapGraph, mesh_size: float | None) -> tuple[MeshGrid, ...]:
    """The grid of cells of every plane of the graph.

    The pitch is ``mesh_size`` pixels (8 by default) of the coarsest image that overlaps another. By default it is
    smaller where the widest overlap of some image is narrower than six cells: every image keeps cells of its own.
    """
    scale = np.array([_scale_rad(info) for info in infos])
    grids = []
    for k, plane in enumerate(graph.planes):
        here = graph.plane == k
        ends = np.concatenate([graph.a[here], graph.b[here]])
        coarsest = float(scale[ends].max())
        pitch = (mesh_size or DEFAULT_PITCH_PIX) * coarsest
        if mesh_size is None:
            width = np.tile(_widths(graph, here), 2)
            widest = np.zeros(len(infos))
            np.maximum.at(widest, ends, width)
            narrowest = float(widest[ends].min())
            pitch = max(min(pitch, narrowest / _CELLS_ACROSS), _LEAST_PITCH_PIX * coarsest)
        grids.append(MeshGrid(plane, pitch))
    return tuple(grids)


def _scale_rad(info: ImageInfo) -> float:
    from .celestial import pixel_scale_arcsec

    return 0.0 if info.wcs is None else float(np.radians(pixel_scale_arcsec(info.wcs) / 3600))


def _widths(graph: OverlapGraph, rows: BoolArray) -> FloatArray:
    """Mean width of overlaps, in radians: a long strip has twice its area over its border."""
    import shapely

    polygons = graph.polygon[rows]
    return np.asarray(2.0 * shapely.area(polygons) / shapely.length(polygons))


def _reduce(
    i: int, info: ImageInfo, graph: OverlapGraph, settings: Settings, grids: Sequence[MeshGrid], *, with_local: bool
) -> _Reduced:
    nothing = (None,) * len(grids)
    try:
        pixels = read_pixels(info, settings)
    except InputError as error:
        lost = SkyStatistic(np.nan, np.nan, 0, Status.UNREADABLE) if with_local else None
        return _Reduced(nothing, Status.UNREADABLE, lost, 0, problems=error.problems)
    local = None
    if with_local:
        (local,) = region_statistics(pixels.data, pixels.good, [Spans.full(info.shape)], settings.statistic)
    n_good = int(np.count_nonzero(pixels.good))
    good = _within_limits(pixels, settings)
    status = Status.OK
    if not good.any():
        status = Status.OUTSIDE_LIMITS if n_good else Status.ALL_MASKED
    pairs = graph.pairs_of(i)
    if info.wcs is None or status != Status.OK or not len(pairs):
        return _Reduced(nothing, status, local, n_good, pixels.warnings)
    data = pixels.data if info.to_comparison == 1 else pixels.data * pixels.data.dtype.type(info.to_comparison)
    planes = set(graph.plane[pairs].tolist())
    blocks = _needed_blocks(
        [polygon_spans(r, info.shape) for r in pixel_rings(graph, i, info.wcs, info.ref.label)], info.shape
    )
    meshes = tuple(
        reduce_image(data, good, info.wcs, grid, blocks) if k in planes else None for k, grid in enumerate(grids)
    )
    return _Reduced(meshes, status, local, n_good, pixels.warnings)


def _within_limits(pixels: Pixels, settings: Settings) -> BoolArray:
    good = pixels.good
    if settings.lower is not None:
        good = good & (pixels.data >= settings.lower)
    if settings.upper is not None:
        good = good & (pixels.data <= settings.upper)
    return good


def _needed_blocks(regions: Sequence[Spans], shape: tuple[int, int]) -> BoolArray:
    """Blocks of pixels that lie in an overlap or beside one: windows of cells reach across its border."""
    ny, nx = (-(-n // BLOCK_PIX) for n in shape)
    change = np.zeros((ny + 2, nx + 3), np.int64)
    for spans in regions:
        row = spans.y // BLOCK_PIX
        first, last = spans.x0 // BLOCK_PIX, (spans.x1 - 1) // BLOCK_PIX + 3
        for beside in (0, 1, 2):
            np.add.at(change, (row + beside, first), 1)
            np.add.at(change, (row + beside, last), -1)
    return np.cumsum(change, axis=1)[1 : ny + 1, 1 : nx + 1] > 0
