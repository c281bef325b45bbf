"""``skymatch demo``: a mosaic to try things on, matched and held against the truth."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .filenames import FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    The frames go to DIR, which is made if need be; the true skies to truth.txt. The table shows what match finds
    beside the truth, both with the mean of the frames taken out (overlaps say nothing about a common level).
    """
    from . import console

    with console.session(ctx):
        from skymatch_cli import pipeline
        from skymatch_cli.demo import TRUTH_FILE, write_demo
        from skymatch_cli.images.lookup import read_skylist
        from skymatch_cli.settings import Settings

        folder = Path(directory)
        paths = write_demo(folder, overwrite=overwrite)
        result = pipeline.evaluate(paths, Settings(dry_run=True))
        truth = read_skylist(str(folder / TRUTH_FILE), [info.ref for info in result.infos])
        for line in _beside_the_truth(result, [truth[i] for i in range(len(paths))]):
            click.echo(line)
        names = " ".join(shlex.quote(str(path)) for path in paths)
        console.say(f"{len(paths)} frames and {TRUTH_FILE} are in {folder}. Now try: skymatch match {names}")


def _beside_the_truth(result: Result, truth: Sequence[float]) -> list[str]:
    """What was found beside the true skies, without the common level, and the rms of the errors."""
    n = len(truth)
    found = result.solution.sky.tolist()
    middle = sum(found) / n, sum(truth) / n
    lines = [f"{'file':16s} {'sky':>9s} {'sky_err':>9s} {'truth':>9s} {'error':>9s}"]
    square = 0.0
    for info, sky, err, true in zip(result.infos, found, result.solution.sky_err.tolist(), truth, strict=True):
        error = (sky - middle[0]) - (true - middle[1])
        square += error**2
        name = Path(info.ref.path).name
        lines.append(f"{name:16s} {sky - middle[0]:9.3f} {err:9.3f} {true - middle[1]:9.3f} {error:9.3f}")
    return [*lines, f"{'rms':16s} {'':9s} {'':9s} {'':9s} {(square / n) ** 0.5:9.3f}"]
