"""Overlaps to measurements, the mesh way: each image is reduced once to soft cells, then cells are compared.

See ``mesh`` for what a cell is and ``mesh.compare`` for how images are compared cell by cell. An image is
read once, by one worker, which also measures its own sky where asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from skymatch_cli.choices import Model
from skymatch_cli.compare.mesh.cells import MeshGrid, TooWideError
from skymatch_cli.compare.mesh.reduce import BLOCK_PIX, CellMesh, reduce_image
from skymatch_cli.compare.pooled import local_skies, n_pixels_of
from skymatch_cli.errors import InputError, Problem
from skymatch_cli.images.image import Pixels, read_pixels
from skymatch_cli.images.pixels import portable
from skymatch_cli.model import (
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    Measurements,
    OverlapGraph,
    SkyStatistic,
    SkyWarning,
    Status,
    group_numbers,
)
from skymatch_cli.model.measurements import PlaneSolver
from skymatch_cli.model.polygons import PolygonRows
from skymatch_cli.run.tasks import Tasks
from skymatch_cli.settings import Settings
from skymatch_cli.sky.raster import Spans, spans_of_polygons
from skymatch_cli.sky.rings import pixel_rings
from skymatch_cli.statistics.regions import region_statistics

DEFAULT_PITCH_PIX = 8.0
_LEAST_PITCH_PIX = 2.0
_POLYGONS = 65536  # whose widths are found at a time: memory
_CELLS_ACROSS = 25.0  # cells across an overlap: those at its border, about one in 25, are lost


@dataclass(frozen=True, slots=True)
class MeshReduction:
    """What one worker found in one image.

    Attributes
    ----------
    meshes : mapping of int to CellMesh
        By plane of the graph of the run.
    status : Status
        Of the image as a whole.
    local : SkyStatistic or None
        Its own sky.
    n_good : int
        Good pixels.
    """

    meshes: Mapping[int, CellMesh]
    status: Status
    local: SkyStatistic | None
    n_good: int
    warnings: tuple[SkyWarning, ...] = ()
    problems: tuple[Problem, ...] = ()


def mesh_tasks(
    infos: Sequence[ImageInfo],
    graph: OverlapGraph,
    settings: Settings,
    *,
    with_local: bool,
    wanted: Sequence[int],
) -> Tasks[MeshReduction]:
    """The reduction of the images that are wanted to cells, one by one."""
    grids = mesh_grids(infos, graph, settings.mesh_size)
    mine = graph.pairs_by_image()

    def make(i: int) -> MeshTask:
        return MeshTask(
            image=i,
            info=portable(infos[i]),
            overlaps=graph.part(mine[i]),
            grids={int(k): grids[k] for k in np.unique(graph.plane[mine[i]])},
            settings=settings,
            with_local=with_local,
        )

    return Tasks(make, wanted, n_pixels_of(infos, wanted))


def assemble_mesh(
    infos: Sequence[ImageInfo],
    graph: OverlapGraph,
    found: Sequence[MeshReduction],
    solve_planes: PlaneSolver,
    *,
    jobs: int = 1,
) -> Measurements:
    """The cells of all images to measurements of the pairs, in comparison units.

    ``solve_planes``: least squares of planes, which belongs to a later step; ``jobs``: see `compare`.
    """
    meshes = [[f.meshes.get(k) for f in found] for k in range(len(graph.planes))]
    usable = np.array([f.status for f in found], object)
    group = group_numbers(infos)
    planes = any(m is not None and m.centroids is not None for plane in meshes for m in plane)
    if planes:
        from skymatch_cli.compare.mesh.tilts import compare_planes

        compared = compare_planes(meshes[0], graph, group, solve_planes, usable)
    else:
        from skymatch_cli.compare.mesh.compare import compare

        compared = compare(meshes, graph, group, usable, jobs=jobs)
    return replace(
        compared,
        n_good=np.array([f.n_good for f in found], np.int64),
        local=local_skies([f.local for f in found]),
    )


def mesh_grids(infos: Sequence[ImageInfo], graph: OverlapGraph, mesh_size: float | None) -> tuple[MeshGrid, ...]:
    """The grid of cells of every plane of the graph.

    The pitch is ``mesh_size`` pixels (8 by default) of the coarsest image that overlaps another. By default it is
    smaller where the widest overlap of some image is narrower than 25 cells, but never below two pixels.
    """
    area = np.fromiter((info.pixel_area_arcsec2 for info in infos), np.float64, len(infos))
    scale = np.radians(np.sqrt(np.nan_to_num(area)) / 3600)
    grids = []
    for k, plane in enumerate(graph.planes if len(graph.a) else ()):
        on_it = graph.plane == k
        if not on_it.any():  # nothing is compared on it, but it has its number
            on_it = np.ones_like(on_it)
        ends = np.concatenate([graph.a[on_it], graph.b[on_it]])
        coarsest = float(scale[ends].max())
        pitch = (mesh_size or DEFAULT_PITCH_PIX) * coarsest
        if mesh_size is None:
            width = np.tile(_widths(graph.polygon, np.flatnonzero(on_it)), 2)
            widest = np.zeros(len(infos))
            np.maximum.at(widest, ends, width)
            narrowest = float(widest[ends].min())
            pitch = max(min(pitch, narrowest / _CELLS_ACROSS), _LEAST_PITCH_PIX * coarsest)
        grids.append(MeshGrid(plane, pitch))
    return tuple(grids)


def _widths(polygons: PolygonRows, rows: IntArray) -> FloatArray:
    """Widths of overlaps, in radians: the shorter side of the rectangle of the same area and border."""
    width = np.empty(len(rows))
    for low in range(0, len(rows), _POLYGONS):
        some = polygons.part(rows[low : low + _POLYGONS])
        half = some.perimeter() / 2
        apart = np.sqrt(np.maximum(half**2 - 4 * some.area(), 0))
        width[low : low + _POLYGONS] = (half - apart) / 2
    return width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeshTask:
    """The reduction of one image: all that a worker needs to know.

    ``overlaps`` are those of the image alone, ``grids`` the grids of the planes that they lie in.
    """

    image: int
    info: ImageInfo
    overlaps: OverlapGraph
    grids: Mapping[int, MeshGrid]
    settings: Settings
    with_local: bool

    def __call__(self) -> MeshReduction:
        """Read the pixels and reduce them."""
        info = self.info
        try:
            pixels = read_pixels(info, self.settings)
        except InputError as error:
            return self._unread(error.problems)
        local = None
        if self.with_local:
            (local,) = region_statistics(pixels.data, pixels.good, [Spans.full(info.shape)], self.settings.statistic)
        n_good = int(np.count_nonzero(pixels.good))
        good = _within_limits(pixels, self.settings)
        status = Status.OK
        if not good.any():
            status = Status.OUTSIDE_LIMITS if n_good else Status.ALL_MASKED
        if info.wcs is None or status != Status.OK or not self.grids:
            return MeshReduction({}, status, local, n_good, pixels.warnings)
        data = pixels.data if info.to_comparison == 1 else pixels.data * pixels.data.dtype.type(info.to_comparison)
        rings = pixel_rings(self.overlaps, self.image, info.wcs, info.ref.label)
        blocks = _needed_blocks(spans_of_polygons(rings, info.shape), info.shape)
        tilted = self.settings.model == Model.PLANE
        try:
            meshes = {
                k: reduce_image(data, good, info.wcs, grid, blocks, centroids=tilted) for k, grid in self.grids.items()
            }
        except TooWideError:
            what = "comes too near the horizon of its tangent plane to be reduced to a mesh"
            return self._unread((Problem(info.ref.label, what, "use --compare pooled"),))
        return MeshReduction(meshes, status, local, n_good, pixels.warnings)

    def lost(self, why: str) -> MeshReduction:
        """The finding where no worker lived to give one."""
        return self._unread((Problem(self.info.ref.label, why, "run again"),))

    def _unread(self, problems: tuple[Problem, ...]) -> MeshReduction:
        local = SkyStatistic(np.nan, np.nan, 0, Status.UNREADABLE) if self.with_local else None
        return MeshReduction({}, Status.UNREADABLE, local, 0, problems=problems)


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
