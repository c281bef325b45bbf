"""What was found in the pixels, image by image: measured once, kept, and used again.

A finding belongs to an image as it is on the disk (path, size, time, HDU, DQ and mask), to the settings that say
how pixels are measured, and to the overlaps of the image: for each of these, the other image and the tangent
plane. Where all that is the same, measuring again would give the same digits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skymatch_cli.beside import Ask, here
from skymatch_cli.choices import Compare
from skymatch_cli.errors import InputError
from skymatch_cli.execution import NoProgress, Progress, Runner, Tasks
from skymatch_cli.fits.files import real_path, size_and_time
from skymatch_cli.measure import ImageMeasurement, assemble_pooled, blocks_per_side, coarser, pooled_tasks
from skymatch_cli.measure_mesh import MeshReduction, assemble_mesh, mesh_grids, mesh_tasks
from skymatch_cli.mesh.cells import MeshGrid
from skymatch_cli.model import ImageInfo, IntArray, Measurements, OverlapGraph, StoredPlane, TangentPlane
from skymatch_cli.settings import Settings

Finding = ImageMeasurement | MeshReduction
_PairKey = tuple[bytes, float, float]
SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan, and what was found so far in its images: one finding for each, None where there is none yet."""

    infos: tuple[ImageInfo, ...]
    graph: OverlapGraph
    settings: Settings
    found: tuple[Finding | None, ...]

    @property
    def missing(self) -> IntArray:
        """Images that were not measured."""
        return np.array([i for i, f in enumerate(self.found) if f is None], np.int64)


def measure_images(
    start: Measured,
    runner: Runner,
    *,
    with_local: bool,
    only: Sequence[int] | None = None,
    save: Callable[[Measured], object] | None = None,
    progress: Progress | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Measured:
    """Measure what is not known yet.

    Parameters
    ----------
    start : Measured
        With what is known already; a finding may lack some of the image's overlaps.
    runner : Runner
    with_local : bool
        Measure the images' own skies too.
    only : sequence of int, optional
        These images alone.
    save : callable, optional
        Called with what is known so far once a minute, and where the work is interrupted.
    progress : Progress, optional
    meanwhile : callable, optional
        What this process may do while others read.
    """
    found = list(start.found)
    wanted = _wanted(start, range(len(found)) if only is None else only)
    (progress or NoProgress()).stage("pixels", len(wanted))
    tasks = replace(_tasks(start, wanted, with_local=with_local), meanwhile=meanwhile)
    saved, clean = time.monotonic(), False
    try:
        answers = runner(tasks, progress=progress)
        for i, finding in zip(wanted, answers, strict=True):
            found[i] = _joined(found[i], finding)
            if save is not None and time.monotonic() - saved > SAVE_EVERY_S:
                save(replace(start, found=tuple(found)))
                saved = time.monotonic()
        clean = True
    finally:
        if save is not None and not clean:
            save(replace(start, found=tuple(found)))
    return replace(start, found=tuple(found))


def assemble(measured: Measured, ask: Ask = here) -> Measurements:
    """Measurements of the pairs from the findings of all images; ``ask``: who solves for offsets on the way.

    Raises
    ------
    ValueError
        If an image was not measured.
    """
    pooled = [f for f in measured.found if isinstance(f, ImageMeasurement)]
    reduced = [f for f in measured.found if isinstance(f, MeshReduction)]
    if len(pooled) + len(reduced) < len(measured.infos):
        raise ValueError("not all images were measured")
    if measured.settings.compare == Compare.MESH:
        return assemble_mesh(measured.infos, measured.graph, reduced, jobs=measured.settings.jobs, ask=ask)
    return assemble_pooled(measured.infos, measured.graph, pooled)


def known(old: Measured, new: Measured, *, with_local: bool) -> Measured:
    """The images of a new plan, with the earlier findings that still hold.

    Findings of files that could not be read are not taken over: they are tried again.
    """
    find = _Lookup(old, new.infos, new.graph, new.settings)
    found = tuple(
        None if f is None or f.problems or (with_local and f.local is None) else f
        for f in (find(i) for i in range(len(new.infos)))
    )
    return replace(new, found=found)


def merged(parts: Sequence[tuple[str, Measured]]) -> Measured:
    """The parts of one measurement together.

    Parameters
    ----------
    parts : sequence of (str, Measured)
        Name of each part for messages, and what it holds.

    Raises
    ------
    InputError
        If a part was made from another plan, or with other settings.
    """
    first, whole = parts[0]
    images = [image_key(info, whole.settings) for info in whole.infos]
    found = list(whole.found)
    for name, part in parts[1:]:
        if [image_key(info, part.settings) for info in part.infos] != images or not _same_pairs(part, whole):
            raise InputError.at(name, f"is not of the same plan as {first}, or was measured in another way")
        if part.settings.determining() != whole.settings.determining():
            raise InputError.at(name, f"has other settings than {first}")
        found = [mine or other for mine, other in zip(found, part.found, strict=True)]
    return replace(whole, found=tuple(found))


def _same_pairs(one: Measured, other: Measured) -> bool:
    same: bool = np.array_equal(one.graph.a, other.graph.a) and np.array_equal(one.graph.b, other.graph.b)
    return same and one.graph.planes == other.graph.planes


def _wanted(start: Measured, images: Sequence[int]) -> Mapping[int, IntArray]:
    """The images that need work, and which of their pairs."""
    mine = start.graph.pairs_by_image()
    wanted = {}
    for i in images:
        finding = start.found[i]
        pairs = mine[i]
        if isinstance(finding, ImageMeasurement):
            pairs = np.setdiff1d(pairs, finding.pairs)
        if finding is None or (isinstance(finding, ImageMeasurement) and len(pairs)):
            wanted[i] = pairs
    return wanted


def _tasks(start: Measured, wanted: Mapping[int, IntArray], *, with_local: bool) -> Tasks[Any]:
    """The work on the images that are wanted: of one kind, pooled or mesh."""
    if start.settings.compare == Compare.MESH:
        return mesh_tasks(start.infos, start.graph, start.settings, with_local=with_local, wanted=tuple(wanted))
    # Where findings are there already, the image's own sky is among them.
    fresh = {i for i in wanted if start.found[i] is None} if with_local else set()
    return pooled_tasks(start.infos, start.graph, start.settings, local_of=fresh, wanted=wanted)


def _joined(old: Finding | None, new: Finding) -> Finding:
    """An image's finding with further overlaps, in the order of the graph."""
    if not (isinstance(old, ImageMeasurement) and isinstance(new, ImageMeasurement)):
        return new
    pairs = np.concatenate([old.pairs, new.pairs])
    order = np.argsort(pairs, kind="stable")
    regions = (*old.regions, *new.regions)
    return replace(
        old,
        pairs=pairs[order],
        regions=tuple(regions[k] for k in order),
        blocks=np.concatenate([old.blocks, new.blocks])[order],
        problems=new.problems,
    )


def image_key(info: ImageInfo, settings: Settings) -> bytes:
    """What the finding of an image rests on, beside its overlaps: 16 bytes that are the same where that is.

    All that its header says comes with the state of the file.
    """
    mesh = settings.compare == Compare.MESH
    source = info.source
    facts = (
        *(() if source is None else map(_plane_key, (source.science, source.dq, source.mask))),
        None if source is None else source.bad_flags,
        info.shape,
        settings.statistic,
        settings.ignore_value,
        settings.compare,
        (settings.mesh_size, settings.model, info.to_comparison) if mesh else None,
    )
    return hashlib.blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _plane_key(plane: StoredPlane | None) -> tuple[str, int, int, int] | None:
    """Where a plane is, and the file's state; not its offset, which moves when a header grows."""
    return None if plane is None else (real_path(plane.path), plane.hdu, plane.size, plane.mtime_ns)


def renewed(measured: Measured, files: Collection[str]) -> Measured:
    """The same findings after these files were written by this program, which keeps the original pixels.

    Parameters
    ----------
    measured : Measured
    files : collection of str
        Real paths of the files that were replaced.
    """

    def plane(old: StoredPlane | None) -> StoredPlane | None:
        if old is None or real_path(old.path) not in files:
            return old
        size, mtime_ns = size_and_time(old.path)
        return replace(old, size=size, mtime_ns=mtime_ns)

    def info(old: ImageInfo) -> ImageInfo:
        if old.source is None:
            return old
        science = plane(old.source.science) or old.source.science
        source = replace(old.source, science=science, dq=plane(old.source.dq), mask=plane(old.source.mask))
        return replace(old, source=source)

    return replace(measured, infos=tuple(info(i) for i in measured.infos))


class _Lookup:
    """Finds in earlier findings what holds for the images of a new plan."""

    def __init__(self, old: Measured, infos: Sequence[ImageInfo], graph: OverlapGraph, settings: Settings) -> None:
        self._old, self._graph = old, graph
        self._settings = settings
        old_keys = [image_key(info, old.settings) for info in old.infos]
        self._keys = [image_key(info, settings) for info in infos]
        self._mine = graph.pairs_by_image()
        self._at = {key: i for i, key in enumerate(old_keys)}
        self._pair_keys = _PairKeys(graph, self._keys)
        self._old_pair_keys = _PairKeys(old.graph, old_keys)
        self._old_mine = old.graph.pairs_by_image()
        self._grids: dict[TangentPlane, tuple[int, MeshGrid]] = {}
        self._old_grids: tuple[MeshGrid, ...] = ()
        if settings.compare == Compare.MESH:
            grids = mesh_grids(infos, graph, settings.mesh_size)
            self._grids = {grid.plane: (k, grid) for k, grid in enumerate(grids)}
            self._old_grids = mesh_grids(old.infos, old.graph, old.settings.mesh_size)

    def __call__(self, i: int) -> Finding | None:
        """What is known of an image."""
        at = self._at.get(self._keys[i])
        finding = None if at is None else self._old.found[at]
        if at is None or finding is None:
            return None
        here = {self._pair_keys(i, pair): int(pair) for pair in self._mine[i]}
        if isinstance(finding, ImageMeasurement):
            return self._pooled(finding, at, here)
        there = {self._old_pair_keys(at, pair) for pair in self._old_mine[at]}
        return self._reduced(finding) if here.keys() == there else None

    def _reduced(self, finding: MeshReduction) -> MeshReduction | None:
        """The same cells, if the grid is still the same."""
        meshes = {}
        for old, mesh in finding.meshes.items():
            k, grid = self._grids[self._old_grids[old].plane]
            if grid != self._old_grids[old]:
                return None
            meshes[k] = mesh
        return replace(finding, meshes=meshes)

    def _pooled(self, finding: ImageMeasurement, at: int, here: Mapping[_PairKey, int]) -> ImageMeasurement | None:
        side = blocks_per_side(len(self._graph.a))
        if finding.blocks.shape[1] < side * side:
            return None  # shared pixels were counted on a coarser grid
        kept = [(here.get(self._old_pair_keys(at, pair), -1), k) for k, pair in enumerate(finding.pairs)]
        rows = sorted((pair, k) for pair, k in kept if pair >= 0)
        chosen = np.array([k for _, k in rows], np.int64)
        return replace(
            finding,
            pairs=np.array([pair for pair, _ in rows], np.int64),
            regions=tuple(finding.regions[k] for k in chosen),
            blocks=coarser(finding.blocks[chosen], side),
        )


class _PairKeys:
    """What stands for a pair as one of its images sees it: the other image, and the plane."""

    def __init__(self, graph: OverlapGraph, keys: Sequence[bytes]) -> None:
        self._a, self._b, self._plane = graph.a.tolist(), graph.b.tolist(), graph.plane.tolist()
        self._planes, self._keys = graph.planes, keys

    def __call__(self, i: int, pair: int) -> _PairKey:
        other = self._b[pair] if self._a[pair] == i else self._a[pair]
        plane = self._planes[self._plane[pair]]
        return self._keys[other], plane.ra_deg, plane.dec_deg
