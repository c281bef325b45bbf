"""What was found in the pixels, image by image: measured once, kept, and used again.

A finding belongs to an image as it is on the disk (path, size, time, HDU, DQ and mask), to the settings that say
how pixels are measured, and to the overlaps of the image: for each of these, the other image and the tangent
plane. Where all that is the same, measuring again would give the same digits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skymatch_cli.beside import Ask, here
from skymatch_cli.choices import Compare
from skymatch_cli.errors import InputError
from skymatch_cli.execution import NoProgress, Progress, Runner, Tasks
from skymatch_cli.fits.files import real_path, real_paths, size_and_time
from skymatch_cli.measure import ImageMeasurement, assemble_pooled, pooled_tasks
from skymatch_cli.measure_mesh import MeshReduction, assemble_mesh, mesh_tasks
from skymatch_cli.model import ImageInfo, IntArray, Measurements, OverlapGraph, SkyStatistics, StoredPlane
from skymatch_cli.settings import Settings
from skymatch_cli.version import __version__

Finding = ImageMeasurement | MeshReduction
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
    images = image_keys(whole.infos, whole.settings)
    found = list(whole.found)
    for name, part in parts[1:]:
        if image_keys(part.infos, part.settings) != images or not _same_pairs(part, whole):
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
        if finding is None:
            wanted[i] = mine[i]
        elif isinstance(finding, ImageMeasurement) and len(finding.pairs) < len(mine[i]):
            wanted[i] = np.setdiff1d(mine[i], finding.pairs)
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
    return replace(
        old,
        pairs=pairs[order],
        regions=SkyStatistics.joined([old.regions, new.regions]).part(order),
        blocks=np.concatenate([old.blocks, new.blocks])[order],
        problems=new.problems,
    )


def image_keys(infos: Sequence[ImageInfo], settings: Settings) -> tuple[bytes, ...]:
    """What the findings of images rest on, beside their overlaps: 16 bytes each that are the same where that is.

    All that their headers say comes with the state of the files.
    """
    from hashlib import blake2b

    mesh = settings.compare == Compare.MESH
    common = repr(
        (
            __version__,
            settings.statistic,
            settings.ignore_value,
            settings.compare,
            mesh and (settings.mesh_size, settings.model),
        )
    )
    planes = [
        (i, plane)
        for i, info in enumerate(infos)
        if info.source is not None
        for plane in (info.source.science, info.source.dq, info.source.mask)
    ]
    real = iter(real_paths(plane.path for _, plane in planes if plane is not None))
    facts: list[list[object]] = [[info.shape, mesh and info.to_comparison] for info in infos]
    for i, plane in planes:
        facts[i].append(None if plane is None else _plane_key(plane, next(real)))
    for info, own in zip(infos, facts, strict=True):
        own.append(None if info.source is None else info.source.bad_flags)
    texts = (f"{common} {own!r}".encode("utf-8", "surrogateescape") for own in facts)
    return tuple(blake2b(text, digest_size=16).digest() for text in texts)


def _plane_key(plane: StoredPlane, real: str) -> tuple[str, int, int, int]:
    """Where a plane is, and the file's state; not its offset, which moves when a header grows."""
    return real, plane.hdu, plane.size, plane.mtime_ns


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
