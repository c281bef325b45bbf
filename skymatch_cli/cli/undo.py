"""``skymatch undo``: take back what was recorded or subtracted."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from skymatch_cli.choices import Method, Planes
from skymatch_cli.settings import OF_THE_SKY

from . import given, options, sections


@sections.command("undo", "skymatch undo *.fits", "skymatch undo --output-dir originals matched/*.fits")
@options.IMAGES
@options.add("output_dir", "sky_keyword", "overwrite", "skip_bad", "jobs", options.CONFIG, *options.CONSOLE)
@click.option(
    "--from-keyword",
    is_flag=True,
    cls=sections.SectionOption,
    section="What happens to the images",
    help="Where another program removed the undo cards: add the sky of the header (BKGLEVEL) back to the pixels.",
)
@sections.logged
def command(ctx: click.Context, /, images: tuple[str, ...], from_keyword: bool, **_: Any) -> None:
    """Restore headers and pixels as they were before the first run.

    Images in which nothing was recorded are left alone.
    """
    settings, _output = given.read(ctx, ignored=OF_THE_SKY)
    # A sky may be recorded in images without a WCS too: the method `user` needs none.
    settings = replace(settings, method=Method.USER, skylist="-", planes=Planes.EACH)
    from skymatch_cli.errors import InputError
    from skymatch_cli.images.inputs import resolve_images
    from skymatch_cli.model.warning import skipped
    from skymatch_cli.record import write as record

    from . import console

    inputs = resolve_images(images, settings=settings, stdin=sys.stdin, to_change=settings.output_dir is None)
    if inputs.problems and not (settings.skip_bad and inputs.refs):
        raise InputError(inputs.problems)
    console.warn(skipped(inputs.problems))
    console.tell(*inputs.skipped)
    done = record.undo(inputs.refs, settings, from_keyword=from_keyword, named=given.named_files(ctx))
    console.tell_written(done, settings, unchanged="nothing to undo in {}")
