"""Work in processes that are forked from this one: what they need is there already, only answers travel.

A process sees the end of its pipe, and ends, when this one is gone, however it went. One that is killed in the
midst of a task costs the image it was at, which says so, and is replaced.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pickle import PicklingError
from typing import Any, Generic, TypeVar

from skymatch_cli.errors import SkymatchError
from skymatch_cli.run.allocation import keep_memory
from skymatch_cli.run.tasks import Found, Progress, Tasks

Member = TypeVar("Member")

# This process's ends of all pipes. A child that held one open beside it would keep others from seeing it closed.
_ENDS: set[Connection] = set()

_QUEUED = 2  # tasks that a worker has: the one it is at, and the next
_QUEUED_FIRST = 4  # the same while this process does something else
_AHEAD = 4  # findings a worker that wait for an earlier one
_PR_SET_PDEATHSIG = 1  # of prctl(2)


class NotAnsweredError(SkymatchError):
    """A process was asked something, and there is no answer: neither what was asked for nor an error of its."""


class ProcessDiedError(NotAnsweredError):
    """A process that was asked something is gone."""


def can_fork() -> bool:
    """Whether processes can be forked: not everywhere, and not beside threads that may hold a lock."""
    forks = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    return forks and threading.active_count() == 1 and not multiprocessing.current_process().daemon


def run_tasks(tasks: Tasks[Found], workers: int, progress: Progress) -> Generator[Found]:
    """The findings of the tasks, in their order.

    Parameters
    ----------
    tasks : Tasks
    workers : int
    progress : Progress
        Advanced by one for every finding.
    """
    pool = _Pool(tasks, workers)
    try:
        if not pool.begin():
            for task in tasks:
                yield task()
                progress.advance()
            return
        if tasks.meanwhile is not None:
            pool.give(_QUEUED_FIRST * workers, _QUEUED_FIRST)
            tasks.meanwhile()
        for k in range(len(tasks)):
            while k not in pool.found:
                pool.give(k + _AHEAD * workers, _QUEUED)
                pool.collect()
            yield pool.found.pop(k)
            progress.advance()
    finally:
        pool.stop()


@contextmanager
def crew(members: Sequence[Member]) -> Iterator[Callable[..., list[Any]]]:
    """Objects that live in processes of their own and are asked one thing after another; one alone stays here.

    Parameters
    ----------
    members : sequence
        Each keeps what it knows from question to question.

    Yields
    ------
    callable
        ``ask(method, *arguments)``: the answers ``method(member, *arguments)`` of all members, in their order.

    Raises
    ------
    ProcessDiedError
        If a process died.
    """
    if len(members) == 1 or not can_fork():
        yield _in_turn(members)
        return
    started: list[_Process] = []

    def ask(method: Callable[..., Any], *arguments: Any) -> list[Any]:
        for process in started:
            with suppress(OSError):  # it died: so says its reply
                process.pipe.send((method, arguments))
        return [process.reply() for process in started]

    try:
        try:
            for member in members:
                started.append(_Process.start(_be_asked, member))  # noqa: PERF401 - those before a failure, too
        except OSError:  # the system has no room for them
            yield _in_turn(members)
        else:
            yield ask
    finally:
        for process in started:
            process.stop(kill=False)


@contextmanager
def companion(load: Callable[[], object]) -> Iterator[Callable[..., Any] | None]:
    """A process that calls ``load`` and then answers ``ask(function, *arguments)``.

    Yields
    ------
    callable or None
        None where the system has no room for it. Raises NotAnsweredError when the process is gone, or the question
        can't be sent.
    """
    try:
        process = _Process.start(_load_and_answer, load)
    except OSError:
        yield None
        return

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            question = ForkingPickler.dumps((function, arguments))
        except (PicklingError, AttributeError, TypeError) as error:  # the ways of pickle to say so
            raise NotAnsweredError(f"a question can't be sent: {error}") from error
        with suppress(OSError):  # it died: so says its reply
            process.pipe.send_bytes(question)
        return process.reply()

    try:
        yield ask
    finally:
        process.stop(kill=True)  # it may still be loading


def _in_turn(members: Sequence[Member]) -> Callable[..., list[Any]]:
    return lambda method, *arguments: [method(member, *arguments) for member in members]


@dataclass(slots=True)
class _Process:
    """One process, this end of its pipe, and the numbers of the tasks that it has."""

    process: BaseProcess
    pipe: Connection
    tasks: deque[int] = field(default_factory=deque)

    @classmethod
    def start(cls, work: Callable[[Any, Connection], None], subject: object) -> _Process:
        """A process that works on a subject until its pipe ends."""
        context = multiprocessing.get_context("fork")
        mine, theirs = context.Pipe()
        _ENDS.add(mine)
        process = context.Process(target=_live, args=(work, subject, theirs), daemon=True)
        try:
            process.start()
        except OSError:
            _closed(mine)
            raise
        finally:
            theirs.close()
        return cls(process, mine)

    def reply(self) -> Any:
        """Its next answer; an error is raised."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.stop(kill=False)
            what = f"a process died ({self.how_it_ended()})"
            raise ProcessDiedError(what, "run again, with --jobs 1 if memory is short") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self, *, kill: bool) -> None:
        """Let it end, or make it."""
        if kill:
            self.process.kill()
        _closed(self.pipe)
        self.process.join()

    def how_it_ended(self) -> str:
        """What the system says."""
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class _Pool(Generic[Found]):
    """Processes that work on tasks, and what they found."""

    def __init__(self, tasks: Tasks[Found], workers: int) -> None:
        self.found: dict[int, Found] = {}
        self._tasks, self._workers = tasks, workers
        self._pool: list[_Process] = []
        self._given = 0
        self._again: deque[int] = deque()  # of workers that died
        self._at: dict[int, memoryview] = {}  # by process id: the task that it began last, written by itself

    def begin(self) -> bool:
        """Start one process; False where the system has no room for any."""
        with suppress(OSError):
            self._start()
        return bool(self._pool)

    def give(self, limit: int, queued: int) -> None:
        """Hand out the tasks before a limit, to those who have least and not more than ``queued`` to each."""
        while self._again or self._given < min(limit, len(self._tasks)):
            if len(self._pool) < self._workers and all(worker.tasks for worker in self._pool):
                self._start_another()
            idlest = min(self._pool, key=lambda worker: len(worker.tasks))
            if len(idlest.tasks) >= queued:
                return
            task = self._again[0] if self._again else self._given
            try:
                idlest.pipe.send(task)
            except OSError:  # it died
                self._bury(idlest)
                continue
            idlest.tasks.append(task)
            if self._again:
                self._again.popleft()
            else:
                self._given += 1

    def collect(self) -> None:
        """Wait for findings."""
        for pipe in wait([worker.pipe for worker in self._pool if worker.tasks]):
            worker = next(w for w in self._pool if w.pipe is pipe)
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(answer, BaseException):
                raise answer
            self.found[worker.tasks.popleft()] = answer

    def stop(self) -> None:
        """End all processes; what they are at is lost."""
        for worker in self._pool:
            worker.stop(kill=bool(worker.tasks))

    def _start_another(self) -> None:
        try:
            self._start()
        except OSError:  # the system has no room for more
            if not self._pool:
                raise
            self._workers = len(self._pool)

    def _start(self) -> None:
        at = memoryview(mmap.mmap(-1, 8)).cast("q")
        at[0] = -1
        worker = _Process.start(_serve, _Duty(self._tasks, at))
        self._pool.append(worker)
        self._at[worker.process.pid or 0] = at

    def _bury(self, worker: _Process) -> None:
        """The task that a dead worker was at is lost; those that wait, or whose finding did not come, are another's."""
        self._pool.remove(worker)
        worker.stop(kill=False)
        at = self._at.pop(worker.process.pid or 0)[0]
        if worker.tasks:
            task = at if at in worker.tasks else worker.tasks[0]
            worker.tasks.remove(task)
            self.found[task] = self._tasks[task].lost(f"the process that read it died ({worker.how_it_ended()})")
            self._again.extend(worker.tasks)


def _closed(end: Connection) -> None:
    _ENDS.discard(end)
    end.close()


def _live(work: Callable[[Any, Connection], None], subject: object, pipe: Connection) -> None:
    """What a process does first and last."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks is told, and ends this one
    _end_with_parent()
    keep_memory()
    for end in _ENDS:
        end.close()
    with suppress(EOFError, OSError):  # nobody is there to ask
        work(subject, pipe)
    os._exit(0)


@dataclass(frozen=True, slots=True)
class _Duty:
    """What a worker of a pool works on, and where it notes which task it is at."""

    tasks: Tasks[Any]
    at: memoryview


def _serve(duty: _Duty, pipe: Connection) -> None:
    """Tasks by number; the next one begins while the finding of the last one waits to be taken."""
    asker = multiprocessing.parent_process()
    with ThreadPoolExecutor(1) as sender:
        while True:
            k = pipe.recv()
            if asker is None or os.getppid() != asker.pid:  # it is gone, though tasks still wait in the pipe
                return
            duty.at[0] = k
            sender.submit(pipe.send_bytes, _outcome(_done, duty.tasks, k))


def _done(tasks: Tasks[Any], k: int) -> object:
    return tasks[k]()


def _load_and_answer(load: Callable[[], object], pipe: Connection) -> None:
    """Questions to a companion."""
    with suppress(Exception):  # who asks for what can't be loaded is told so
        load()
    while True:
        function, arguments = pipe.recv()
        pipe.send_bytes(_outcome(function, *arguments))


def _be_asked(member: object, pipe: Connection) -> None:
    """Questions to a member of a crew."""
    while True:
        method, arguments = pipe.recv()
        pipe.send_bytes(_outcome(method, member, *arguments))


def _outcome(call: Callable[..., object], *arguments: object) -> memoryview:
    """An answer, or the error that is to be raised where the question was asked, ready to be sent."""
    try:
        return ForkingPickler.dumps(call(*arguments))
    except Exception as error:  # noqa: BLE001 - see above
        return _dumped(error)


def _dumped(error: Exception) -> memoryview:
    """An error with the traceback that it has here; one that can't be sent is named."""
    error.add_note("In a process:\n" + "".join(traceback.format_exception(error)))
    try:
        return ForkingPickler.dumps(error)
    except Exception:  # noqa: BLE001 - whatever an error may hold
        return ForkingPickler.dumps(SkymatchError(f"unexpected {type(error).__name__} in a process: {error}"))


def _end_with_parent() -> None:
    """Have the system end this process when the one that started it is gone, in the midst of an import too."""
    with suppress(OSError, AttributeError):  # not the C library that has this: it ends when it sees its pipe closed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
