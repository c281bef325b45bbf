"""The runner and the store of a command."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from skymatch_cli.run.tasks import LocalRunner, Runner

if TYPE_CHECKING:
    from skymatch_cli.store.store import Store


def backend(scheduler: str | None, jobs: int) -> AbstractContextManager[Runner]:
    """Open what runs tasks: threads here, or the workers of a Dask scheduler (its address, or ``local``).

    UsageError if the extra is missing, or there is no such scheduler.
    """
    if scheduler is None:
        return nullcontext(LocalRunner(jobs))
    from skymatch_cli.run.dask import connected

    return connected(scheduler, jobs)


def opened_store(file: str | None) -> AbstractContextManager[Store | None]:
    """Open the store of ``--store FILE`` for this run, a new one if there is none; InputError if it can't be used."""
    if file is None:
        return nullcontext()
    from skymatch_cli.store.store import Store

    return Store(file, write=True, create=True)
