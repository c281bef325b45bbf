"""``skymatch apply``: the skies of a solution to the images."""

from __future__ import annotations

from typing import Any

import click

from . import given, options, sections


@sections.command(
    "apply",
    "skymatch apply solution.fits",
    "skymatch apply solution.fits --subtract --output-dir matched",
    "skymatch apply solution.fits --subtract --shard 3/8",
)
@options.SOLVED
@options.add(
    "dry_run", "subtract", "output_dir", "sky_keyword", "overwrite", options.SHARD, options.CONFIG, *options.CONSOLE
)
@sections.logged
def command(ctx: click.Context, /, *, solution: str, shard: str | None, **_: Any) -> None:
    """Record or subtract the skies of a solution.

    SOLUTION.fits is what 'skymatch solve -o' or 'skymatch match -o' wrote. A file that changed since it was measured
    is refused, unless it is this command that changed it: an interrupted run is finished by running it again. --dry-run
    checks all files and changes none.
    """
    from skymatch_cli.record.edits import sky_updates
    from skymatch_cli.record.write import write_skies
    from skymatch_cli.settings import OF_THE_SKY
    from skymatch_cli.store.solution import as_written, read_solution, settings_of

    from . import console
    from .progress import Watch

    solved = read_solution(solution)
    settings, _output = given.read(ctx, settings_of(solved), ignored=OF_THE_SKY)
    by_file: dict[str, list[int]] = {}
    for i, info in enumerate(solved.infos):
        by_file.setdefault(info.ref.path, []).append(i)
    files = list(by_file.values())
    part = solved.part([i for k in given.shard_of(shard, len(files)) for i in files[k]])
    watch = Watch(ctx)
    with watch.shown():
        infos = as_written(part.infos, part.sky, settings.sky_keyword)
        updates = sky_updates(infos, settings, part.sky, part.sky_err, part.tilt)
        done = write_skies(updates, settings, progress=watch)
    if settings.dry_run:
        console.say(f"dry run: {len(done.actions)} images can be written; none was changed")
        return
    console.tell_written(done, settings)
