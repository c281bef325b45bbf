"""Run tasks in worker processes of ``concurrent.futures``, with results in order, also when workers are killed.

Workers are forked, so they have all that a task needs and only its number is sent. The result is returned in an
anonymous file in memory: a worker that is killed while it writes to the pool's own pipe would block the pool forever.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from skymatch_cli.run.tasks import Found, Progress, Tasks, attempt

_AHEAD = 4  # tasks per worker that are submitted at a time: memory
_KILLED = "the process that read it was killed; memory may be short"


class NoRoomError(OSError):
    """Raised when the system can't start worker processes."""


def can_fork() -> bool:
    """Return whether workers can be forked: on Linux, while no other thread may hold a lock."""
    alone = threading.active_count() == 1 and not multiprocessing.current_process().daemon
    return alone and hasattr(os, "memfd_create")


def run_tasks(tasks: Tasks[Found], workers: int, progress: Progress) -> Generator[Found]:
    """Yield the findings of tasks, in their order.

    When a worker is killed, the submitted tasks run again one by one, each in its own process; the finding of a task
    that kills this process too is its ``lost``. If no process can be started, tasks run in this one.
    """
    done = 0
    while done < len(tasks):
        try:
            for found in _in_pool(tasks, range(done, len(tasks)), workers):
                done += 1
                yield found
                progress.advance()
        except BrokenProcessPool:
            for k in range(done, min(done + _AHEAD * workers, len(tasks))):
                done += 1
                yield _in_own_process(tasks, k)
                progress.advance()
        except NoRoomError:
            for k in range(done, len(tasks)):
                done += 1
                yield tasks[k]()
                progress.advance()


def _in_own_process(tasks: Tasks[Found], k: int) -> Found:
    try:
        (found,) = _in_pool(tasks, [k], 1)
    except BrokenProcessPool:
        return tasks[k].lost(_KILLED)
    return found


def _in_pool(tasks: Tasks[Found], numbers: Sequence[int], workers: int) -> Generator[Found]:
    """Yield the findings of tasks with their numbers; raise BrokenProcessPool when a worker is killed."""
    submitted: deque[tuple[Future[None], int]] = deque()
    with ExitStack() as stack:
        free = [_memory_file(stack) for _ in range(min(_AHEAD * workers, len(numbers)))]
        pool, stop = stack.enter_context(_started(tasks, workers))
        try:
            for k in numbers:
                if not free:
                    yield _next_answer(submitted, free)
                file = free.pop()
                submitted.append((pool.submit(_Worker.answer, k, file), file))
            while submitted:
                yield _next_answer(submitted, free)
        finally:
            if submitted:
                stop.send(None)
            pool.shutdown(cancel_futures=True)


def _memory_file(stack: ExitStack) -> int:
    file = os.memfd_create("answer")
    stack.callback(os.close, file)
    return file


def _next_answer(submitted: deque[tuple[Future[None], int]], free: list[int]) -> Any:
    """Return the result of the task that was submitted first, and free its file."""
    future, file = submitted[0]
    future.result()
    submitted.popleft()
    free.append(file)
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        return pickle.load(stream)  # noqa: S301 - written by a worker of this process


@contextmanager
def _started(tasks: Tasks[Any], workers: int) -> Iterator[tuple[ProcessPoolExecutor, Connection]]:
    """Start a pool of forked workers, with a connection that stops them during their tasks."""
    context = multiprocessing.get_context("fork")
    stopped, stop = context.Pipe(duplex=False)
    with stopped, stop:
        pool = ProcessPoolExecutor(workers, context, _Worker.begin, (tasks, stopped))
        others = set(multiprocessing.active_children())
        try:
            with _forking():
                pool.submit(os.getpid)  # all workers are forked now, before the pool starts its threads
        except OSError as error:
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
            raise NoRoomError from error
        yield pool, stop


@contextmanager
def _forking() -> Iterator[None]:
    """Fork without SIGINT, which a process unblocks when it has its own handler, and without warnings."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of BLAS are safe to fork: it stops them
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def keeper(parts: Sequence[Any]) -> Iterator[Connection]:
    """Fork a process that keeps ``parts``; sent a step and its words, it sends an answer for each of them."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_keep, args=(parts, here, there), daemon=True)
    with here:
        with there, _forking():
            process.start()
        try:
            yield here
        finally:
            process.kill()
            process.join()


def _keep(parts: Sequence[Any], here: Connection, there: Connection) -> None:
    here.close()  # else its other end would never see that the process that forked this one is gone
    with suppress(Exception):  # `Parts` sees the end
        while True:
            step, words = there.recv()
            for part in parts:
                there.send(step(part, *words))


class _Worker:
    """The state of a worker process, which ends with the process that forked it."""

    tasks: Tasks[Any]
    stopped: Connection
    is_busy = False
    is_interrupted = False

    @classmethod
    def begin(cls, tasks: Tasks[Any], stopped: Connection) -> None:
        """Make this process a worker."""
        cls.tasks, cls.stopped = tasks, stopped
        threading.Thread(target=cls._watch, daemon=True).start()
        signal.signal(signal.SIGINT, cls._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    @classmethod
    def answer(cls, k: int, file: int) -> None:
        """Run a task and write its finding to a file; a KeyboardInterrupt is returned to the parent process."""
        cls.is_busy = True
        try:
            if cls.is_interrupted or cls.stopped.poll():  # no other task is begun
                raise KeyboardInterrupt
            found = attempt(cls.tasks[k])
            with open(file, "wb", closefd=False) as stream:
                stream.seek(0)
                pickle.dump(found, stream, pickle.HIGHEST_PROTOCOL)
        finally:
            cls.is_busy = False

    @classmethod
    def _interrupt(cls, *_: object) -> None:
        cls.is_interrupted = True
        if cls.is_busy:
            raise KeyboardInterrupt

    @classmethod
    def _watch(cls) -> None:
        """Stop the task on request; end when the parent process is gone."""
        parent = multiprocessing.parent_process()
        gone = -1 if parent is None else parent.sentinel
        if gone not in wait([cls.stopped, gone]):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            wait([gone])
        os._exit(1)
