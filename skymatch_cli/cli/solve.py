"""``skymatch solve``: skies from a measurement."""

from __future__ import annotations

from typing import Any

import click

from skymatch_cli.settings import OF_HEADERS, OF_THE_MEASUREMENT

from . import given, options, sections


@sections.command(
    "solve",
    "skymatch solve field.db -o solution.fits",
    "skymatch solve field.db --method globalmin+match --table components",
    "skymatch solve field.db --reference ref.fits -o skies.ecsv",
)
@options.STORED_PLAN
@options.add(
    *options.METHOD,
    *options.RESULT,
    "strict",
    options.ALLOW,
    "max_step",
    "max_residual",
    options.CONFIG,
    *options.CONSOLE,
)
@sections.logged
def command(ctx: click.Context, /, *, stored: str, **_: Any) -> None:
    """Solve for the skies from a measurement, without pixels.

    STORE holds what 'skymatch measure' or 'skymatch match --store' measured. A solution that is written as .fits is
    what 'skymatch apply' reads; 'skymatch report' and 'skymatch export' read it too.
    """
    from dataclasses import replace

    from skymatch_cli import pipeline
    from skymatch_cli.output.plain import component_lines
    from skymatch_cli.record.files import files_of_images
    from skymatch_cli.store.measuring import gather, recall
    from skymatch_cli.store.solution import result_document
    from skymatch_cli.store.solving import solve
    from skymatch_cli.store.store import Store

    from . import console

    with Store(stored) as store:
        planned = store.plan()
        settings, output = given.read(ctx, planned.settings, OF_HEADERS | OF_THE_MEASUREMENT | {"ignore_value"})
        console.check_output(output, overwrite=settings.overwrite)
        planned = replace(planned, settings=settings, infos=tuple(planned.infos))
        output.check(overwrite=settings.overwrite, inputs=(stored, *files_of_images(planned.infos)))
        measurements, warnings = gather(planned, recall(planned, store))
    result = solve(planned, measurements, warnings)
    report = result_document(result)
    console.tell(*component_lines(result.solution))
    console.show(report, output)
    console.tell_result(result)
    written = "the solution was written all the same; look at it before it is applied"
    pipeline.check_strict(result, written if output.output else "the solution was shown, no file was written")
