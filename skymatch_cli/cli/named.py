"""The files that a command reads by name: the run must not replace them."""

from __future__ import annotations

from pathlib import Path

import click

from skymatch_cli.record.reads import lists_among

_WRITTEN = frozenset({"output", "target", "page", "plot", "log_file", "output_dir"})


def named_files(ctx: click.Context) -> tuple[str, ...]:
    """Return the existing files among arguments and options, and the lists named by ``@list``."""
    words: list[str] = []
    for name, value in ctx.params.items():
        if name not in _WRITTEN:
            words += (word for word in (value if isinstance(value, tuple) else (value,)) if isinstance(word, str))
    return (*(word for word in words if "\0" not in word and Path(word).is_file()), *lists_among(words))
