"""``skymatch report``: pictures of a stored result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from skymatch_cli.errors import InputError, UsageError

from . import console, given, options, sections


@sections.command(
    "report", "skymatch report solution.fits -o report.html", "skymatch report solution.json --plot figure.pdf"
)
@options.STORED
@options.add(options.PAGE, options.PLOT, options.OVERWRITE_FILES, "jobs", *options.CONSOLE)
@sections.logged
def command(
    ctx: click.Context, /, *, result: str, page: str | None, plot: str | None, overwrite: bool, jobs: int, **_: Any
) -> None:
    """Make the HTML report, or a plot, of a stored result.

    RESULT is a .fits or .json file that 'skymatch match -o' wrote. The images are read again for the pictures; where
    they are gone the report has its tables and charts alone. Run in the folder where the result was made.
    """
    from skymatch_cli.choices import WarningName
    from skymatch_cli.model import SkyWarning
    from skymatch_cli.output.stored import read_images, read_report
    from skymatch_cli.record.files import files_of_images
    from skymatch_cli.report.pictures import Pictures
    from skymatch_cli.settings import Settings

    if page is None and plot is None:
        raise UsageError("nothing to make", "give -o report.html, --plot figure.pdf, or both")
    pictures = Pictures(html=page, plot=plot, html_option="--output", typed=given.typed_command(ctx))
    pictures.check(overwrite=overwrite, inputs=(result,))
    report = read_report(result)
    infos = None
    try:
        infos = read_images(report)
    except InputError as error:
        console.warn(SkyWarning(WarningName.PICTURES, f"no pictures: {line}") for line in error.lines())
    pictures.check(overwrite=overwrite, inputs=(result, *files_of_images(infos or ())))
    pictures.write(report, infos, replace(Settings.of(report.settings), jobs=jobs))
    console.tell(*(f"wrote {file}" for file in (page, plot) if file is not None))
