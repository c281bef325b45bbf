"""What was found in the pixels, image by image: measured once, kept, and used again.

A finding belongs to an image as it is on the disk (path, size, time, HDU, DQ and mask), to the settings that say
how pixels are measured, and to the overlaps of the image: for each of these, the other image and the tangent
plane. Where all that is the same, measuring again would give the same digits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from skymatch_cli.choices import Compare
from skymatch_cli.compare.meshed import MeshReduction, assemble_mesh, mesh_tasks
from skymatch_cli.compare.pooled import ImageMeasurement, assemble_pooled, pooled_tasks
from skymatch_cli.errors import InputError, Problem
from skymatch_cli.images.formats.files import real_path, real_paths, size_and_time
from skymatch_cli.model import ImageInfo, IntArray, Measurements, OverlapGraph, SkyStatistics, StoredPlane
from skymatch_cli.run.tasks import NoProgress, Progress, Runner, Tasks
from skymatch_cli.settings import Settings
from skymatch_cli.store.ondemand import OnDemand
from skymatch_cli.version import __version__

Finding = ImageMeasurement | MeshReduction
SAVE_EVERY_S = 60.0
_AT_A_TIME = 1024  # images that are looked at together


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan, and what was found so far in its images.

    Attributes
    ----------
    infos : sequence of ImageInfo
    graph : OverlapGraph
    settings : Settings
    found : sequence of (Finding or None)
        One for each image, None where there is none yet; empty before anything was measured.
    """

    infos: Sequence[ImageInfo]
    graph: OverlapGraph
    settings: Settings
    found: Sequence[Finding | None]

    @property
    def missing(self) -> IntArray:
        """Images that were not measured."""
        return np.array([i for i, f in enumerate(self.found) if f is None], np.int64)


class Findings(Protocol):
    """Where findings are kept while images are measured."""

    def __getitem__(self, image: int, /) -> Finding | None:
        """What was found in an image, so far."""
        ...

    def put(self, image: int, finding: Finding) -> None:
        """Take a finding; it replaces an earlier one of the image."""
        ...

    def flush(self) -> None:
        """Leave what was found for the next run, whatever happens to this one."""
        ...

    def all(self) -> Sequence[Finding | None]:
        """The findings of all images."""
        ...


Keeper = Callable[[Measured, Iterable[tuple[int, Finding]]], Findings]
"""Makes what keeps the findings of that which is to be measured, with those that are known already."""


class HeldFindings:
    """Findings in memory.

    Parameters
    ----------
    start : Measured
        What is measured.
    known : iterable of (int, Finding)
        What is known already of some images.
    save : callable, optional
        Called with what is known so far once a minute, and at the end, also where the work is interrupted.
    """

    def __init__(
        self,
        start: Measured,
        known: Iterable[tuple[int, Finding]],
        *,
        save: Callable[[Measured], object] | None = None,
    ) -> None:
        self._start, self._save = start, save
        self._found: list[Finding | None] = [None] * len(start.infos)
        for image, finding in known:
            self._found[image] = finding
        self._saved = time.monotonic()

    def __getitem__(self, image: int, /) -> Finding | None:
        return self._found[image]

    def put(self, image: int, finding: Finding) -> None:
        """Take a finding; it replaces an earlier one of the image."""
        self._found[image] = finding
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Save what was found."""
        if self._save is not None:
            self._save(replace(self._start, found=self.all()))
        self._saved = time.monotonic()

    def all(self) -> Sequence[Finding | None]:
        """The findings of all images."""
        return tuple(self._found)


def measure_images(
    start: Measured,
    runner: Runner,
    *,
    with_local: bool,
    known: Iterable[tuple[int, Finding]] = (),
    only: Sequence[int] | None = None,
    keeper: Keeper = HeldFindings,
    progress: Progress | None = None,
) -> tuple[Measured, tuple[Problem, ...]]:
    """Measure what is not known yet.

    Parameters
    ----------
    start : Measured
        What to measure; nothing need be found in it.
    runner : Runner
    with_local : bool
        Measure the images' own skies too.
    known : iterable of (int, Finding)
        What is known already of images; a finding may lack some of the image's overlaps.
    only : sequence of int, optional
        Measure these images alone.
    keeper : callable, optional
        Makes what keeps the findings: in memory by default.
    progress : Progress, optional

    Returns
    -------
    measured : Measured
    problems : tuple of Problem
        Of the images that could not be read.
    """
    work = _Work(start.graph)
    found = keeper(start, work.noted(known))
    problems: list[Problem] = []
    try:
        wanted = work.wanted(only)
        (progress or NoProgress()).stage("pixels", len(wanted))
        tasks = _tasks(start, work, found, wanted, with_local=with_local)
        for i, finding in zip(wanted, runner(tasks, progress=progress), strict=True):
            found.put(i, finding if work.is_new(i) else _joined(found[i], finding))
            problems += finding.problems
    finally:
        found.flush()
    return replace(start, found=found.all()), tuple(problems)


class _Work:
    """What there is to do: how many pairs of every image are known, of how many."""

    def __init__(self, graph: OverlapGraph) -> None:
        self._n_pairs = np.bincount(np.concatenate([graph.a, graph.b]), minlength=graph.n_images)
        self._n_known = np.full(graph.n_images, -1)

    def noted(self, known: Iterable[tuple[int, Finding]]) -> Iterator[tuple[int, Finding]]:
        """What is known, which need not be done again."""
        for i, finding in known:
            self._n_known[i] = len(finding.pairs) if isinstance(finding, ImageMeasurement) else self._n_pairs[i]
            yield i, finding

    def wanted(self, only: Sequence[int] | None) -> Sequence[int]:
        """The images that need work, out of some or all."""
        needed = (self._n_known < self._n_pairs) | (self._n_known < 0)
        images = np.arange(len(needed)) if only is None else np.array(only, np.int64)
        wanted: list[int] = images[needed[images]].tolist()
        return wanted

    def is_new(self, image: int) -> bool:
        """Whether nothing is known of an image."""
        return bool(self._n_known[image] < 0)


def assemble(measured: Measured) -> Measurements:
    """Measurements of the pairs from the findings of all images.

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
        from skymatch_cli.solve.tiltfit import image_planes

        jobs = measured.settings.jobs
        return assemble_mesh(measured.infos, measured.graph, reduced, image_planes, jobs=jobs)
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
    for name, part in parts[1:]:
        if image_keys(part.infos, part.settings) != images or not _same_pairs(part, whole):
            raise InputError.at(name, f"is not of the same plan as {first}, or was measured in another way")
        if part.settings.determining() != whole.settings.determining():
            raise InputError.at(name, f"has other settings than {first}")
    return replace(whole, found=_Together([part.found for _, part in parts]))


class _Together(OnDemand["Finding | None"]):
    """Findings of the same images: the first that there is of each."""

    def __init__(self, parts: Sequence[Sequence[Finding | None]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts[0])

    def _made(self, i: int) -> Finding | None:
        return next((finding for part in self._parts if (finding := part[i]) is not None), None)


def _same_pairs(one: Measured, other: Measured) -> bool:
    same: bool = np.array_equal(one.graph.a, other.graph.a) and np.array_equal(one.graph.b, other.graph.b)
    return same and one.graph.planes == other.graph.planes


def _tasks(start: Measured, work: _Work, found: Findings, wanted: Sequence[int], *, with_local: bool) -> Tasks[Any]:
    """The work on the images that are wanted: of one kind, pooled or mesh."""
    infos, graph, settings = start.infos, start.graph, start.settings
    if settings.compare == Compare.MESH:
        return mesh_tasks(infos, graph, settings, with_local=with_local, wanted=wanted)

    def known_pairs(i: int) -> IntArray | None:
        known = None if work.is_new(i) else found[i]
        return known.pairs if isinstance(known, ImageMeasurement) else None

    return pooled_tasks(infos, graph, settings, with_local=with_local, wanted=wanted, known_pairs=known_pairs)


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
    keys: list[bytes] = []
    for low in range(0, len(infos), _AT_A_TIME):
        some = infos[low : low + _AT_A_TIME]
        sources = [info.source for info in some]
        planes = [None if s is None else (s.science, s.dq, s.mask) for s in sources]
        real = iter(real_paths(plane.path for three in planes if three for plane in three if plane is not None))
        for info, three in zip(some, planes, strict=True):
            facts: list[object] = [info.shape, mesh and info.to_comparison]
            facts += [None if plane is None else _plane_key(plane, next(real)) for plane in three or ()]
            facts.append(None if info.source is None else info.source.bad_flags)
            text = f"{common} {facts!r}".encode("utf-8", "surrogateescape")
            keys.append(blake2b(text, digest_size=16).digest())
    return tuple(keys)


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
