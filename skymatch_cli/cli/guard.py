"""Where every error ends: one line on standard error and an exit code, and no traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import click

from skymatch_cli.errors import SkymatchError, unwritten
from skymatch_cli.output.printable import printable

from .layout import laid_out

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def guarded(call: Callable[[], object]) -> int:
    """Run a command and turn whatever ends it into an exit code and, for errors, one line each.

    Python's traceback is shown where ``SKYMATCH_DEBUG`` is set, and for unexpected errors with ``-vv``, by the log.
    """
    try:
        code = call()
    except Exception as error:  # noqa: BLE001 (the last resort: users get a line, not a traceback)
        if os.environ.get("SKYMATCH_DEBUG"):
            import traceback

            traceback.print_exc()
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """Say what ended the command; its exit code."""
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
        case _:
            _complain(f"unexpected {type(error).__name__}: {error} (run with -vv for the traceback)")
    return SkymatchError.exit_code


def _complain(message: str, word: str = "error: ") -> None:
    click.echo(laid_out(word, printable(message)), err=True)


def _usage_line(error: click.ClickException) -> str:
    """The message of click as one line."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    return f"{message}{hint}"


def forget_standard_output() -> None:
    """Let Python's last flush find an open file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
