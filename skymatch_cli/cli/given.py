"""What the user gave to a command: settings, share of the work, runner, store, files that it reads, words as typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from skymatch_cli.choices import Compare
from skymatch_cli.errors import UsageError, without_secrets
from skymatch_cli.settings import Settings, default_comparison, field_types, option_name, read_config

if TYPE_CHECKING:
    from skymatch_cli.output.destination import Output
    from skymatch_cli.run.tasks import Runner
    from skymatch_cli.store.store import Store

_WRITTEN = frozenset({"output", "target", "page", "plot", "log_file", "output_dir"})
_MOST_TOGETHER = 6  # words in a row; of more, the first two and the last are shown


def read(
    ctx: click.Context,
    base: Settings | None = None,
    fixed: frozenset[str] = frozenset(),
    *,
    ignored: frozenset[str] = frozenset(),
) -> tuple[Settings, Output]:
    """The settings of a command: defaults, then the configuration file, then the options that were given.

    ``base`` are those of an earlier step in the place of the defaults, ``fixed`` names what that step decided,
    ``ignored`` what has no meaning for this command. UsageError if settings are invalid, contradict each other, or
    differ from that step.
    """
    from skymatch_cli.output.destination import Output

    config = ctx.params.get("config")
    of_settings, of_output = field_types(Settings), field_types(Output)
    values = read_config(config, of_settings | of_output) if config else {}
    default = click.core.ParameterSource.DEFAULT
    values |= {name: value for name, value in ctx.params.items() if ctx.get_parameter_source(name) is not default}
    chosen = {name: value for name, value in values.items() if name in of_settings and name not in ignored}
    output = Output(**{name: value for name, value in values.items() if name in of_output})
    if base is None:
        return Settings.of(chosen), output
    kept = {name: getattr(base, name) for name in of_settings}
    if "compare" not in fixed and default_comparison(base.method, chosen) == Compare.POOLED:
        kept["compare"] = str(Compare.POOLED)
    settings = Settings(**(kept | chosen))
    for name in sorted(fixed & chosen.keys()):
        if getattr(settings, name) != getattr(base, name):
            decided = getattr(base, name)
            raise UsageError(f"{option_name(name)}: was set to {decided} in an earlier step", "repeat that step")
    return settings, output


def shard_of(text: str | None, n: int) -> range:
    """The indices of one of the parts of n things that ``--shard K/N`` means; all of them without it (UsageError)."""
    if text is None:
        return range(n)
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"--shard {text} is not K/N with K from 1 to N", "write --shard 1/8 for the first of eight")
    return range(n * (int(part) - 1) // int(parts), n * int(part) // int(parts))


def runner(scheduler: str | None, jobs: int) -> AbstractContextManager[Runner]:
    """Open what runs tasks: threads here, or the workers of a Dask scheduler (its address, or ``local``).

    UsageError if the extra is missing, or there is no such scheduler.
    """
    if scheduler is None:
        from skymatch_cli.run.tasks import LocalRunner

        return nullcontext(LocalRunner(jobs))
    from skymatch_cli.run.dask import connected

    return connected(scheduler, jobs)


def store(file: str | None) -> AbstractContextManager[Store | None]:
    """Open the store of ``--store FILE`` for this run, a new one if there is none; InputError if it can't be used."""
    if file is None:
        return nullcontext()
    from skymatch_cli.store.store import Store

    return Store(file, write=True, create=True)


def named_files(ctx: click.Context) -> tuple[str, ...]:
    """Return the existing files among arguments and options, and the lists named by ``@list``."""
    from pathlib import Path

    from skymatch_cli.record.files import lists_among

    words: list[str] = []
    for name, value in ctx.params.items():
        if name not in _WRITTEN:
            words += (word for word in (value if isinstance(value, tuple) else (value,)) if isinstance(word, str))
    return (*(word for word in words if "\0" not in word and Path(word).is_file()), *lists_among(words))


def typed_command(ctx: click.Context) -> str:
    """Return the command as it was typed at a shell, "" where it was called in another way."""
    words: Sequence[str] | None = ctx.find_root().obj
    return "" if words is None else shown_command(words)


def shown_command(words: Sequence[str]) -> str:
    """Join words, without the program's name, to a command, with the middle of a long list of files left out.

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
