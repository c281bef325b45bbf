"""Lay out messages: whole lines in a file or pipe, broken at the width of a terminal."""

from __future__ import annotations

import os
import sys

import click

_INDENT = "    "
_WIDEST = 100  # longer lines are hard to read
_COLOURS = {"warning: ": "yellow", "error: ": "red"}


def laid_out(word: str, message: str, advice: str = "") -> str:
    """Lay out ``skymatch: WORD MESSAGE`` with the advice after it.

    Parameters
    ----------
    word : str
        ``"warning: "``, ``"error: "`` or ``""``; coloured on a terminal.
    advice : str
        What to do; on a terminal it begins a line of its own.
    """
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
