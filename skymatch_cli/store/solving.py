"""Measurements -> the result of a run: the sky of every image, by the method of the settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from skymatch_cli.choices import Model, WarningName
from skymatch_cli.errors import NoOverlapError
from skymatch_cli.images.lookup import find_reference, read_skylist
from skymatch_cli.model import Measurements, SkyWarning
from skymatch_cli.run.threads import one_thread
from skymatch_cli.store.measuring import NEEDS_LOCAL
from skymatch_cli.store.planning import Plan

if TYPE_CHECKING:
    from skymatch_cli.output.result import Result


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
