"""The command line: click and rich live here and nowhere else, one file a command."""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from skymatch_cli.version import __version__

from .guard import guarded

COMMANDS = {
    "match": "Match overlapping images; writes headers unless --dry-run.",
    "plan": "Show footprints, overlaps and components from headers alone.",
    "measure": "Measure the pixels of a plan.",
    "merge": "Merge partial measurements.",
    "solve": "Solve for the skies from a measurement, without pixels.",
    "apply": "Record or subtract the skies of a solution.",
    "undo": "Restore headers and pixels as they were before the first run.",
    "report": "Make the HTML report, or a plot, of a stored result.",
    "export": "Write the skies of a stored result for another program.",
    "demo": "Write a small synthetic mosaic with known skies, and match it.",
    "config": "Print the settings of a run as TOML.",
    "cite": "Print how to cite this program, with the version that runs.",
}
"""Every command and what it does, in the order of the help; its module is imported when it is needed."""


class LazyGroup(click.Group):
    """A group that imports a command when it is needed, and shows every error in one way."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        from skymatch_cli.run.threads import begin_with_one_thread

        begin_with_one_thread()
        command: click.Command = importlib.import_module(f".{cmd_name}", __name__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command (``help CMD`` is ``CMD --help``); for an unknown one say what may be meant."""
        name, *rest = args
        if name == "help" and not rest:
            click.echo(ctx.get_help())
            ctx.exit()
        if name == "help":
            return self.resolve_command(ctx, [rest[0], "--help"])
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"there is no command {name!r} ({_meant(name, rest)})", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and exit with the code that the design gives to what happened."""
        # astropy looks there for its settings, and fails where it may not look.
        if not os.access(os.path.expanduser("~"), os.X_OK):  # noqa: PTH111 (no import of pathlib)
            os.environ["HOME"] = os.devnull
        # A million long-lived objects: collect rarely.
        gc.set_threshold(1_000_000, 20, 20)
        extra["standalone_mode"] = False  # errors come to `guarded`
        if not args and extra.get("args") is None:
            extra["obj"] = sys.argv[1:]  # the words as typed, for the report
        run: Callable[..., object] = super().main
        raise SystemExit(guarded(lambda: run(*args, **extra)))


def _meant(name: str, rest: list[str]) -> str:
    """Suggest what was meant by a word that is no command: images are matched."""
    from pathlib import Path

    from skymatch_cli.settings import suggestion

    if name and Path(name).is_dir():
        name = str(Path(name) / "*.fits")
    if (
        name.startswith(("@", "-"))
        or re.search(r"\.(fits?|fts|asdf)\b|[*?]", name, re.IGNORECASE)
        or Path(name).is_file()
    ):
        import shlex

        more = " …" if rest else ""
        return f"did you mean: skymatch match --dry-run {shlex.quote(name)}{more}"
    return suggestion(name, COMMANDS)


@click.group(
    "skymatch",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n  skymatch demo mosaic && skymatch match mosaic/frame_*.fits\n"
    "  skymatch match --subtract --output-dir matched *.fits\n  skymatch match --dry-run -o sky.ecsv '*_cal.fits'",
)
@click.version_option(__version__, "-V", "--version", prog_name="skymatch", message="%(prog)s %(version)s")
def main() -> None:
    """Equalise the sky background of overlapping FITS images.

    'skymatch match' writes the sky of each image into its header; with --dry-run it writes nothing, and pixels change
    only with --subtract. 'skymatch undo' takes both back. 'skymatch help COMMAND' explains a command.
    """


def program() -> NoReturn:
    """Run `main` as the program ``skymatch``."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the shell: a file opened later must not take its number
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - a device, open to the end
    try:
        main(prog_name="skymatch")
    finally:
        gc.freeze()  # what is left goes with the process: the search for garbage at the end takes 0.1 s
    raise SystemExit
