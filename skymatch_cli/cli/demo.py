"""``skymatch demo``: a mosaic to try things on, matched and compared with the truth."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from . import options, sections
from .options import FOLDER


@sections.command("demo", "skymatch demo mosaic && skymatch match mosaic/frame_*.fits")
@click.argument("directory", type=FOLDER, metavar="DIR")
@options.add(options.OVERWRITE_DEMO, *options.CONSOLE)
@sections.logged
def command(_ctx: click.Context, /, directory: str, overwrite: bool, **_: Any) -> None:
    """Write a small synthetic mosaic with known skies, and match it.

    The frames go to DIR, which is made if need be, the true skies to truth.txt. The table is that of match, with the
    truth beside it. Overlaps fix only differences, so the truth is shifted to the same mean.
    """
    from skymatch_cli import pipeline
    from skymatch_cli.demo import TRUTH_FILE, with_truth, write_demo
    from skymatch_cli.images.lookup import read_skylist
    from skymatch_cli.output.destination import Output
    from skymatch_cli.settings import Settings

    from . import console

    folder = Path(directory)
    paths = write_demo(folder, overwrite=overwrite)
    result = pipeline.evaluate(paths, Settings(dry_run=True))
    truth = read_skylist(str(folder / TRUTH_FILE), [info.ref for info in result.infos])
    report, rms = with_truth(result.report, [truth[i] for i in range(len(paths))])
    console.show(report, Output())
    console.tell_result(result)
    console.say(f"the skies differ from the truth by {rms:.2f} {result.infos[0].unit} (rms)")
    console.say(f"{len(paths)} frames and {TRUTH_FILE} are in {folder}")
    typed = sys.argv[0]
    away = Path(typed).name == "skymatch" and shutil.which("skymatch") != typed  # not on the PATH
    program = shlex.quote(typed) if away else "skymatch"
    frames = shlex.quote(str(folder)) + "/frame_*.fits"
    console.say(f"now try: {program} match --dry-run {frames}")
