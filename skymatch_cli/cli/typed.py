"""The command as it was typed, for the report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from skymatch_cli.errors import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

_MOST_TOGETHER = 6  # words in a row; of more, the first two and the last are shown


def typed_command(ctx: click.Context) -> str:
    """Return the command as it was typed at a shell, "" where it was called in another way."""
    words: Sequence[str] | None = ctx.find_root().obj
    return "" if words is None else shown_command(words)


def shown_command(words: Sequence[str]) -> str:
    """Join words to a command, with the middle of a long list of files left out.

    Parameters
    ----------
    words : sequence of str
        Without the name of the program.

    Examples
    --------
    >>> shown_command(["match", "--dry-run", "a b.fits"])
    "skymatch match --dry-run 'a b.fits'"
    >>> shown_command(["match", *(f"{k}.fits" for k in range(40)), "--strict"])
    'skymatch match 0.fits 1.fits … (37 more) … 39.fits --strict'
    """
    shown = ["skymatch", *map(shlex.quote, words[:1])]
    together: list[str] = []
    for word in [*words[1:], None]:
        if word is not None and not word.startswith("-"):
            together.append(shlex.quote(without_secrets(word)))
            continue
        if len(together) > _MOST_TOGETHER:  # the first word may be the value of an option
            together[2:-1] = [f"… ({len(together) - 3} more) …"]
        shown += together
        together = []
        if word is not None:
            shown.append(shlex.quote(without_secrets(word)))
    return " ".join(shown)
