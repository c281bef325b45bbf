"""Messages on standard error, laid out for a terminal; every error becomes one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable

import click

from skymatch_cli.errors import SkymatchError, unwritten
from skymatch_cli.output.printable import printable

_INDENT = "    "
_WIDEST = 100  # longer lines are hard to read
_COLOURS = {"warning: ": "yellow", "error: ": "red"}


def laid_out(word: str, message: str, advice: str = "") -> str:
    """Lay out ``skymatch: WORD MESSAGE`` with the advice after it; on a terminal in colour and lines."""
    if not sys.stderr.isatty():
        return f"skymatch: {word}{message}" + (f" ({advice})" if advice else "")
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size().columns, _WIDEST)

    def broken(text: str, first: str) -> str:
        return textwrap.fill(
            text, width, initial_indent=first, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
        )

    lines = broken(f"skymatch: {word}{message}", "")
    if word in _COLOURS and "NO_COLOR" not in os.environ:
        lines = lines.replace(word.rstrip(), click.style(word.rstrip(), fg=_COLOURS[word], bold=True), 1)
    return lines + ("\n" + broken(advice, _INDENT) if advice else "")


INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_ALIKE = 0.75  # of options that may be meant; less is another word
_MOST_WORDS = 10  # in a message; of more, the nearest one is shown


def guarded(call: Callable[[], object]) -> int:
    """Run a command; return its exit code, after one line for each error.

    ``SKYMATCH_DEBUG`` shows Python's traceback; with ``-vv`` the log has it for unexpected errors.
    """
    try:
        code = call()
    except Exception as error:  # noqa: BLE001 (users get a line, not a traceback)
        if os.environ.get("SKYMATCH_DEBUG"):
            import traceback

            traceback.print_exc()
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    match error:
        case click.Abort():
            _complain("interrupted", "")
            return INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.ClickException():
            _complain(_usage_line(error))
            return error.exit_code
        case SkymatchError():
            for line in error.lines():
                _complain(line)
            return error.exit_code
        case BrokenPipeError():
            forget_standard_output()
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            forget_standard_output()
            full = unwritten(str(error.filename or "standard output"), error)
            _complain(full.lines()[0])
            return full.exit_code
        case MemoryError():
            _complain("there is not enough memory (use fewer --jobs, or fewer images at a time)")
        case _:
            _complain(f"unexpected {type(error).__name__}: {error} (run with -vv for the traceback)")
    return SkymatchError.exit_code


def _complain(message: str, word: str = "error: ") -> None:
    click.echo(laid_out(word, printable(message)), err=True)


def _usage_line(error: click.ClickException) -> str:
    """The message of click as one line, with what helps."""
    context: click.Context | None = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    hints: list[str] = []
    match error:
        case click.NoSuchOption() if context is not None:
            message = f"there is no option {error.option_name}"
            hints = _about_option(error.option_name, context)
        case click.MissingParameter() if context is not None:
            hints = _first_example(context.command)
        case click.BadParameter(param=click.Parameter(type=click.Choice(choices=words))) if len(words) > _MOST_WORDS:
            start, _, rest = message.partition(" is not one of ")
            close = difflib.get_close_matches(start.rpartition("'")[0].rpartition("'")[2], map(str, words), n=1)
            if rest and close:
                message, hints = f"{start} is not one of its words", [f"did you mean '{close[0]}'?"]
    if context is not None:
        hints.append(f"see '{context.command_path} --help'")
    return f"{message} ({'; '.join(hints)})" if hints else message


def _about_option(name: str, context: click.Context) -> list[str]:
    """What may be meant by an option that a command doesn't have: one like it, or one of another command."""
    own = [spelt for parameter in context.command.params for spelt in parameter.opts]
    if close := difflib.get_close_matches(name, own, n=1, cutoff=_ALIKE):
        return [f"did you mean {close[0]}?"]
    root = context.find_root()
    commands = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    others = [command for command in commands if name in _options(root, command)]
    return [f"it is an option of: {', '.join(others)}"] if others else []


def _options(root: click.Context, name: str) -> list[str]:
    command = root.command.get_command(root, name) if isinstance(root.command, click.Group) else None
    return [spelt for parameter in (command.params if command else ()) for spelt in parameter.opts]


def _first_example(command: click.Command) -> list[str]:
    lines = [line.strip().partition("   ")[0] for line in (command.epilog or "").splitlines()]
    return [f"e.g. {line}" for line in lines if line.startswith("skymatch")][:1]


def forget_standard_output() -> None:
    """Point standard output at nothing, for Python's last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
