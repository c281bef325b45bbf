"""Options under headings, in the help of a command."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

GENERAL = "General"
_SHORT_HELP = "skymatch.short_help"  # in the meta of a click context


class SectionOption(click.Option):
    """An option that knows under which heading the help shows it."""

    def __init__(self, *args: Any, section: str = GENERAL, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help shows its options under headings; of those named in ``daily`` alone with ``-h``."""

    def __init__(self, *args: Any, daily: tuple[str, ...] = (), **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self._daily = daily

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Answer ``-h`` with the options of daily use."""
        if self._daily and "-h" in args[: args.index("--") if "--" in args else None]:
            ctx.meta[_SHORT_HELP] = True
            click.echo(self.get_help(ctx))
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog; after the options of daily use, where the others are."""
        if ctx.meta.get(_SHORT_HELP):
            formatter.write_paragraph()
            formatter.write_text(f"'{ctx.command_path} --help' shows all {len(self.get_params(ctx)) - 1} options.")
            return
        super().format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section, in the order in which they were added."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if ctx.meta.get(_SHORT_HELP) and parameter.name not in self._daily:
                continue
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", GENERAL), []).append(record)
        if general := sections.pop(GENERAL, None):
            sections[GENERAL] = general  # the last one: click puts --help at the end
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def command(name: str, *examples: str, **attrs: Any) -> Callable[[Callable[..., Any]], SectionCommand]:
    """Make a function a command whose help ends with examples, or with an ``epilog`` of its own."""
    lines = ["\b", "Examples:" if len(examples) > 1 else "Example:", *(f"  {example}" for example in examples)]
    return click.command(name, cls=SectionCommand, **({"epilog": "\n".join(lines)} | attrs))


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command, given its context, while messages go where ``-v``, ``-q`` and ``--log-file`` say."""

    @click.pass_context
    def run(ctx: click.Context, /, **given: Any) -> None:
        from . import console

        with console.session(ctx):
            function(ctx, **given)

    return update_wrapper(run, function)
