"""``skymatch demo``: a mosaic to try things on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from . import options


@click.command(
    "demo",
    cls=options.SectionCommand,
    epilog="""\b
Example:
  skymatch demo mosaic && skymatch match mosaic/frame_*.fits
""",
)
@click.argument("directory", type=str, metavar="DIR")
@options.add(options.OVERWRITE_DEMO, *options.CONSOLE)
@click.pass_context
def command(ctx: click.Context, /, directory: str, overwrite: bool, **_: Any) -> None:
    """Write a small synthetic mosaic with known skies.

    The frames go to DIR, which is made if need be. Each frame has a sky of its own; the true values are in truth.txt.
    """
    from . import console

    with console.session(ctx):
        from skymatch_cli.demo import TRUTH_FILE, write_demo

        folder = Path(directory)
        paths = write_demo(folder, overwrite=overwrite)
        click.echo(f"{len(paths)} images and {TRUTH_FILE} are in {folder}. Now try:")
        click.echo(f"  skymatch match {' '.join(shlex.quote(str(path)) for path in paths)}")
