"""``skymatch config``: the settings that a run would have, as a file for ``--config``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from skymatch_cli.errors import UsageError
from skymatch_cli.settings import Settings, option_name

from . import given, options, sections


@sections.command(
    "config",
    "skymatch config --dump > skymatch.toml",
    "skymatch config --config survey.toml --skystat mode    what is not a default",
)
@click.option("--dump", cls=sections.SectionOption, is_flag=True, help="All settings, the defaults too.")
@options.add(
    *options.SKY,
    *options.STATISTICS,
    *options.PIXELS,
    *options.UNITS,
    *options.WRITING,
    *options.RESULT,
    *options.CHECKS,
    "jobs",
    options.CONFIG,
)
@click.pass_context
def command(ctx: click.Context, /, dump: bool, **_: Any) -> None:
    """Print the settings of a run as TOML.

    The options are those of match. The settings come from the defaults, the --config file and these options, and
    are checked as match would check them; what is printed can be given to --config. Settings without a value (no
    limit, no mask) are left out; without --dump those at their defaults are too.
    """
    from skymatch_cli.output.destination import Output

    settings, output = given.read(ctx)
    chosen = asdict(settings) | asdict(output)
    defaults = {} if dump else asdict(Settings()) | asdict(Output())
    for name, value in chosen.items():
        if value is not None and (dump or value != defaults[name]):
            click.echo(f"{name.replace('_', '-')} = {_toml(name, value)}")


def _toml(name: str, value: str | float | tuple[str, ...]) -> str:
    """A value as TOML, which has the numbers, the lists and the escapes of JSON."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{option_name(name)}: {value!r} is not text that TOML can hold", "rename the file") from error
    return text
