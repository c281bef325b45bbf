"""``skymatch plan``: images and overlaps, from headers alone."""

from __future__ import annotations

import sys
from typing import Any

import click

from . import given, options, sections


@sections.command(
    "plan",
    "skymatch plan *.fits",
    "skymatch plan --table overlaps @exposures.txt",
    "skymatch plan -o plan.json '*_cal.fits'",
    "skymatch plan --store field.db *.fits && skymatch measure field.db",
)
@options.IMAGES
@options.add(
    *options.PIXEL_SOURCES,
    *options.UNITS,
    "sky_keyword",
    *options.RESULT,
    "skip_bad",
    options.STORE,
    "jobs",
    options.CONFIG,
    *options.CONSOLE,
)
@sections.logged
def command(ctx: click.Context, /, images: tuple[str, ...], stored: str | None, **_: Any) -> None:
    """Show footprints, overlaps and components from headers alone.

    No pixel is read. Lists which images overlap, which sets of images are connected, and how many pixels a match
    will read. With --store the plan is kept in a file for 'skymatch measure'; run again with other names, it reads
    only the headers of new and changed files.
    """
    from . import console

    # Where images lie doesn't depend on the method, but a configuration file may name one that needs no WCS.
    settings, output = given.read(ctx, ignored=frozenset({"method", "skylist"}))
    console.check_output(output, overwrite=settings.overwrite)
    from skymatch_cli.output.plain import summary
    from skymatch_cli.output.planned import plan_report
    from skymatch_cli.record.files import files_of_images
    from skymatch_cli.store.planning import plan

    from .progress import Watch

    watch = Watch(ctx)
    with given.store(stored) as store, watch.shown():
        planned = plan(images, settings, stdin=sys.stdin, store=store, progress=watch)
        inputs = (*files_of_images(planned.infos), *([stored] if stored else []))
        output.check(overwrite=settings.overwrite, inputs=inputs)
        if store is not None:
            store.save_plan(planned)
        report = plan_report(planned.settings, planned.infos, planned.footprints, planned.graph, planned.warnings)
    console.tell(*planned.skipped, summary(report))
    console.show(report, output)
    console.warn(planned.warnings)
    pixels = int(report.components.column("n_overlap_pixels").sum())
    console.say(f"about {pixels:,} pixels to measure in the overlaps")
