"""Tasks and crews in processes that are forked."""

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

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skymatch_cli.errors import InputError, Problem, SkymatchError
from skymatch_cli.run import processes
from skymatch_cli.run.tasks import LocalRunner, NoProgress, Tasks
from skymatch_cli.sky.planechoice import component_labels

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
    assert str(lost[7]) == "7: the process that read it died (signal 9) (run again)"
    assert [f.value for f in found if f.k not in lost] == [k**2 for k in range(30) if k not in lost]


@dataclass(frozen=True)
class Large(Squaring):
    """Finds more than a pipe holds."""

    def __call__(self):
        return (super().__call__(), bytes(10**6))


def test_a_finding_that_did_not_come_is_found_again(forking):
    some = Tasks(lambda k: Large(k, frozenset({3})), range(8), 10**9, lambda: time.sleep(0.3))
    found = list(processes.run_tasks(some, 2, NoProgress()))
    assert [k for k, f in enumerate(found) if isinstance(f, Square)] == [3]


def test_an_error_in_a_task_is_raised_here_and_leaves_no_process(forking):
    with pytest.raises(KeyError, match="5"):
        list(LocalRunner(2)(tasks(30, bad=frozenset({5}))))
    assert not multiprocessing.active_children()


def test_an_error_says_where_in_the_process_it_came_from(forking):
    with pytest.raises(KeyError) as caught:
        list(LocalRunner(2)(tasks(9, bad=frozenset({5}))))
    assert "raise KeyError(self.k)" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_sent_is_named(forking):
    with pytest.raises(SkymatchError, match="unexpected ValueError in a process: 5"):
        list(LocalRunner(2)(tasks(30, locked=frozenset({5}))))
    assert not multiprocessing.active_children()


def test_an_input_error_is_the_same_on_the_other_side():
    error = InputError([Problem("a.fits", "is bad", "mend it"), Problem("b.fits", "too")])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems, again.lines()) == (str(error), error.problems, error.lines())


def test_tasks_of_a_dead_worker_do_not_need_more_workers(forking):
    found = LocalRunner(2)(Tasks(lambda k: Squaring(k, frozenset({0})), range(30), 10**9, lambda: time.sleep(0.2)))
    at_work = [len(multiprocessing.active_children()) for _ in found]
    assert max(at_work) <= 2


def test_findings_that_nobody_takes_leave_no_process(forking):
    found = LocalRunner(2)(tasks(1000))
    assert next(found).value == 0
    found.close()
    assert not multiprocessing.active_children()


def test_something_else_is_done_meanwhile(forking):
    done = []
    some = Tasks(Squaring, range(9), 10**9, meanwhile=lambda: done.append(os.getpid()))
    assert len(list(processes.run_tasks(some, 2, NoProgress()))) == 9
    assert done == [os.getpid()]


class Counter:
    """A member that remembers."""

    def __init__(self, start):
        self.total = start

    def add(self, n):
        self.total += n
        return self.total

    def where(self):
        return os.getpid()

    def fail(self):
        raise ValueError("no")

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("room", [0, 1])
def test_where_the_system_has_no_room_for_processes_fewer_do_the_work(forking, monkeypatch, room):
    left = iter([None] * room)
    start = processes._Process.start.__func__

    def started(cls, *arguments):
        if next(left, "none") == "none":
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(cls, *arguments)

    monkeypatch.setattr(processes._Process, "start", classmethod(started))
    found = list(LocalRunner(3)(tasks(20)))
    assert [f.value for f in found] == [k**2 for k in range(20)]
    assert ({f.pid for f in found} == {os.getpid()}) == (room == 0)
    with processes.crew([Counter(10), Counter(20)]) as ask:
        assert ask(Counter.add, 1) == [11, 21]
    assert not multiprocessing.active_children()


def test_members_of_a_crew_remember(forking):
    with processes.crew([Counter(10), Counter(20)]) as ask:
        assert ask(Counter.add, 1) == [11, 21]
        assert ask(Counter.add, 2) == [13, 23]
        assert len({os.getpid(), *ask(Counter.where)}) == 3
        with pytest.raises(ValueError, match="no"):
            ask(Counter.fail)
    assert not multiprocessing.active_children()


def test_a_crew_of_one_stays_here():
    with processes.crew([Counter(1)]) as ask:
        assert ask(Counter.where) == [os.getpid()]


def test_a_member_that_dies_is_an_error(forking):
    with processes.crew([Counter(1), Counter(2)]) as ask, pytest.raises(SkymatchError, match=r"died \(signal 9\)"):
        ask(Counter.die)


def test_a_member_that_died_before_the_question_is_an_error(forking):
    with processes.crew([Counter(1), Counter(2)]) as ask:
        for pid in ask(Counter.where):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        with pytest.raises(SkymatchError, match=r"died \(signal 9\)"):
            ask(Counter.add, 1)


WAITING = """
import os, signal, sys, time
from skymatch_cli.run.tasks import NoProgress, Tasks
from skymatch_cli.run.processes import run_tasks
class Slow:
    def __init__(self, k): self.k = k
    def __call__(self):
        os.write(1, b"%d\\n" % self.k)  # at once: two may say so together
        time.sleep(0.5)
list(run_tasks(Tasks(Slow, range(100), 10**9, lambda: os.kill(os.getpid(), signal.SIGTERM)), 2, NoProgress()))
"""


def test_tasks_that_wait_are_not_begun_when_nobody_asks_any_more():
    done = subprocess.run([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGTERM
    assert set(done.stdout.split()) <= {"0", "1"}


TWO_POOLS = """
import multiprocessing
from skymatch_cli.run.tasks import NoProgress, Tasks
from skymatch_cli.run.processes import crew, run_tasks
class Number:
    def __init__(self, k): self.k = k
    def __call__(self): return self.k
first = run_tasks(Tasks(Number, range(4), 10**9), 2, NoProgress())
print([next(first) for _ in range(4)])
second = run_tasks(Tasks(Number, range(1000), 10**9), 2, NoProgress())
print(next(second))
with crew([Number(1), Number(2)]) as ask:
    first.close()
    print(ask(Number.__call__), next(second))
second.close()
print(multiprocessing.active_children())
"""


def test_processes_that_stand_side_by_side_end_one_by_one():
    done = subprocess.run([sys.executable, "-c", TWO_POOLS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[0, 1, 2, 3]", "0", "[1, 2] 1", "[]"]


ORPHANS = """
import os, sys, time
from skymatch_cli.run.tasks import NoProgress, Tasks
from skymatch_cli.run.processes import run_tasks
class Slow:
    def __init__(self, k): self.k = k
    def __call__(self):
        time.sleep(0.05)
        return os.getpid()
for pid in run_tasks(Tasks(Slow, range(10**6), 10**9), 2, NoProgress()):
    print(pid, flush=True)
"""


def test_processes_end_with_the_one_that_started_them():
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    children = {int(parent.stdout.readline()) for _ in range(20)}
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


@given(st.integers(1, 40), st.data())
def test_components_are_those_of_scipy(n, data):
    nodes = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(nodes, nodes), max_size=60))
    i, j = np.array(edges, np.int64).reshape(-1, 2).T
    _, expected = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)
    lowest = np.array([np.flatnonzero(expected == c)[0] for c in expected])
    np.testing.assert_array_equal(component_labels(n, i, j), lowest)


def test_components_of_a_long_chain():
    n = 100_000
    shuffled = np.random.default_rng(1).permutation(n)
    assert not component_labels(n, shuffled[:-1], shuffled[1:]).any()
