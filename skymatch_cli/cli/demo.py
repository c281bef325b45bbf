"""``skymatch demo``: a mosaic to try things on, matched and held against the truth."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .filenames import FOLDER

if TYPE_CHECKING:
    from skymatch_cli.model import FloatArray
    from skymatch_cli.output.result import Result


@click.command(
    "demo",
    cls=options.SectionCommand,
    epilog="""\b
Example:
  skymatch demo mosaic && skymatch match mosaic/frame_*.fits
""",
)
@click.argument("directory", type=FOLDER, metavar="DIR")
@options.add(options.OVERWRITE_DEMO, *options.CONSOLE)
@click.pass_context
def command(ctx: click.Context, /, directory: str, overwrite: bool, **_: Any) -> None:
    """Write a small synthetic mosaic with known skies, and match it.

    The frames go to DIR, which is made if need be; the true skies to truth.txt. The table is that of match, with the
    truth beside it. Overlaps fix only differences, so the truth is shifted to the lowest frame at 0 as well.
    """
    from . import console

    with console.session(ctx):
        import numpy as np

        from skymatch_cli import pipeline
        from skymatch_cli.demo import TRUTH_FILE, write_demo
        from skymatch_cli.images.lookup import read_skylist
        from skymatch_cli.settings import Settings

        folder = Path(directory)
        paths = write_demo(folder, overwrite=overwrite)
        result = pipeline.evaluate(paths, Settings(dry_run=True))
        truth = read_skylist(str(folder / TRUTH_FILE), [info.ref for info in result.infos])
        for line in _lines(result, np.array([truth[i] for i in range(len(paths))])):
            click.echo(line)
        console.tell_result(result)
        console.say(f"{len(paths)} frames and {TRUTH_FILE} are in {folder}")
        program = shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "skymatch" else "skymatch"
        frames = shlex.quote(str(folder)) + "/frame_*.fits"
        console.say(f"now try: {program} match --dry-run {frames}")


def _lines(result: Result, truth: FloatArray) -> list[str]:
    """The table of match with the true skies and the errors; the truth has the mean of the skies that were found."""
    from skymatch_cli.output.plain import number_format

    sky, err = result.solution.sky, result.solution.sky_err
    shifted = truth - truth.mean() + sky.mean()
    error = sky - shifted
    write = number_format(sky, err)
    row = "{:14s} {:>9s} {:>9s} {:>9s} {:>9s}  {:s}".format
    lines = [row("image", "sky", "sky_err", "truth", "error", "unit").rstrip()]
    for info, *numbers in zip(result.infos, sky, err, shifted, error, strict=True):
        lines.append(row(Path(info.ref.path).name, *map(write, numbers), info.unit))
    return [*lines, row("rms", "", "", "", write(float((error**2).mean() ** 0.5)), "").rstrip()]
