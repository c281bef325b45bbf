"""The runner and the store of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from skymatch_cli.run.tasks import LocalRunner, Runner

if TYPE_CHECKING:
    from skymatch_cli.store.store import Store


@contextmanager
def backend(scheduler: str | None, jobs: int) -> Iterator[Runner]:
    """Yield what runs tasks: threads here, or the workers of a Dask scheduler (its address, or ``local``).

    UsageError if the extra is missing, or there is no such scheduler.
    """
    if scheduler is None:
        yield LocalRunner(jobs)
        return
    from skymatch_cli.run.dask import connected

    with connected(scheduler, jobs) as runner:
        yield runner


@contextmanager
def opened_store(file: str | None) -> Iterator[Store | None]:
    """Open the store of ``--store FILE`` for this run, a new one if there is none; InputError if it can't be used."""
    if file is None:
        yield None
        return
    from skymatch_cli.store.store import Store

    with Store(file, write=True, create=True) as store:
        yield store
