"""Where work runs: in this thread or in several, always with the results in the order of the items.

Threads suffice: the heavy steps (reading, sorting, reductions of large arrays) run outside Python's
interpreter lock, nothing is copied between processes, and start-up costs nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from skymatch_cli.errors import Problem

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 4  # items a worker that wait to be worked on, or to be taken


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


class Finding(Protocol):
    """What a task found."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why it found nothing: a file could not be read."""
        ...


Found = TypeVar("Found", bound=Finding)
Found_co = TypeVar("Found_co", bound=Finding, covariant=True)


class Task(Protocol[Found_co]):
    """A piece of work that knows all it needs, so that it may be sent to another machine."""

    def __call__(self) -> Found_co:
        """Do it."""
        ...

    def lost(self, why: str) -> Found_co:
        """What is said where no worker lived to do it."""
        ...


class Runner(Protocol):
    """Where tasks run: in this process, or wherever an extra sends them."""

    def __call__(
        self, tasks: Iterable[Task[Found]], *, total: int, progress: Progress | None = None
    ) -> Iterator[Found]:
        """The findings of ``total`` tasks, in the order of the tasks."""
        ...


@dataclass(frozen=True, slots=True)
class LocalRunner:
    """Runs tasks in threads of this process; ``jobs`` 0 means one per usable core."""

    jobs: int = 0

    def __call__(
        self, tasks: Iterable[Task[Found]], *, total: int, progress: Progress | None = None
    ) -> Iterator[Found]:
        """The findings of ``total`` tasks, in the order of the tasks."""
        return _ordered(_do, tasks, min(self.jobs or usable_cores(), total), progress)


def _do(task: Task[Found]) -> Found:
    return task()


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
    return _ordered(function, items, min(jobs or usable_cores(), len(items)), progress)


def _ordered(
    function: Callable[[Item], Answer], items: Iterable[Item], workers: int, progress: Progress | None
) -> Iterator[Answer]:
    """Answers in the order of the items, of which only a few for each worker are taken at a time."""
    watch = progress or NoProgress()
    if workers <= 1:
        for item in items:
            answer = function(item)
            watch.advance()
            yield answer
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Answer]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
                    watch.advance()
            while waiting:
                yield waiting.popleft().result()
                watch.advance()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
