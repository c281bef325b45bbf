"""Tasks in processes that are forked from this one: what they need is there already, only findings travel.

A worker gets numbers of tasks through a pipe and sends back what it found. It sees the end of its pipe, and ends,
when this process is gone, however it went. A worker that is killed costs the image it was at, which says so, and
is replaced.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from skymatch_cli.execution import Found, Progress, Tasks

_QUEUED = 2  # tasks that a worker has: the one it is at, and the next
_QUEUED_FIRST = 4  # while this process does something else
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT_BYTES = 2**28
_AHEAD = 4  # findings a worker that wait for an earlier one


def can_fork() -> bool:
    """Whether workers can be forked: not everywhere, and not beside threads that may hold a lock."""
    forks = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    return forks and threading.active_count() == 1 and not multiprocessing.current_process().daemon


def run_tasks(tasks: Tasks[Found], workers: int, progress: Progress) -> Iterator[Found]:
    """The findings of the tasks, in their order.

    Parameters
    ----------
    tasks : Tasks
    workers : int
    progress : Progress
        Advanced by one for every finding.
    """
    pool: list[_Worker] = []
    found: dict[int, Found] = {}
    given = 0
    try:
        if tasks.meanwhile is not None:
            given = _give(tasks, pool, workers, given, _QUEUED_FIRST * workers, _QUEUED_FIRST)
            tasks.meanwhile()
        for k in range(len(tasks)):
            while k not in found:
                given = _give(tasks, pool, workers, given, k + _AHEAD * workers)
                _collect(tasks, pool, found)
            yield found.pop(k)
            progress.advance()
    finally:
        for worker in pool:
            worker.stop()


@dataclass(slots=True)
class _Worker:
    """One process, and the numbers of the tasks that it has."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    tasks: deque[int] = field(default_factory=deque)

    @classmethod
    def start(cls, tasks: Tasks[Found], beside: list[_Worker]) -> _Worker:
        context = multiprocessing.get_context("fork")
        mine, theirs = context.Pipe()
        # Ends of pipes that a child would hold open beside this process: nobody could see it end.
        inherited = [mine, *(worker.pipe for worker in beside)]
        process = context.Process(target=_serve, args=(tasks, theirs, inherited), daemon=True)
        process.start()
        theirs.close()
        return cls(process, mine)

    def stop(self) -> None:
        """End the process; what it is at is lost."""
        if self.tasks:
            self.process.kill()
        self.pipe.close()
        self.process.join()


def _serve(tasks: Tasks[Found], pipe: Connection, inherited: list[Connection]) -> None:
    """What a worker does: tasks by number, until there is nobody to ask for them."""
    _keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks is told, and ends this one
    for other in inherited:
        other.close()
    try:
        while True:
            pipe.send(_answer(tasks, pipe.recv()))
    except (EOFError, OSError):
        os._exit(0)


def _keep_memory() -> None:
    """Let the memory of one image serve the next: getting fresh pages takes as long as the arithmetic in them."""
    with suppress(OSError, AttributeError):  # not the C library that has this
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)


def _answer(tasks: Tasks[Found], k: int) -> Found | BaseException:
    try:
        return tasks[k]()
    except Exception as error:  # noqa: BLE001 - raised again where the task was given
        return error


def _give(
    tasks: Tasks[Found], pool: list[_Worker], workers: int, given: int, limit: int, queued: int = _QUEUED
) -> int:
    """Hand out tasks up to a limit, to those who have least; how many were given in all."""
    while given < min(limit, len(tasks)):
        if len(pool) < workers and all(worker.tasks for worker in pool):
            pool.append(_Worker.start(tasks, pool))
        idlest = min(pool, key=lambda worker: len(worker.tasks))
        if len(idlest.tasks) >= queued:
            break
        try:
            idlest.pipe.send(given)
        except OSError:  # it died with nothing to do
            _bury(idlest, pool)
            continue
        idlest.tasks.append(given)
        given += 1
    return given


def _collect(tasks: Tasks[Found], pool: list[_Worker], found: dict[int, Found]) -> None:
    """Wait for findings."""
    busy = {worker.pipe: worker for worker in pool if worker.tasks}
    for pipe in wait(list(busy)):
        worker = busy[pipe]  # type: ignore[index]
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            code = _bury(worker, pool)
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            k, *others = worker.tasks
            found[k] = tasks[k].lost(f"the process that read it died ({how})")
            for other in others:
                _regive(tasks, pool, other)
            continue
        if isinstance(answer, BaseException):
            raise answer
        found[worker.tasks.popleft()] = answer


def _regive(tasks: Tasks[Found], pool: list[_Worker], k: int) -> None:
    """Give a task that a dead worker had not begun to a new one."""
    worker = _Worker.start(tasks, pool)
    worker.pipe.send(k)
    worker.tasks.append(k)
    pool.append(worker)


def _bury(worker: _Worker, pool: list[_Worker]) -> int | None:
    pool.remove(worker)
    worker.pipe.close()
    worker.process.join()
    return worker.process.exitcode
