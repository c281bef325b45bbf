"""Plan -> measurements: read the pixels of each image once, or recall them from a store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.choices import Compare, Method, Model
from skymatch_cli.errors import InputError, Problem
from skymatch_cli.model import IntArray, Measurements, SkyWarning, set_numbers
from skymatch_cli.model.measurements import DegreeChooser, PlaneSolver, joined
from skymatch_cli.model.warning import skipped
from skymatch_cli.run.tasks import (
    NO_PROGRESS,
    LocalRunner,
    LostWorkError,
    Progress,
    Runner,
    Tasks,
    n_processes,
    run_apart,
)
from skymatch_cli.run.threads import one_thread
from skymatch_cli.store.held import HeldFindings
from skymatch_cli.store.planning import Plan, check_model

if TYPE_CHECKING:
    from skymatch_cli.store.findings import Findings, StoredFindings
    from skymatch_cli.store.rows import Finding
    from skymatch_cli.store.store import Store

NEEDS_LOCAL = frozenset({Method.LOCALMIN, Method.GLOBALMIN, Method.GLOBALMIN_MATCH})
"""Methods that need the skies of single images."""


@one_thread()
def find(
    planned: Plan,
    *,
    with_local: bool = True,
    progress: Progress = NO_PROGRESS,
    runner: Runner | None = None,
    store: Store | None = None,
) -> Findings:
    """Read the pixels of the images, each once, and keep the finding of each.

    ``with_local``: measure the images' own skies too, for methods that need them. ``runner`` does the work, on this
    machine by default. ``store`` holds the plan: its findings are used, and new ones are added. InputError if pixels
    can't be read and ``settings.skip_bad`` is not set.
    """
    found: Findings = HeldFindings([None] * len(planned.infos))
    if store is not None:
        from skymatch_cli.store.findings import StoredFindings

        found = StoredFindings(planned, store, store, with_local=with_local, lenient=True)
    measure(planned, found, with_local=with_local, progress=progress, runner=runner)
    return found


def measure(
    planned: Plan,
    found: Findings,
    *,
    with_local: bool = True,
    only: Sequence[int] | None = None,
    progress: Progress = NO_PROGRESS,
    runner: Runner | None = None,
) -> tuple[SkyWarning, ...]:
    """Measure all images, or ``only`` some, and add the findings; returns warnings.

    Of an image that was measured before, only the overlaps that its finding lacks. InputError if pixels can't be read
    and ``settings.skip_bad`` is not set; findings of other images are kept.
    """
    settings, graph = planned.settings, planned.graph
    check_model(settings, graph)
    n_pairs = np.bincount(np.concatenate([graph.a, graph.b]), minlength=graph.n_images).tolist()
    images = range(len(n_pairs)) if only is None else only
    wanted = [i for i in images if (known := found.known_pairs(i)) is None or len(known) < n_pairs[i]]
    problems: list[Problem] = []
    warnings: list[SkyWarning] = []
    try:
        progress.stage("pixels", len(wanted))
        tasks = _tasks(planned, found, wanted, with_local=with_local)
        for i, finding in zip(wanted, (runner or LocalRunner(settings.jobs))(tasks, progress=progress), strict=True):
            old: Any = None if found.known_pairs(i) is None else found[i]
            found.put(i, finding if old is None else old.joined(finding))  # pooled: cells are known for all, or none
            problems += finding.problems
            warnings += finding.warnings
    finally:
        found.flush()
    if problems and not settings.skip_bad:
        raise InputError(problems)
    return (*skipped(tuple(problems)), *warnings)


def _tasks(planned: Plan, found: Findings, wanted: Sequence[int], *, with_local: bool) -> Tasks[Any]:
    """The work on the images that are wanted: of one kind, pooled or mesh."""
    infos, graph, settings = planned.infos, planned.graph, planned.settings
    if settings.compare == Compare.MESH:
        from skymatch_cli.compare.meshed import mesh_tasks

        return mesh_tasks(infos, graph, settings, with_local=with_local, wanted=wanted)
    from skymatch_cli.compare.pooled import pooled_tasks

    known = found.known_pairs
    return pooled_tasks(infos, graph, settings, with_local=with_local, wanted=wanted, known_pairs=known)


def recall(planned: Plan, store: Store) -> StoredFindings:
    """Recall the findings of a stored plan, for the method of its settings.

    InputError if images are not measured yet, or not their own skies, which the method needs.
    """
    from skymatch_cli.store.findings import StoredFindings

    with_local = planned.settings.method in NEEDS_LOCAL
    found = StoredFindings(planned, store, with_local=with_local)
    if missing := len(found) - found.n_measured:
        what = f"{missing} of {len(found)} images are not measured yet" + (", or not their own skies" * with_local)
        raise InputError.at(store.file, what, f"run skymatch measure {store.file}, or merge the other parts into it")
    return found


@one_thread()
def gather(planned: Plan, found: Findings) -> tuple[Measurements, tuple[SkyWarning, ...]]:
    """Combine the findings of all images to measurements of the pairs, and warnings; a store keeps them."""
    if (kept := found.gathered()) is not None:
        return kept.measurements, kept.warnings
    measurements, without_cells = assemble(planned, found)
    warnings = _said(without_cells)
    found.keep(measurements, warnings)
    return measurements, warnings


def assemble(planned: Plan, found: Findings) -> tuple[Measurements, Sequence[Finding]]:
    """Measurements of the pairs from the findings of all images, and these without cells.

    Those in a store are read when they are needed, so that memory holds one set of images (a plane of cubes) at a time.
    ValueError if an image was not measured.
    """

    def known(i: int) -> Any:
        if (finding := found.outlined(i)) is None:
            raise ValueError("not all images were measured")
        return finding

    if planned.settings.compare == Compare.MESH:
        from skymatch_cli.compare.meshed import assemble_mesh

        jobs = 1 if found.one_reader else planned.settings.jobs
        return assemble_mesh(planned.infos, planned.graph, known, planned.settings, _solvers(planned), jobs=jobs)
    pooled = list(map(known, range(len(planned.infos))))
    from skymatch_cli.compare.pooledpairs import assemble_pooled

    return assemble_pooled(planned.infos, planned.graph, pooled), pooled


def _solvers(planned: Plan) -> tuple[PlaneSolver, DegreeChooser] | None:
    """Import what compares cells, and solvers for it, before processes are forked: each of them need not."""
    import skymatch_cli.compare.mesh.joint

    if planned.settings.model == Model.CONSTANT:
        return None
    import skymatch_cli.compare.mesh.tilts  # noqa: F401
    from skymatch_cli.solve.tilts import chosen_degree
    from skymatch_cli.solve.tiltsteps import PlaneSteps

    return PlaneSteps, chosen_degree


def _said(found: Iterable[Finding]) -> tuple[SkyWarning, ...]:
    found = list(found)
    return (*skipped(tuple(p for f in found for p in f.problems)), *(w for f in found for w in f.warnings))


def measured(
    planned: Plan, *, with_local: bool, progress: Progress, runner: Runner | None, store: Store | None
) -> tuple[Measurements, tuple[SkyWarning, ...]]:
    """`find` and `gather`, for cubes without a store plane by plane."""
    by_plane = None
    if store is None:
        by_plane = find_plane_by_plane(planned, with_local=with_local, progress=progress, runner=runner)
    if by_plane is not None:
        return by_plane
    return gather(planned, find(planned, with_local=with_local, progress=progress, runner=runner, store=store))


def compared_otherwise(
    planned: Plan, measurements: Measurements, *, progress: Progress, runner: Runner | None, store: Store | None
) -> tuple[SkyWarning, ...]:
    """Compare the overlaps the other way too; returns warnings of images on which the two disagree."""
    from skymatch_cli.solve.crosscheck import cross_check

    by_mesh = planned.settings.compare == Compare.MESH
    other = replace(planned.settings, compare=Compare.POOLED if by_mesh else Compare.MESH, mesh_size=None)
    again = replace(planned, settings=other)
    found, _ = measured(again, with_local=False, progress=progress, runner=runner, store=store)
    mesh, pooled = (measurements, found) if by_mesh else (found, measurements)
    return cross_check(planned.infos, mesh, pooled, robust=planned.settings.robust)


_AT_A_TIME = 2**25  # pixels of planes that are compared before others are read


@one_thread()
def find_plane_by_plane(
    planned: Plan, *, with_local: bool, progress: Progress, runner: Runner | None
) -> tuple[Measurements, tuple[SkyWarning, ...]] | None:
    """Measure the planes of cubes some at a time, so that few are in memory; the same as `find` and `gather`.

    On this machine each process measures planes of its own, and compares them. None where the sets of images differ by
    more than the plane, and where all planes are measured at a time.
    """
    sets, settings, runner = set_numbers(planned.infos), planned.settings, runner or LocalRunner(planned.settings.jobs)
    images = np.split(np.argsort(sets, kind="stable"), np.cumsum(np.bincount(sets))[:-1])
    refs = [[planned.infos[i].ref for i in own.tolist()] for own in images]
    places = {tuple((ref.path, ref.hdu, ref.section) for ref in own) for own in refs}
    if settings.compare != Compare.MESH or len(images) < 2 or len(places) > 1:
        return None
    n_pixels = sum(math.prod(planned.infos[i].shape) for i in images[0].tolist()) * len(images)
    jobs = n_processes(runner.jobs, len(images), n_pixels) if isinstance(runner, LocalRunner) else 1
    _solvers(planned)
    for workers in sorted({jobs, 1}, reverse=True):  # in this process after one was killed: the image is found
        numbers = np.array_split(np.arange(len(images)), min(workers * -(-n_pixels // _AT_A_TIME), len(images)))
        together = [np.sort(np.concatenate([images[k] for k in some])) for some in numbers]
        if len(together) < 2:
            return None
        progress.stage("pixels", len(sets))
        try:
            answers = _measured_apart(
                planned, together, workers, with_local=with_local, progress=progress, runner=runner
            )
            break
        except LostWorkError:
            if workers == 1:
                raise
    findings = dict(zip(np.concatenate(together).tolist(), chain(*(found for *_, found in answers)), strict=True))
    of_images = [findings[i] for i in range(len(sets))]
    if not settings.skip_bad and (problems := [p for f in of_images for p in f.problems]):
        raise InputError(problems)
    measurements, pairs, _ = zip(*answers, strict=True)
    return joined(measurements, planned.graph, together, pairs), _said(of_images)


def _measured_apart(
    planned: Plan, parts: Sequence[IntArray], workers: int, *, with_local: bool, progress: Progress, runner: Runner
) -> list[tuple[Measurements, IntArray, Sequence[Finding]]]:
    """Of parts of the images: measurements of the overlaps, the numbers of these, and the findings of the images.

    Each of several workers is a process that reads its images one by one; else ``runner`` reads them.
    """
    within, going = (runner, _Going(progress)) if workers == 1 else (LocalRunner(1), NO_PROGRESS)
    jobs = planned.settings.jobs if workers == 1 else 1

    def compared(images: IntArray) -> tuple[Measurements, IntArray, Sequence[Finding]]:
        pairs = np.flatnonzero(np.isin(planned.graph.a, images))
        part = _part(planned, images, pairs)
        part = replace(part, settings=replace(part.settings, jobs=jobs, skip_bad=True))
        measurements, found = assemble(part, find(part, with_local=with_local, progress=going, runner=within))
        return measurements, pairs, found

    answers = []
    n_pixels = sum(math.prod(info.shape) for info in planned.infos)
    with closing(run_apart(compared, parts, jobs=workers, n_pixels=n_pixels)) as found:
        for images, answer in zip(parts, found, strict=True):
            answers.append(answer)
            progress.advance(len(images) * (workers > 1))
    return answers


def _part(planned: Plan, images: IntArray, pairs: IntArray) -> Plan:
    """The plan of some images (their numbers, ascending) and the overlaps among them."""
    graph = planned.graph.part(pairs)
    a, b = np.searchsorted(images, graph.a), np.searchsorted(images, graph.b)
    infos = tuple(planned.infos[i] for i in images.tolist())
    return replace(planned, infos=infos, graph=replace(graph, n_images=len(infos), a=a, b=b))


class _Going(Progress):
    """Progress of a part of a stage that has begun."""

    def __init__(self, whole: Progress) -> None:
        self._whole = whole

    def advance(self, steps: int = 1) -> None:
        """Advance the whole."""
        self._whole.advance(steps)
