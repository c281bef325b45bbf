"""``skymatch plan``: what the headers alone say."""

from __future__ import annotations

import sys
from typing import Any

import click

from . import options


@click.command(
    "plan",
    cls=options.SectionCommand,
    epilog="""\b
Examples:
  skymatch plan *.fits
  skymatch plan --table overlaps @exposures.txt
  skymatch plan -o plan.json '*_cal.fits'
  skymatch plan -o plan.fits *.fits && skymatch measure plan.fits -o measured.fits
  skymatch plan -o tonight.fits --update yesterday.fits *.fits
""",
)
@options.IMAGES
@options.add(
    *options.PIXEL_SOURCES,
    options.GROUP_BY,
    *options.UNITS,
    options.SKY_KEYWORD,
    *options.RESULT,
    options.SKIP_BAD,
    options.UPDATE_PLAN,
    options.JOBS,
    options.CONFIG,
    *options.CONSOLE,
)
@click.pass_context
def command(ctx: click.Context, /, images: tuple[str, ...], earlier: str | None, **_: Any) -> None:
    """Show footprints, overlaps and components from headers alone.

    No pixel is read and nothing is written but the result. Says which images overlap, which sets of images are
    connected, and how many pixels a match will have to look at. A plan that is written as .fits is what
    'skymatch measure' reads.
    """
    # Where images lie doesn't depend on the method, but a configuration file may name one that needs no WCS.
    settings, output = options.read(ctx, ignored=frozenset({"method", "skylist"}))
    from . import console

    with console.session(ctx):
        console.check_output(output, overwrite=settings.overwrite)
        from skymatch_cli import pipeline
        from skymatch_cli.output.plain import summary
        from skymatch_cli.record.reads import files_of_images
        from skymatch_cli.store.store import plan_document, read_plan_headers

        from .progress import Watch

        headers = None if earlier is None else read_plan_headers(earlier)
        watch = Watch(ctx)
        with watch.shown():
            plan = pipeline.plan(images, settings, stdin=sys.stdin, headers=headers, progress=watch)
        inputs = (*files_of_images(plan.infos), *([earlier] if earlier else []))
        output.check(overwrite=settings.overwrite, inputs=inputs)
        report = plan_document(plan)
        console.tell((*plan.skipped, summary(report)))
        console.warn(plan.warnings)
        console.show(report, output)
        pixels = int(report.components.column("n_overlap_pixels").sum())
        console.say(f"about {pixels:,} pixels to measure in the overlaps")
