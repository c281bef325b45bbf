"""``skymatch match``: the whole way from names to headers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from . import given, options, sections

if TYPE_CHECKING:
    from skymatch_cli.output.destination import Output
    from skymatch_cli.output.result import Result
    from skymatch_cli.record.write import WriteReport

    from .progress import Watch


@sections.command(
    "match",
    daily=(
        *("dry_run", "subtract", "output_dir", "output", "page", "method", "compare", "model", "robust", "dqbits"),
        *("ignore_value", "strict", "verbose"),
    ),
    epilog="""
Images are named as a.fits, a.fits[SCI,2], a.fits[3], quoted globs, @list.txt, or - for names on standard input.

\b
Examples:
  skymatch match *.fits                              write the headers
  skymatch match --dry-run -o sky.json '*_cal.fits'  measure only
  skymatch match --subtract --output-dir matched @exposures.txt
  skymatch match --dry-run --report report.html *.fits
  skymatch match --method user --skylist skies.txt --subtract *.fits
  skymatch match --strict --max-residual 5 *.fits    exit 5 at any warning

Exit codes: 0 done, 1 unexpected failure, 2 usage, 3 an input can't be used, 4 no images overlap,
5 warnings with --strict, 6 stopped while writing (disk full): run again to finish.
""",
)
@options.IMAGES
@options.add(
    *options.WRITING,
    *options.SKY,
    *options.STATISTICS,
    *options.PIXELS,
    *options.UNITS,
    *options.RESULT,
    options.REPORT,
    options.PLOT,
    *options.CHECKS,
    options.STORE,
    options.SCHEDULER,
    "jobs",
    options.CONFIG,
    *options.CONSOLE,
)
@sections.logged
def command(
    ctx: click.Context,
    /,
    *,
    images: tuple[str, ...],
    page: str | None,
    plot: str | None,
    stored: str | None,
    scheduler: str | None,
    log_file: str | None,
    **_: Any,
) -> None:
    """Match overlapping images; writes headers unless --dry-run.

    Finds where the images overlap, measures the sky of each in every overlap, and solves for the levels that make
    them agree. The sky is recorded in the headers of the images; --subtract subtracts it, --dry-run does neither.
    """
    from skymatch_cli.output.destination import check_distinct

    from . import console

    settings, output = given.read(ctx)
    settings.refuse_idle_statistic()
    named, overwrite = given.named_files(ctx), settings.overwrite
    others = {"--report": page, "--plot": plot, "--store": stored, "--log-file": log_file}
    check_distinct({"--output": output.output, **others})
    console.check_output(output, overwrite=overwrite, inputs=named)
    from skymatch_cli import pipeline
    from skymatch_cli.errors import StrictError
    from skymatch_cli.record.files import files_of_images
    from skymatch_cli.report.pictures import Pictures

    from .progress import Watch

    watch = Watch(ctx)
    pictures = Pictures(html=page, plot=plot, typed=given.typed_command(ctx))
    pictures.check(overwrite=overwrite, inputs=named)
    with given.store(stored) as store:
        with given.runner(scheduler, settings.jobs) as runner, watch.shown():
            result = pipeline.evaluate(images, settings, progress=watch, stdin=sys.stdin, runner=runner, store=store)
        inputs = (*named, *files_of_images(result.infos))
        output.check(overwrite=overwrite, inputs=inputs)
        pictures.check(overwrite=overwrite, inputs=inputs)
        console.tell(*_details(result))
        with watch.shown():
            pictures.write(result.report, result.infos, settings, progress=watch)  # from the pixels as they were
        try:
            pipeline.check_strict(result)
        except StrictError:
            _show(result, output, watch)
            raise
        with watch.shown():
            written = None if settings.dry_run else pipeline.apply(result, progress=watch, named=named)
        files = () if written is None else written.files
        if store is not None:
            from skymatch_cli.store.renewing import renew

            renew(store, result.infos, files)
        _show(result, output, watch, files)
        console.warn(() if store is None else store.warnings)
        _tell_done(images, result, written)
        console.tell(*watch.lines(sum(info.shape[0] * info.shape[1] for info in result.infos)))


def _show(result: Result, output: Output, watch: Watch, files: tuple[str, ...] = ()) -> None:
    """Write the result where the user wants it, and its summary; ``files`` were written before."""
    from skymatch_cli.store.solution import result_document

    from . import console

    watch.stage("output", 0)
    console.show(result_document(result), output, files)
    watch.stop()
    console.tell_result(result)


def _tell_done(images: tuple[str, ...], result: Result, written: WriteReport | None) -> None:
    from . import console

    if written is None:
        console.say("dry run: no image was changed")
        return
    from .done import floats_made

    console.tell_written(written, result.settings, images)
    console.say(*filter(None, [floats_made(result.infos, written)]))


def _details(result: Result) -> tuple[str, ...]:
    """Lines for ``-v``: used and skipped images, and the fit of each component."""
    from skymatch_cli.output.plain import component_lines

    used = (f"{info.ref.label}: {note}" for info in result.infos for note in info.notes)
    return (*used, *result.skipped, *component_lines(result.solution))
