"""``skymatch measure``: the pixels of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options

DECIDED_BY_PLAN = frozenset(
    {"dqbits", "dq_ext", "mask", "group_by", "units", "exptime_key", "flux_scale", "sky_keyword"}
)


@click.command(
    "measure",
    cls=options.SectionCommand,
    epilog="""\b
Examples:
  skymatch measure plan.fits -o measured.fits
  skymatch measure plan.fits -o part3.fits --shard 3/8
  skymatch measure plan.fits -o tonight.fits --update yesterday.fits
  skymatch measure plan.fits -o measured.fits --scheduler tcp://head:8786
""",
)
@options.PLANNED
@options.add(
    *options.COMPARE,
    *options.STATISTICS,
    options.IGNORE_VALUE,
    options.MEASURED_OUTPUT,
    options.OVERWRITE,
    options.SKIP_BAD,
    options.SHARD,
    options.UPDATE,
    options.SCHEDULER,
    options.JOBS,
    options.CONFIG,
    *options.CONSOLE,
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    plan: str,
    target: str,
    shard: str | None,
    earlier: str | None,
    scheduler: str | None,
    **_: Any,
) -> None:
    """Measure the pixels of a plan.

    PLAN.fits is what 'skymatch plan -o PLAN.fits' wrote. Every image is read once; its own sky is measured too, so
    that 'skymatch solve' can try every method. A run that was interrupted goes on where it was, from the file
    MEASURED.fits.partial that it leaves.
    """
    from . import console

    with console.session(ctx):
        from dataclasses import replace
        from functools import partial
        from itertools import chain

        from skymatch_cli import pipeline
        from skymatch_cli.output.destination import check_target, save_target
        from skymatch_cli.record.reads import files_of_images
        from skymatch_cli.store.findinglog import FindingLog, read_log
        from skymatch_cli.store.kept import Kept
        from skymatch_cli.store.store import open_measured, open_plan, write_measured

        from .backend import backend
        from .progress import Watch

        planned = open_plan(plan)
        settings, _output = options.read(ctx, planned.settings, DECIDED_BY_PLAN)
        only = options.shard_of(shard, len(planned.infos))
        inputs = chain([plan, *([earlier] if earlier else [])], files_of_images(planned.infos))
        check_target(target, "--output", overwrite=settings.overwrite, inputs=inputs)
        planned = replace(planned, settings=settings)
        begun = None if Path(target).exists() and not Path(target).is_file() else f"{target}.partial"
        old = [] if earlier is None else [Kept.of(open_measured(earlier)[1])]
        if begun is not None and Path(begun).is_file() and (left := read_log(begun)) is not None:
            old.append(left)
        watch = Watch(ctx)
        with backend(scheduler, settings.jobs) as runner, watch.shown():
            measured = pipeline.find(
                planned, only=only, runner=runner, old=old, keeper=partial(FindingLog, begun), progress=watch
            )
        save_target(target, "--output", lambda stream: write_measured(planned, measured, stream))
        if begun is not None:
            Path(begun).unlink(missing_ok=True)
        n = 0
        for finding in measured.found:
            console.warn(() if finding is None else (*map(str, finding.problems), *finding.warnings))
            n += finding is not None
        console.say(f"{n} of {len(measured.found)} images are measured")
