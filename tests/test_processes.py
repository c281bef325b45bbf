"""Tasks in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from skymatch_cli.errors import InputError, Problem
from skymatch_cli.run import processes
from skymatch_cli.run.tasks import LocalRunner, Progress, Tasks

from .factories import Frame, write_all

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@dataclass(frozen=True)
class Square:
    k: int
    value: int
    pid: int
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Squaring:
    """Squares a number; some numbers are fatal."""

    k: int
    deadly: frozenset[int] = frozenset()
    bad: frozenset[int] = frozenset()
    locked: frozenset[int] = frozenset()

    def __call__(self) -> Square:
        time.sleep(0.002)  # so that no process does all of them
        if self.k in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.k in self.bad:
            raise KeyError(self.k)
        if self.k in self.locked:
            error = ValueError(self.k)
            error.lock = threading.Lock()
            raise error
        return Square(self.k, self.k**2, os.getpid())

    def lost(self, why: str) -> Square:
        return Square(self.k, -1, 0, (Problem(str(self.k), why, "run again"),))


@pytest.fixture
def forking(monkeypatch):
    """The test runner has threads of its own, which hold no lock that matters here."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def tasks(n, **kinds):
    return Tasks(lambda k: Squaring(k, **kinds), range(n), 10**9)


def test_findings_come_in_order_from_several_processes(forking):
    found = list(LocalRunner(3)(tasks(40)))
    assert [f.value for f in found] == [k**2 for k in range(40)]
    pids = {f.pid for f in found}
    assert os.getpid() not in pids
    assert 1 < len(pids) <= 3


def test_little_work_and_other_threads_stay_in_this_process(forking, monkeypatch):
    assert {f.pid for f in LocalRunner(2)(Tasks(Squaring, range(5), 1000))} == {os.getpid()}
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert {f.pid for f in LocalRunner(2)(tasks(5))} == {os.getpid()}


def test_a_worker_that_dies_costs_the_task_it_was_at(forking):
    found = list(LocalRunner(2)(tasks(30, deadly=frozenset({0, 7, 8, 29}))))
    lost = {f.k: f.problems[0] for f in found if f.value < 0}
    assert set(lost) == {0, 7, 8, 29}
    assert str(lost[7]) == "7: the process that read it was killed; memory may be short (run again)"
    assert [f.value for f in found if f.k not in lost] == [k**2 for k in range(30) if k not in lost]


def test_an_error_in_a_task_is_raised_here_and_leaves_no_process(forking):
    with pytest.raises(KeyError, match="5"):
        list(LocalRunner(2)(tasks(30, bad=frozenset({5}))))
    assert not multiprocessing.active_children()


def test_an_error_says_where_in_the_process_it_came_from(forking):
    with pytest.raises(KeyError) as caught:
        list(LocalRunner(2)(tasks(9, bad=frozenset({5}))))
    assert "raise KeyError(self.k)" in str(caught.value.__cause__)


def test_an_input_error_is_the_same_on_the_other_side():
    error = InputError([Problem("a.fits", "is bad", "mend it"), Problem("b.fits", "too")])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems, again.lines()) == (str(error), error.problems, error.lines())


def test_findings_that_nobody_takes_leave_no_process(forking):
    found = LocalRunner(2)(tasks(1000))
    assert next(found).value == 0
    found.close()
    assert not multiprocessing.active_children()


def test_where_the_system_has_no_room_for_processes_the_work_is_done_in_this_one(forking, monkeypatch):
    def refused(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.ForkProcess.start", refused)
    found = list(LocalRunner(3)(tasks(20)))
    assert [(f.value, f.pid) for f in found] == [(k**2, os.getpid()) for k in range(20)]
    assert not multiprocessing.active_children()


@dataclass(frozen=True)
class Large(Squaring):
    """Finds more than a pipe holds, and its process may be killed before that has arrived."""

    def __call__(self):
        if self.k in self.deadly:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return Answer(bytes(10**8), self.k)


@dataclass(frozen=True)
class Answer:
    content: bytes
    k: int
    problems: tuple[Problem, ...] = ()


def test_a_worker_that_is_killed_while_it_answers_does_not_stop_the_others(forking):
    some = Tasks(lambda k: Large(k, deadly=frozenset({2})), range(5), 10**9)
    found = list(processes.run_tasks(some, 2, Progress()))
    assert [f.k for f in found] == list(range(5))
    assert all(len(f.content) == 10**8 for f in found if isinstance(f, Answer))


def test_few_tasks_are_begun_ahead_of_the_answers_that_are_taken(forking, tmp_path):
    @dataclass(frozen=True)
    class Noted(Squaring):
        def __call__(self):
            (tmp_path / str(self.k)).touch()
            return Squaring.__call__(self)

    found = processes.run_tasks(Tasks(Noted, range(100), 10**9), 2, Progress())
    next(found)
    time.sleep(0.3)
    begun = len(list(tmp_path.iterdir()))
    found.close()
    assert 1 <= begun <= 9
    assert len(list(tmp_path.iterdir())) == begun


INTERRUPTED = """
import os, signal, sys, time
from skymatch_cli.run.tasks import Progress, Tasks
from skymatch_cli.run.processes import run_tasks
class Slow:
    def __init__(self, k): self.k = k
    def __call__(self):
        os.write(1, b"%d\\n" % os.getpid())
        for _ in range(6000):
            time.sleep(0.01)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
try:
    list(run_tasks(Tasks(Slow, range(100), 10**9), 2, Progress()))
except KeyboardInterrupt:
    import multiprocessing
    print("interrupted", multiprocessing.active_children())
"""


@pytest.mark.parametrize("whole_group", [False, True])
def test_an_interrupt_ends_workers_in_the_midst_of_a_task(whole_group):
    """A terminal interrupts all processes of a group, ``kill`` only the one that it names."""
    run = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    begun = [int(run.stdout.readline()) for _ in range(2)]
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=30)  # the tasks would take ten minutes
    assert (out, err) == ("interrupted []\n", "")
    assert not any(Path(f"/proc/{pid}").exists() for pid in begun)


ORPHANS = """
import os, sys, time
from skymatch_cli.run.tasks import Progress, Tasks
from skymatch_cli.run.processes import run_tasks
class Slow:
    def __init__(self, k): self.k = k
    def __call__(self):
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(float(sys.argv[1]))
for _ in run_tasks(Tasks(Slow, range(10**6), 10**9), 2, Progress()):
    pass
"""


@pytest.mark.parametrize(("seconds", "n_lines"), [("0.05", 20), ("600", 2)])
def test_processes_end_with_the_one_that_started_them(seconds, n_lines):
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS, seconds], stdout=subprocess.PIPE, text=True)
    children = {int(parent.stdout.readline()) for _ in range(n_lines)}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "orphans are still there"
        time.sleep(0.05)
    assert len(children) == 2


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_the_same_bytes_from_one_process_and_from_three(tmp_path, compare):
    square = {"nx": 900, "ny": 900, "noise": 3.0, "dtype": "f4"}
    frames = [Frame(x=200 * (k % 2), y=150 * (k // 2), sky=100 + k, seed=k, **square) for k in range(4)]
    files = write_all(tmp_path, frames)
    command = [sys.executable, "-m", "skymatch_cli", "match", "--dry-run", "--format", "json", "--compare", compare]
    one, three = (subprocess.check_output([*command, "--jobs", n, *files]) for n in ("1", "3"))
    assert one == three
    assert b'"status": "ok"' in one
