"""plan -> measure -> solve -> apply: the only place that knows the order.

What solves and what writes is imported where it is used: `plan` needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, TextIO

import numpy as np

from skymatch_cli.choices import Compare, Method, Model
from skymatch_cli.compare.pooled import unmeasured
from skymatch_cli.errors import InputError, StrictError, UsageError
from skymatch_cli.images.image import read_infos
from skymatch_cli.images.inputs import resolve_images
from skymatch_cli.images.known import Headers, Known
from skymatch_cli.images.lookup import find_reference, read_skylist
from skymatch_cli.images.names import NamedFile
from skymatch_cli.model import FloatArray, ImageInfo, Measurements, OverlapGraph, SkyWarning
from skymatch_cli.model.warning import counted, skipped
from skymatch_cli.run.tasks import LocalRunner, NoProgress, Progress, Runner
from skymatch_cli.run.threads import one_thread
from skymatch_cli.settings import Settings
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.sky.overlap import overlap_graph
from skymatch_cli.store.findings import Findings, HeldFindings, Measured, StoredFindings, assemble, measure_images
from skymatch_cli.store.plan import Plan
from skymatch_cli.store.store import Store, measuring_part

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result
    from skymatch_cli.record.write import FileIdentity, SkyUpdate, WriteReport

ImageName = str | PathLike[str] | NamedFile
_NEEDS_OVERLAPS = frozenset({Method.MATCH, Method.GLOBALMIN_MATCH})
_NEEDS_LOCAL = frozenset({Method.LOCALMIN, Method.GLOBALMIN, Method.GLOBALMIN_MATCH})


def match(images: Sequence[ImageName], settings: Settings, *, progress: Progress | None = None) -> Result:
    """Find the overlaps, measure them, solve for the skies, and record or subtract them.

    Raises
    ------
    InputError
        If an input can't be used; nothing was written.
    NoOverlapError
        If the method needs overlaps and there are none.
    StrictError
        If there were warnings and ``settings.strict`` is set; no image was written.
    """
    result = evaluate(images, settings, progress=progress)
    check_strict(result)
    if not settings.dry_run:
        apply(result, progress=progress)
    return result


def evaluate(
    images: Sequence[ImageName],
    settings: Settings,
    *,
    progress: Progress | None = None,
    stdin: TextIO | None = None,
    runner: Runner | None = None,
    store: Store | None = None,
) -> Result:
    """Plan, measure and solve; no image is written.

    ``runner`` is that of `find`; what ``store`` knows is used, and what is found is added to it.

    Raises
    ------
    InputError
        If an input can't be used, or (unless ``settings.dry_run``) can't be written later: found before the
        pixels are read.
    """
    watch = progress or NoProgress()
    in_place = not settings.dry_run and settings.output_dir is None
    headers = None if store is None else store.headers()
    planned = plan(images, settings, progress=watch, stdin=stdin, to_change=in_place, headers=headers)
    if store is not None:
        store.save_plan(replace(planned, settings=measuring_part(settings)))
    if not settings.dry_run:
        from skymatch_cli.record.write import check_writable

        if problems := check_writable(_updates(planned.infos, settings), settings):
            raise InputError(problems)
    if (resumed := _resumed(planned)) is not None:
        return resumed
    if settings.method == Method.USER:
        return solve(planned, unmeasured(planned.graph, len(planned.infos)))
    with_local = settings.method in _NEEDS_LOCAL
    measured = find(planned, with_local=with_local, progress=watch, runner=runner, store=store)
    watch.stage("solve", 0)
    measurements, warnings = gather(measured)
    if settings.cross_check:
        warnings += _checked(planned, measurements, progress=watch, runner=runner, store=store)
        watch.stage("solve", 0)
    result = solve(planned, measurements, warnings)
    if not _may_leave_a_journal(settings):
        return result
    from skymatch_cli.store.journal import journal_of, needs_journal

    needed = needs_journal(planned.infos, settings)
    return replace(result, journal=journal_of(planned, measured)) if needed else result


def _may_leave_a_journal(settings: Settings) -> bool:
    """Whether pixels are changed where they are: asked before what writes is imported."""
    return settings.subtract and not settings.dry_run and settings.output_dir is None


def _resumed(planned: Plan) -> Result | None:
    """The result of a run that was interrupted while it wrote, if its files are as it left them."""
    if not _may_leave_a_journal(planned.settings):
        return None
    from skymatch_cli.store.journal import is_as_left, journal_of, left_behind, needs_journal

    if not needs_journal(planned.infos, planned.settings) or (left := left_behind(planned)) is None:
        return None
    before, measured = left
    result = solve(before, *gather(measured))
    solution = result.solution
    updates = _updates(before.infos, before.settings, *_skies(solution.sky, solution.sky_err, solution.tilt))
    if not is_as_left(measured, updates, planned):
        return None
    return replace(result, infos=tuple(planned.infos), journal=journal_of(planned))


def _checked(
    planned: Plan, measurements: Measurements, *, progress: Progress, runner: Runner | None, store: Store | None
) -> tuple[SkyWarning, ...]:
    """Warnings of images on which the two ways of comparing disagree."""
    from skymatch_cli.solve.crosscheck import cross_check

    by_mesh = planned.settings.compare == Compare.MESH
    other = replace(planned.settings, compare=Compare.POOLED if by_mesh else Compare.MESH, mesh_size=None)
    again = replace(planned, settings=other)
    found, _ = gather(find(again, with_local=False, progress=progress, runner=runner, store=store))
    mesh, pooled = (measurements, found) if by_mesh else (found, measurements)
    return cross_check(planned.infos, mesh, pooled, robust=planned.settings.robust)


@one_thread()
def plan(
    images: Sequence[ImageName],
    settings: Settings,
    *,
    progress: Progress | None = None,
    stdin: TextIO | None = None,
    to_change: bool = False,
    headers: Headers | None = None,
) -> Plan:
    """Read the headers, trace the footprints and intersect them; no pixel is read.

    ``to_change``: the files themselves shall be changed later, so URLs are refused. ``headers``: those of an
    earlier plan, which are used where files and settings are the same.

    Raises
    ------
    InputError
        If inputs can't be used (all are listed) and ``settings.skip_bad`` is not set.
    """
    on_sky = settings.method != Method.USER
    (progress or NoProgress()).stage("headers", 0)
    known = Known(headers, settings, need_wcs=on_sky)
    inputs = resolve_images(images, settings=settings, stdin=stdin, to_change=to_change, known=known)
    found = read_infos(inputs, settings, need_wcs=on_sky, progress=progress, known=known)
    (progress or NoProgress()).stage("geometry", 0)
    traced = [header.footprint for header in found.headers] if on_sky else []
    lost = [t for t in traced if isinstance(t, InputError)]
    problems = (*inputs.problems, *found.problems, *(p for error in lost for p in error.problems))
    if problems and (not settings.skip_bad or len(lost) == len(found.infos)):
        raise InputError(problems)
    footprints = tuple(t for t in traced if isinstance(t, Footprint))
    usable = [isinstance(t, Footprint) for t in traced] or [True] * len(found.infos)
    graph = _of_one_set(overlap_graph(footprints), [i.split for i, use in zip(found.infos, usable, strict=True) if use])
    _check_model(settings, graph)
    return Plan(
        settings=settings,
        infos=tuple(info for info, use in zip(found.infos, usable, strict=True) if use),
        footprints=footprints,
        graph=graph,
        skipped=inputs.skipped,
        warnings=(*skipped(problems), *inputs.warnings, *found.warnings),
        headers=Headers(known.rules, {inputs.real[path]: file for path, file in inputs.files.items()}, found.headers),
    )


@one_thread()
def _of_one_set(graph: OverlapGraph, split: Sequence[str]) -> OverlapGraph:
    """The overlaps of images of the same set (``--split-by``)."""
    if len(set(split)) <= 1:
        return graph
    _, number = np.unique(np.array(split, object), return_inverse=True)
    return graph.part(np.flatnonzero(number[graph.a] == number[graph.b]))


def find(
    planned: Plan,
    *,
    with_local: bool = True,
    progress: Progress | None = None,
    runner: Runner | None = None,
    store: Store | None = None,
) -> Measured:
    """Read the pixels of the images, each once, and keep what is found in each.

    Parameters
    ----------
    planned : Plan
    with_local : bool
        Measure the images' own skies too, for methods that need them.
    progress : Progress, optional
    runner : Runner, optional
        Where the work is done; on this machine by default.
    store : Store, optional
        Where the plan is stored: what was found earlier is used, and what is found is added.

    Raises
    ------
    InputError
        If pixels can't be read and ``settings.skip_bad`` is not set.
    """
    start = Measured(planned.infos, planned.graph, planned.settings, ())
    found: Findings = HeldFindings(len(planned.infos))
    if store is not None:
        found = StoredFindings(start, store, store, with_local=with_local, lenient=True)
    measure(planned, found, with_local=with_local, progress=progress, runner=runner)
    return replace(start, found=found)


def measure(
    planned: Plan,
    found: Findings,
    *,
    with_local: bool = True,
    only: Sequence[int] | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> tuple[SkyWarning, ...]:
    """Add what is found in the pixels of all images, or ``only`` some, to what is known; returns warnings.

    Raises
    ------
    InputError
        If pixels can't be read and ``settings.skip_bad`` is not set; what was found in others is kept.
    """
    settings = planned.settings
    _check_model(settings, planned.graph)
    start = Measured(planned.infos, planned.graph, settings, ())
    local = LocalRunner(settings.jobs)
    problems, warnings = measure_images(
        start, runner or local, found, with_local=with_local, only=only, progress=progress
    )
    if problems and not settings.skip_bad:
        raise InputError(problems)
    return (*skipped(problems), *warnings)


def recall(planned: Plan, store: Store) -> Measured:
    """What a store holds of a plan in it, for the method of its settings.

    Raises
    ------
    InputError
        If images are not measured yet, or not their own skies, which the method needs.
    """
    with_local = planned.settings.method in _NEEDS_LOCAL
    start = Measured(planned.infos, planned.graph, planned.settings, ())
    found = StoredFindings(start, store, with_local=with_local)
    if missing := len(found) - found.n_measured:
        what = f"{missing} of {len(found)} images are not measured yet" + (", or not their own skies" * with_local)
        raise InputError.at(store.file, what, f"run skymatch measure {store.file}, or merge the other parts into it")
    return replace(start, found=found)


@one_thread()
def gather(measured: Measured) -> tuple[Measurements, tuple[SkyWarning, ...]]:
    """The measurements of the pairs from what was found in all images, and warnings."""
    found = tuple(measured.found)
    said = tuple(w for f in found if f is not None for w in f.warnings)
    problems = tuple(p for f in found if f is not None for p in f.problems)
    return assemble(replace(measured, found=found)), (*skipped(problems), *said)


@one_thread()
def solve(planned: Plan, measurements: Measurements, warnings: tuple[SkyWarning, ...] = ()) -> Result:
    """Measurements to the sky of every image, by the method of the settings."""
    from skymatch_cli.output.result import Result
    from skymatch_cli.solve import methods

    settings = planned.settings
    if settings.method not in _NEEDS_LOCAL:
        measurements = replace(measurements, local=None)  # measured for other methods: this one must not see it
    refs = [info.ref for info in planned.infos]
    reference = None
    if settings.reference is not None:
        reference = find_reference(settings.reference, refs, [info.group for info in planned.infos])
    skylist = None if settings.skylist is None else read_skylist(settings.skylist, refs)
    solution = methods.solve_skies(
        settings.method,
        planned.infos,
        measurements,
        reference=reference,
        match_up=settings.match_up,
        skylist=skylist,
        max_residual=settings.max_residual,
        max_step=settings.max_step,
        robust=settings.robust,
        choose=settings.model == Model.AUTO,
    )
    return Result(
        settings=settings,
        infos=tuple(planned.infos),
        measurements=replace(measurements, noise=None),  # it is as large as all the rest, and no table shows it
        solution=solution,
        warnings=(*planned.warnings, *warnings, *solution.warnings),
        skipped=planned.skipped,
    )


def check_strict(result: Result, outcome: str = "no image was written") -> None:
    """StrictError, with what became of the run, if there were warnings and the settings allow none."""
    n = len(counted(result.warnings, result.settings.allow))
    if result.settings.strict and n:
        raise StrictError(f"{n} warning{'s' if n > 1 else ''} with --strict", outcome)


def apply(result: Result, *, progress: Progress | None = None, named: Iterable[str] = ()) -> WriteReport:
    """Record the skies of a result in the images, or subtract them.

    ``named`` are files that the run reads beside its images; copies never replace them.

    Raises
    ------
    InputError
        If an image can't be written; found before the first one is touched wherever possible.
    """
    from skymatch_cli.record.write import write_skies

    solution, settings = result.solution, result.settings
    updates = _updates(result.infos, settings, *_skies(solution.sky, solution.sky_err, solution.tilt))
    return write_skies(updates, settings, journal=result.journal, progress=progress, named=named)


def apply_skies(
    infos: Sequence[ImageInfo],
    settings: Settings,
    sky: FloatArray,
    sky_err: FloatArray,
    tilt: FloatArray | None = None,
    *,
    progress: Progress | None = None,
) -> WriteReport:
    """Record or subtract the skies (N,) of images, and their tilts (N, 2), as `apply` does."""
    from skymatch_cli.record.write import write_skies

    return write_skies(_updates(infos, settings, *_skies(sky, sky_err, tilt)), settings, progress=progress)


def _skies(
    sky: FloatArray, sky_err: FloatArray, tilt: FloatArray | None
) -> tuple[list[tuple[float, float]], list[tuple[float, ...]] | None]:
    """Skies (N,) with their errors (N,), and tilts (N, 2), image by image."""
    skies = list(zip(sky.tolist(), sky_err.tolist(), strict=True))
    return skies, None if tilt is None else [tuple(shape) for shape in tilt.tolist()]


def _updates(
    infos: Sequence[ImageInfo],
    settings: Settings,
    skies: Iterable[tuple[float, float]] | None = None,
    tilts: Iterable[tuple[float, ...] | None] | None = None,
) -> list[SkyUpdate]:
    """What is to be written; without skies: to ask whether it could be. Without tilts the skies are constants."""
    from skymatch_cli.record.write import SkyUpdate

    if settings.exposure_map is not None:
        what = "--exposure-map: a sky per second can't be recorded in an image of counts"
        raise UsageError(what, "add --dry-run, or divide the images by their exposure first")
    n = len(infos)
    return [
        SkyUpdate(
            ref=info.ref,
            sky=sky,
            sky_err=err,
            method=settings.method,
            identity=_identity(info),
            tilt=tilt,
            info=info,
        )
        for info, (sky, err), tilt in zip(infos, skies or [(0.0, 0.0)] * n, tilts or [None] * n, strict=True)
        if not info.ref.read_only
    ]


def _check_model(settings: Settings, graph: OverlapGraph) -> None:
    """UsageError where a tilt would need one tangent plane for a field that has several."""
    if settings.model != Model.CONSTANT and len(graph.planes) > 1:
        raise UsageError(
            f"--model {settings.model}: the field is wider than one tangent plane (20 degrees), "
            f"it needs {len(graph.planes)}",
            "match its parts one by one, or use --model constant",
        )


def _identity(info: ImageInfo) -> FileIdentity | None:
    if info.source is None:
        return None
    from skymatch_cli.record.write import FileIdentity

    return FileIdentity(info.source.science.size, info.source.science.mtime_ns)
