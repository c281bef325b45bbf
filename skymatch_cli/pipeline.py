"""plan -> measure -> solve -> apply: the only place that knows the order.

What solves and what writes is imported where it is used: `plan` needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from skymatch_cli.choices import Compare, Method, Model, WarningName
from skymatch_cli.compare.pooled import unmeasured
from skymatch_cli.errors import InputError, NoOverlapError, StrictError
from skymatch_cli.images.lookup import find_reference, read_skylist
from skymatch_cli.model import FloatArray, ImageInfo, Measurements, SkyWarning
from skymatch_cli.model.warning import counted
from skymatch_cli.run.tasks import NoProgress, Progress, Runner
from skymatch_cli.run.threads import one_thread
from skymatch_cli.settings import Settings
from skymatch_cli.store.measuring import NEEDS_LOCAL, find, gather, measure, recall
from skymatch_cli.store.plan import Plan
from skymatch_cli.store.planning import ImageName, plan
from skymatch_cli.store.store import Store, measuring_part

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result
    from skymatch_cli.record.write import WriteReport

__all__ = [
    "apply",
    "apply_skies",
    "check_strict",
    "evaluate",
    "find",
    "gather",
    "match",
    "measure",
    "plan",
    "recall",
    "solve",
]


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
    planned = plan(images, settings, progress=watch, stdin=stdin, to_change=in_place, store=store)
    if store is not None:
        store.save_plan(replace(planned, settings=measuring_part(settings)))
    if not settings.dry_run:
        from skymatch_cli.record.updates import sky_updates
        from skymatch_cli.record.write import check_writable

        if problems := check_writable(sky_updates(planned.infos, settings), settings):
            raise InputError(problems)
    if (resumed := _resumed(planned)) is not None:
        return resumed
    if settings.method == Method.USER:
        return solve(planned, unmeasured(planned.graph, len(planned.infos)))
    with_local = settings.method in NEEDS_LOCAL
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
    from skymatch_cli.record.updates import sky_updates
    from skymatch_cli.store.journal import is_as_left, journal_of, left_behind, needs_journal

    if not needs_journal(planned.infos, planned.settings) or (left := left_behind(planned)) is None:
        return None
    before, measured = left
    result = solve(before, *gather(measured))
    solution = result.solution
    updates = sky_updates(before.infos, before.settings, solution.sky, solution.sky_err, solution.tilt)
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
def solve(planned: Plan, measurements: Measurements, warnings: tuple[SkyWarning, ...] = ()) -> Result:
    """Measurements to the sky of every image, by the method of the settings."""
    from skymatch_cli.output.result import Result
    from skymatch_cli.solve import methods

    settings = planned.settings
    if settings.method not in NEEDS_LOCAL:
        measurements = replace(measurements, local=None)  # measured for other methods: this one must not see it
    refs = [info.ref for info in planned.infos]
    reference = None
    if settings.reference is not None:
        reference = find_reference(settings.reference, refs, [info.group for info in planned.infos])
    skylist = None if settings.skylist is None else read_skylist(settings.skylist, refs)
    try:
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
    except NoOverlapError as error:
        frames = [str(warning) for warning in planned.warnings if warning.name == WarningName.WCS]
        raise NoOverlapError(error.message, "; ".join((error.hint, *frames[:1]))) from None
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
    from skymatch_cli.record.updates import sky_updates
    from skymatch_cli.record.write import write_skies

    solution, settings = result.solution, result.settings
    updates = sky_updates(result.infos, settings, solution.sky, solution.sky_err, solution.tilt)
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
    from skymatch_cli.record.updates import sky_updates
    from skymatch_cli.record.write import write_skies

    return write_skies(sky_updates(infos, settings, sky, sky_err, tilt), settings, progress=progress)
