"""Where a command does its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from skymatch_cli.run.tasks import LocalRunner, Runner


@contextmanager
def backend(scheduler: str | None, jobs: int) -> Iterator[Runner]:
    """What runs tasks: threads here, or the workers of a Dask scheduler (its address, or ``local``).

    Raises
    ------
    UsageError
        If the extra is missing, or there is no such scheduler.
    """
    if scheduler is None:
        yield LocalRunner(jobs)
        return
    from skymatch_cli.run.dask import connected

    with connected(scheduler, jobs) as runner:
        yield runner
