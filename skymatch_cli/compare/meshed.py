"""Overlaps to measurements, the mesh way: each image is reduced once to soft cells, then cells are compared.

See ``mesh`` for what a cell is and ``mesh.joint`` for how images are compared cell by cell. An image is
read once, by one worker, which also measures its own sky where asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain

import numpy as np

from skymatch_cli.choices import Model, WarningName
from skymatch_cli.compare.mesh.cells import BLOCK_PIX, MeshGrid, TooWideError
from skymatch_cli.compare.mesh.grids import halvings, mesh_grids
from skymatch_cli.compare.mesh.packed import Mesh, PackedMesh
from skymatch_cli.compare.mesh.placement import Placement
from skymatch_cli.compare.mesh.reduce import reduce_image
from skymatch_cli.compare.mesh.sharp import without_lines
from skymatch_cli.compare.steperrors import step_variances
from skymatch_cli.errors import InputError, Problem
from skymatch_cli.images.formats.files import is_remote
from skymatch_cli.images.pixels import Pixels, pixels_of
from skymatch_cli.model import (
    BoolArray,
    FloatArray,
    ImageInfo,
    IntArray,
    LocalSkies,
    Measurements,
    OverlapGraph,
    PixelArray,
    SkyStatistic,
    SkyWarning,
    Status,
    StrArray,
    TangentPlane,
    group_numbers,
    n_pixels_of,
    set_numbers,
)
from skymatch_cli.model.measurements import DegreeChooser, PlaneSolver, joined
from skymatch_cli.run.tasks import Tasks, run_apart
from skymatch_cli.settings import Settings
from skymatch_cli.sky.raster import Spans, spans_of_polygons
from skymatch_cli.sky.rings import pixel_rings
from skymatch_cli.statistics.amplifiers import UNKNOWN_STEPS, amplifier_steps
from skymatch_cli.statistics.coarse import is_continuous, rounding_bias
from skymatch_cli.statistics.scale import pixel_scale, scales

_SAMPLE, _GLANCE = 2**14, 2**10  # good pixels that show the steps of integers, or that there are none


@dataclass(frozen=True, slots=True)
class MeshReduction:
    """Result of the reduction of one image."""

    # by plane of the graph of the run: one mesh for every spacing that its overlaps there need
    meshes: Mapping[int, tuple[Mesh, ...]]
    status: Status  # of the image as a whole
    local: SkyStatistic | None  # its own sky
    n_good: int  # good pixels
    warnings: tuple[SkyWarning, ...] = ()
    problems: tuple[Problem, ...] = ()
    scale: FloatArray = field(default_factory=lambda: np.full(2, np.nan))  # see `pixel_scale`
    steps: FloatArray = field(default_factory=UNKNOWN_STEPS.copy)  # see `amplifier_steps`


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
    spacing = halvings(infos, graph, grids, settings)
    mine = graph.pairs_by_image()

    last: list[_Places] = []  # the planes of a cube follow each other

    def make(i: int) -> MeshTask:
        info, rows = infos[i], mine[i]
        in_use = {int(k): grids[k] for k in np.unique(graph.plane[rows])}
        places = _Places(i, info, graph.part(rows), graph.plane[rows], spacing[rows], in_use)
        if not (last and last[0].are_those_of(places)):
            last[:] = [places]
        return MeshTask(image=i, info=info, places=last[0], settings=settings, with_local=with_local)

    return Tasks(make, wanted, n_pixels_of(infos, wanted))


def assemble_mesh(
    infos: Sequence[ImageInfo],
    graph: OverlapGraph,
    found: Callable[[int], MeshReduction],
    settings: Settings,
    solvers: tuple[PlaneSolver, DegreeChooser] | None,
    *,
    jobs: int = 1,
) -> tuple[Measurements, list[MeshReduction]]:
    """Compare the cells of all images: differences of the pairs in comparison units, and the findings without cells.

    Images of different sets (``--split-by``, planes of cubes) are never compared: each set gives what it gives alone,
    and ``found`` is asked for the findings of its images when it is its turn, in one of ``jobs`` processes.
    ``solvers``: least squares of polynomials and the choice of their degree, which belong to a later step; None for
    constants.
    """
    grids = mesh_grids(infos, graph, settings.mesh_size)
    spacing = halvings(infos, graph, grids, settings)
    sets, group = set_numbers(infos), group_numbers(infos)
    images, pairs = _members(sets), _members(sets[graph.a], int(sets.max(initial=0)) + 1)

    def compare_set(k: int) -> tuple[Measurements, list[MeshReduction]]:
        mine, rows = images[k], pairs[k]
        reduced = list(map(found, mine.tolist()))
        own = graph if len(images) == 1 else graph.part(rows)
        a, b = (np.searchsorted(mine, end[rows]) for end in (graph.a, graph.b))
        part = replace(own, n_images=len(mine), a=a, b=b)
        meshes, part = _by_spacing(part, graph.plane[rows], spacing[rows], reduced, graph.planes)
        usable = np.array([f.status for f in reduced], object)
        degree = Model(settings.model).degree
        own_infos = [infos[i] for i in mine.tolist()]
        steps = partial(step_variances, own_infos, [f.steps for f in reduced])
        compare_all = partial(_compared, meshes, part, group[mine], usable, steps, solvers=solvers, jobs=jobs)
        differences = compare_all(degree=degree)
        if solvers is not None and settings.model == Model.AUTO:
            # Cells are trusted, and their errors known, with the model that they are compared by.
            degree, reasons = solvers[1](own_infos, group[mine], differences)
            differences = replace(compare_all(degree=degree), reasons=reasons)
        return differences, [replace(f, meshes={}) for f in reduced]

    n_pixels = n_pixels_of(infos, range(len(infos)))
    with closing(run_apart(compare_set, range(len(images)), jobs=jobs, n_pixels=n_pixels)) as answers:
        compared, outlines = zip(*answers, strict=True)
    whole = compared[0] if len(compared) == 1 else joined(compared, graph, images, pairs)
    without_cells = dict(zip(np.concatenate(images).tolist(), chain(*outlines), strict=True))
    of_images = [without_cells[i] for i in range(len(infos))]
    n_good = np.array([f.n_good for f in of_images], np.int64)
    scale = scales(infos, [f.scale for f in of_images])
    return replace(whole, n_good=n_good, local=LocalSkies.of([f.local for f in of_images]), scale=scale), of_images


def _compared(
    meshes: list[list[Mesh | None]],
    graph: OverlapGraph,
    group: IntArray,
    usable: StrArray,
    steps: Callable[[], FloatArray],
    *,
    degree: int,
    solvers: tuple[PlaneSolver, DegreeChooser] | None,
    jobs: int,
) -> Measurements:
    """The differences of the images of one set."""
    if (
        degree
        and solvers is not None
        and any(mesh is not None and mesh.centroids is not None for cells in meshes for mesh in cells)
    ):
        from skymatch_cli.compare.mesh.tilts import compare_planes

        return compare_planes(meshes[0], graph, group, solvers[0], usable, degree=degree)
    from skymatch_cli.compare.mesh.joint import compare

    return compare(meshes, graph, group, usable, steps=steps(), jobs=jobs)


def _members(number: IntArray, n: int | None = None) -> list[IntArray]:
    """The places of each of n numbers, in their order."""
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(1, (int(number.max(initial=0)) + 1) if n is None else n))
    return np.split(order, ends)


def _by_spacing(
    graph: OverlapGraph,
    plane: IntArray,
    spacing: IntArray,
    found: Sequence[MeshReduction],
    planes: tuple[TangentPlane, ...],
) -> tuple[list[list[Mesh | None]], OverlapGraph]:
    """Meshes of the images by plane and spacing, and the graph with these in the place of its planes.

    ``plane`` (M,): index of the plane of every overlap in those of the run, ``planes``.
    """
    kinds, kind = np.unique(np.stack([plane, spacing]), axis=1, return_inverse=True)
    meshes = [
        [next((m for m in f.meshes.get(of_plane, ()) if m.halvings == halved), None) for f in found]
        for of_plane, halved in kinds.T.tolist()
    ]
    of_kind = tuple(planes[k] for k in kinds[0].tolist())
    return meshes, replace(graph, plane=kind.reshape(-1).astype(np.int64), planes=of_kind)


@dataclass(frozen=True, eq=False)
class _Places:
    """Where an image and its overlaps lie: the same for all planes of a cube.

    ``overlaps`` are those of the image alone, ``planes`` and ``halvings`` say on which plane of the run and at which
    spacing each is compared, ``grids`` are the coarsest grids of these planes.
    """

    image: int
    info: ImageInfo
    overlaps: OverlapGraph
    planes: IntArray
    halvings: IntArray
    grids: Mapping[int, MeshGrid]

    def are_those_of(self, other: _Places) -> bool:
        """Whether both images are planes of one cube, and overlap others alike."""
        mine, its = self.info.ref, other.info.ref
        same = (mine.path, mine.hdu, mine.section) == (its.path, its.hdu, its.section) and mine.part.plane is not None
        pairs = ((self.planes, other.planes), (self.halvings, other.halvings), (self._vertices, other._vertices))
        return same and all(np.array_equal(a, b) for a, b in pairs)

    @cached_property
    def _vertices(self) -> FloatArray:
        return self.overlaps.polygon.part(np.arange(len(self.planes))).xy

    @cached_property
    def spans(self) -> Sequence[Spans]:
        """Pixels of every overlap, in rows that tell the blocks they lie in where its borders allow for it."""
        info, ny = self.info, self.info.shape[0]
        assert info.wcs is not None  # noqa: S101 - only images with a WCS have overlaps
        rings = pixel_rings(self.overlaps, self.image, info.wcs, info.ref.label)
        # Borders are straight between corners: they reach farthest at these, or at the ends of blocks.
        corners = np.ceil(np.concatenate([[0.0], *(ring[:, 1] for overlap in rings for ring in overlap)])).astype(
            np.int64
        )
        ends = np.arange(0, ny + BLOCK_PIX, BLOCK_PIX)
        rows = np.unique(np.concatenate([corners, corners - 1, ends, ends - 1]).clip(0, ny - 1))
        spans = spans_of_polygons(rings, info.shape, rows)
        if all((each.x1 > each.x0).all() for each in spans):
            return spans
        return spans_of_polygons(rings, info.shape)  # a tip between pixels tells nothing of the rows beside it

    @cached_property
    def placements(self) -> list[tuple[int, int, Placement]]:
        """Where pixels lie, and the blocks of them that overlaps need, by plane and spacing; may raise TooWideError."""
        info, found = self.info, []
        assert info.wcs is not None  # noqa: S101 - see above
        for plane, halved in np.unique(np.stack([self.planes, self.halvings]), axis=1).T.tolist():
            mine = np.flatnonzero((self.planes == plane) & (self.halvings == halved))
            blocks = _needed_blocks([self.spans[k] for k in mine.tolist()], info.shape)
            grid, several = self.grids[plane].halved(halved), info.ref.part.plane is not None
            found.append((plane, halved, Placement(info.wcs, grid, blocks, several=several)))
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeshTask:
    """The reduction of one image: all that a worker needs to know."""

    image: int
    info: ImageInfo
    places: _Places
    settings: Settings
    with_local: bool

    def __call__(self) -> MeshReduction:
        """Read the pixels and reduce them."""
        info = self.info
        try:
            pixels = self._pixels()
        except InputError as error:
            return self._unread(error.problems)
        local = None
        if self.with_local:
            from skymatch_cli.statistics.ownsky import own_sky

            chosen = self.settings
            local = own_sky(pixels.data, pixels.good, chosen.statistic, mask_sources=chosen.mask_sources)
        n_good = int(np.count_nonzero(pixels.good))
        good = _within_limits(pixels, self.settings)
        status = Status.OK
        if not good.any():
            status = Status.OUTSIDE_LIMITS if n_good else Status.ALL_MASKED
        if info.wcs is None or status != Status.OK or not self.places.grids:
            return MeshReduction({}, status, local, n_good, pixels.warnings)
        if info.ref.part.plane is None:  # planes of cubes are resampled: no line of a detector is one of theirs
            good = without_lines(pixels.data, good)
        data = pixels.data if info.to_comparison == 1 else pixels.data * pixels.data.dtype.type(info.to_comparison)
        try:
            meshes = self._meshes(data, good)
        except TooWideError:
            what = "comes too near the horizon of its tangent plane to be reduced to a mesh"
            return self._unread((Problem(info.ref.label, what, "use --compare pooled"),))
        warnings = (*pixels.warnings, *_coarse(info, pixels.data, good))
        steps = UNKNOWN_STEPS
        if self.settings.model in {Model.CONSTANT, Model.AUTO}:  # of polynomials they are not used
            steps = amplifier_steps(pixels.data, good)
        scale = pixel_scale(pixels.data, good)
        return MeshReduction(meshes, status, local, n_good, warnings, scale=scale, steps=steps)

    def _pixels(self) -> Pixels:
        info = self.info
        if self.with_local or info.wcs is None or not is_remote(info.source.science.path):
            return pixels_of(info, self.settings)
        needed = np.repeat(_needed_blocks(self.places.spans, info.shape).any(axis=1), BLOCK_PIX)
        return pixels_of(info, self.settings, [np.flatnonzero(needed[: info.shape[0]])])

    def _meshes(self, data: PixelArray, good: BoolArray) -> dict[int, tuple[Mesh, ...]]:
        """The meshes by plane, one for every spacing."""
        meshes: dict[int, tuple[Mesh, ...]] = {}
        for plane, halved, placement in self.places.placements:
            mesh = reduce_image(data, good, placement, degree=Model(self.settings.model).degree)
            meshes[plane] = (*meshes.get(plane, ()), PackedMesh.of_mesh(replace(mesh, halvings=halved)))
        return meshes

    def lost(self, why: str) -> MeshReduction:
        """Return the finding of an image whose workers all died."""
        return self._unread((Problem(self.info.ref.label, why, "run again"),))

    def _unread(self, problems: tuple[Problem, ...]) -> MeshReduction:
        local = SkyStatistic(np.nan, np.nan, 0, Status.UNREADABLE) if self.with_local else None
        return MeshReduction({}, Status.UNREADABLE, local, 0, problems=problems)


def _coarse(info: ImageInfo, data: PixelArray, good: BoolArray) -> tuple[SkyWarning, ...]:
    """A warning where the integers of an image are too coarse for means."""
    values, use, n_good = data.reshape(-1), good.reshape(-1), int(np.count_nonzero(good))
    few, every = (np.s_[:: n_good // n | 1] for n in (_GLANCE, _SAMPLE))
    if is_continuous(values[few][use[few]]) or not (bias := rounding_bias(values[every][use[every]])):
        return ()
    text = f"{info.ref.label}: its noise is less than half a step of its integers: its sky may be wrong by {bias:.2g}"
    return (SkyWarning(WarningName.COARSE, text, bias, info.unit),)


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
    parts = [spans for spans in regions if spans.y.size]
    if parts:
        y, x0, x1 = (np.concatenate([getattr(spans, name) for spans in parts]) for name in ("y", "x0", "x1"))
        line = y // BLOCK_PIX + np.repeat(np.arange(len(parts)) * ny, [spans.y.size for spans in parts])
        first = np.flatnonzero(np.diff(line, prepend=-1))  # of every row of blocks
        row = y[first] // BLOCK_PIX + np.arange(3)[:, None]
        np.add.at(change, (row, np.minimum.reduceat(x0, first) // BLOCK_PIX), 1)
        np.add.at(change, (row, (np.maximum.reduceat(x1, first) - 1) // BLOCK_PIX + 3), -1)
    return np.cumsum(change, axis=1)[1 : ny + 1, 1 : nx + 1] > 0
