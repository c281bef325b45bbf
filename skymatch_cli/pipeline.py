"""plan -> measure -> solve -> apply: the only place that knows the order.

What solves and what writes is imported where it is used: `plan` needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from skymatch_cli.choices import Method
from skymatch_cli.errors import InputError, StrictError, plural
from skymatch_cli.model import ImageInfo
from skymatch_cli.model.warning import counted
from skymatch_cli.run.tasks import NO_PROGRESS, Progress, Runner
from skymatch_cli.settings import Settings
from skymatch_cli.store.measuring import NEEDS_LOCAL, compared_otherwise, measured
from skymatch_cli.store.planning import ImageName, plan
from skymatch_cli.store.solving import solve

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result
    from skymatch_cli.record.write import WriteReport
    from skymatch_cli.store.store import Store


def match(images: Sequence[ImageName], settings: Settings, *, progress: Progress = NO_PROGRESS) -> Result:
    """Find the overlaps, measure them, solve for the skies, and record or subtract them.

    InputError if an input can't be used, NoOverlapError if the method needs overlaps and there are none, StrictError if
    there were warnings and ``settings.strict`` is set: no image was written.
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
    progress: Progress = NO_PROGRESS,
    stdin: TextIO | None = None,
    runner: Runner | None = None,
    store: Store | None = None,
) -> Result:
    """Plan, measure and solve; no image is written.

    ``runner`` is that of `find`; what ``store`` knows is used, and what is found is added to it. InputError if an input
    can't be used, or (unless ``settings.dry_run``) can't be written later: found before the pixels are read.
    """
    in_place = not settings.dry_run and settings.output_dir is None
    planned = plan(images, settings, progress=progress, stdin=stdin, to_change=in_place, store=store)
    if store is not None:
        store.save_plan(replace(planned, settings=settings.for_measuring()))
    if not settings.dry_run:
        _check_writable(planned.infos, settings)
    if settings.method == Method.USER:
        from skymatch_cli.compare.pooled import unmeasured

        return solve(planned, unmeasured(planned.graph, len(planned.infos)))
    resumable = False
    if in_place and settings.subtract:
        from skymatch_cli.store.resume import journal_of, needs_journal, resumed

        resumable = needs_journal(planned.infos, settings)
        if resumable and (result := resumed(planned)) is not None:
            return result
    with_local = settings.method in NEEDS_LOCAL
    measurements, warnings = measured(planned, with_local=with_local, progress=progress, runner=runner, store=store)
    progress.stage("solve", 0)
    if settings.cross_check:
        warnings += compared_otherwise(planned, measurements, progress=progress, runner=runner, store=store)
        progress.stage("solve", 0)
    result = solve(planned, measurements, warnings)
    return replace(result, journal=journal_of(planned, (measurements, warnings))) if resumable else result


def check_strict(result: Result, outcome: str = "no image was written") -> None:
    """StrictError, with what became of the run, if there were warnings and the settings allow none."""
    n = len(counted(result.warnings, result.settings.allow))
    if result.settings.strict and n:
        raise StrictError(f"{plural(n, 'warning')} with --strict", outcome)


def apply(result: Result, *, progress: Progress = NO_PROGRESS, named: Iterable[str] = ()) -> WriteReport:
    """Record the skies of a result in the images, or subtract them.

    ``named`` are files that the run reads beside its images; copies never replace them. InputError if an image can't be
    written; found before the first one is touched wherever possible.
    """
    from skymatch_cli.record.edits import sky_updates
    from skymatch_cli.record.write import write_skies

    solution, settings = result.solution, result.settings
    updates = sky_updates(result.infos, settings, solution.sky, solution.sky_err, solution.tilt)
    return write_skies(updates, settings, journal=result.journal, progress=progress, named=named)


def _check_writable(infos: Sequence[ImageInfo], settings: Settings) -> None:
    from skymatch_cli.record.edits import sky_updates
    from skymatch_cli.record.write import check_writable

    if problems := check_writable(sky_updates(infos, settings), settings):
        raise InputError(problems)
