"""Where work runs: in this thread or in several, always with the results in the order of the items.

Threads suffice: the heavy steps (reading, sorting, reductions of large arrays) run outside Python's
interpreter lock, nothing is copied between processes, and start-up costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Progress(Protocol):
    """Who wants to know how far the work is."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins that has ``total`` steps."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Some steps of the stage are done."""
        ...


class NoProgress:
    """Nobody wants to know."""

    def stage(self, name: str, total: int) -> None:
        """Say nothing."""

    def advance(self, steps: int = 1) -> None:
        """Say nothing."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable[[Item], Answer], items: Sequence[Item], *, jobs: int = 0, progress: Progress | None = None
) -> Iterator[Answer]:
    """Apply ``function`` to every item and yield the answers in the order of the items.

    Parameters
    ----------
    function : callable
    items : sequence
    jobs : int
        Workers; 0 means one per usable core. The answers don't depend on it.
    progress : Progress, optional
        Advanced by one for every answer.

    """
    workers = min(jobs or usable_cores(), len(items))
    watch = progress or NoProgress()
    if workers <= 1:
        for item in items:
            answer = function(item)
            watch.advance()
            yield answer
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for answer in pool.map(function, items):
                watch.advance()
                yield answer
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
