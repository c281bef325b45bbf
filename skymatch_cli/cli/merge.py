"""``skymatch merge``: the parts of a measurement together."""

from __future__ import annotations

from typing import Any

import click

from . import options


@click.command(
    "merge",
    cls=options.SectionCommand,
    epilog="""\b
Examples:
  skymatch merge part*.fits -o measured.fits
""",
)
@options.PARTS
@options.add(options.MEASURED_OUTPUT, options.OVERWRITE_FILES, *options.CONSOLE)
@click.pass_context
def command(ctx: click.Context, /, *, parts: tuple[str, ...], target: str, overwrite: bool, **_: Any) -> None:
    """Put the parts of a measurement together.

    PARTS are what 'skymatch measure --shard' made of one plan.
    """
    from . import console

    with console.session(ctx):
        from skymatch_cli.output.destination import check_target, save_target
        from skymatch_cli.store.findings import merged
        from skymatch_cli.store.store import open_measured, write_measured

        check_target(target, "--output", overwrite=overwrite, inputs=parts)
        read = [open_measured(part) for part in parts]
        measured = merged([(part, m) for part, (_, m) in zip(parts, read, strict=True)])
        save_target(target, "--output", lambda stream: write_measured(read[0][0], measured, stream))
        n = len(measured.found)
        console.say(f"{n - len(measured.missing)} of {n} images are measured")
