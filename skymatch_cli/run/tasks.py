"""Run work in this thread, in several threads or in processes, with results in the order of the items.

Threads are enough where a step is one long call into a library (`run`). Pixels are processed in blocks that fit the
processor's cache, by calls shorter than the interpreter's switching interval, so tasks with many pixels run in
processes (see `processes`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from skymatch_cli.errors import Problem, SkymatchError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 4  # items per worker that are waiting or not yet taken
_WORTH_PROCESSES = 3_000_000  # pixels that can be read in the time that processes take to start


class Progress:
    """Progress callback; this one does nothing, others are derived from it."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""

    def advance(self, steps: int = 1) -> None:
        """Advance by some steps of the stage."""


NO_PROGRESS = Progress()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Finding(Protocol):
    """The result of a task."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why there is no result: files that could not be read."""


Found = TypeVar("Found", bound=Finding)
Found_co = TypeVar("Found_co", bound=Finding, covariant=True)


class Task(Protocol[Found_co]):
    """A self-contained piece of work, which may be sent to another machine."""

    def __call__(self) -> Found_co:
        """Run the task."""

    def lost(self, why: str) -> Found_co:
        """Return the finding to report when every worker died of the task."""


@dataclass(frozen=True, slots=True)
class Tasks(Generic[Found]):
    """Tasks that are made on demand, so that few of them exist at a time."""

    make: Callable[[int], Task[Found]]  # makes the task of an image
    images: Sequence[int]
    n_pixels: int  # about the number of pixels that all of them read

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, k: int) -> Task[Found]:
        return self.make(self.images[k])

    def __iter__(self) -> Iterator[Task[Found]]:
        return map(self.make, self.images)


class Runner(Protocol):
    """Something that runs tasks: on this machine, or on a cluster."""

    def __call__(self, tasks: Tasks[Found], *, progress: Progress = NO_PROGRESS) -> Iterator[Found]:
        """Yield the findings of the tasks, in their order."""


@dataclass(frozen=True, slots=True)
class LocalRunner:
    """Runs tasks on this machine; ``jobs`` 0 means one worker per usable core.

    Workers are processes if there is much to read and the system can fork this process, else threads.
    """

    jobs: int = 0

    def __call__(self, tasks: Tasks[Found], *, progress: Progress = NO_PROGRESS) -> Iterator[Found]:
        """Yield the findings of the tasks, in their order."""
        if (workers := n_processes(self.jobs, len(tasks), tasks.n_pixels)) > 1:
            from skymatch_cli.run.processes import run_tasks

            return run_tasks(tasks, workers, progress)
        return _ordered(attempt, tasks, min(self.jobs or usable_cores(), len(tasks)), progress)


def n_processes(jobs: int, n: int, n_pixels: int) -> int:
    """Return how many processes n pieces of work are worth: 1 if they are quicker in this one, or it can't be forked.

    ``n_pixels`` is the number of pixels that could be read in the time that all of the work takes.
    """
    workers = min(jobs or usable_cores(), n)
    if workers > 1 and n_pixels >= _WORTH_PROCESSES:
        from skymatch_cli.run.processes import can_fork

        return workers if can_fork() else 1
    return 1


class LostWorkError(SkymatchError):
    """Raised when a process of `run_apart` was killed."""


def run_apart(
    function: Callable[[Item], Answer], items: Sequence[Item], *, jobs: int, n_pixels: int
) -> Generator[Answer]:
    """Do the same as `run`, in processes or one after another: threads would mix up Python's warnings.

    ``n_pixels`` is that of `n_processes`. LostWorkError if a process was killed, or had not enough memory.
    """
    if (workers := n_processes(jobs, len(items), n_pixels)) > 1:
        from skymatch_cli.run.processes import run_tasks

        size = max(1, min(_PIECE, len(items) // (_AHEAD * workers)))
        pieces = Tasks(lambda k: _Piece(function, items[k : k + size]), range(0, len(items), size), n_pixels)
        with closing(run_tasks(pieces, workers, NO_PROGRESS)) as found:
            for piece in found:
                yield from piece.answers
        return
    yield from map(function, items)


class Parts(Generic[Item]):
    """Parts of some work that are kept from step to step: every n-th in this process, the others in forked ones.

    Steps, their words and the answers are sent, parts never. ``n_pixels`` is that of `n_processes`; the stack ends the
    processes. OSError or EOFError if one could not be started or was killed.
    """

    def __init__(self, parts: Sequence[Item], stack: ExitStack, *, jobs: int, n_pixels: int) -> None:
        workers = n_processes(jobs, len(parts), n_pixels)
        self._n, self._here, self._others = len(parts), parts[::workers], []
        if workers > 1:
            from skymatch_cli.run.processes import keeper

            self._others = [stack.enter_context(keeper(parts[k::workers])) for k in range(1, workers)]

    def each(self, step: Callable[..., Answer], *words: object) -> Iterator[Answer]:
        """Yield ``step(part, *words)`` of every part, in their order."""
        for other in self._others:
            other.send((step, words))
        for k in range(self._n):
            turn, whose = divmod(k, len(self._others) + 1)
            yield self._others[whose - 1].recv() if whose else step(self._here[turn], *words)


_PIECE = 16  # items per task at most


@dataclass(frozen=True, slots=True)
class _Piece(Generic[Item, Answer]):
    """A task that handles some of the items of `run_apart`."""

    function: Callable[[Item], Answer]
    items: Sequence[Item]

    def __call__(self) -> _Answers[Answer]:
        """Apply the function to these items."""
        return _Answers([self.function(item) for item in self.items])

    def lost(self, why: str) -> _Answers[Answer]:
        """Return the error of a process that died; it names no item."""
        raise LostWorkError(f"the run can't go on: {why}", "use --jobs 1")


@dataclass(frozen=True, slots=True)
class _Answers(Generic[Answer]):
    answers: list[Answer]
    problems: tuple[Problem, ...] = ()


def attempt(task: Task[Found]) -> Found:
    """Run a task; one that needs more memory than there is counts as one whose workers died."""
    try:
        return task()
    except MemoryError:
        return task.lost("it needs more memory than there is")


def run(
    function: Callable[[Item], Answer], items: Sequence[Item], *, jobs: int = 0, progress: Progress = NO_PROGRESS
) -> Iterator[Answer]:
    """Apply ``function`` to every item in ``jobs`` threads, and yield the answers in the order of the items.

    0 means one per usable core; the answers don't depend on it.
    """
    return _ordered(function, items, min(jobs or usable_cores(), len(items)), progress)


def _ordered(
    function: Callable[[Item], Answer], items: Iterable[Item], workers: int, progress: Progress
) -> Iterator[Answer]:
    """Yield results in the order of the items, of which only a few per worker are taken at a time."""
    if workers <= 1:
        for item in items:
            answer = function(item)
            progress.advance()
            yield answer
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            submitted = (pool.submit(function, item) for item in items)
            yield from in_window(submitted, Future.result, lambda: _AHEAD * workers, progress)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def in_window(
    submitted: Iterable[Item], result: Callable[[Item], Answer], most: Callable[[], int], watch: Progress
) -> Iterator[Answer]:
    """Yield the results of what is submitted, in its order; more than ``most()`` never wait at a time."""
    waiting: deque[Item] = deque()
    for one in submitted:
        waiting.append(one)
        if len(waiting) > most():
            yield result(waiting.popleft())
            watch.advance()
    while waiting:
        yield result(waiting.popleft())
        watch.advance()
