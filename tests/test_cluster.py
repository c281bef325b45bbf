"""Work on real worker processes of Dask: the bytes of the serial run, also where workers die."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from skymatch_cli import pipeline
from skymatch_cli.errors import Problem, UsageError
from skymatch_cli.run.tasks import Tasks
from skymatch_cli.settings import Settings

from .factories import row, write_all

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask talks about its own house: ports, slow starts, dead workers


@dataclass(frozen=True)
class Said:
    value: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class DiesOnce:
    """Kills the worker that does it first; the mark says that it did."""

    mark: str

    def __call__(self) -> Said:
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            os._exit(1)
        return Said("alive")

    def lost(self, why: str) -> Said:
        return Said("", (Problem("task", why),))


@dataclass(frozen=True)
class AlwaysDies(DiesOnce):
    def __call__(self) -> Said:
        os._exit(1)


@dataclass(frozen=True)
class ReadableElsewhere(DiesOnce):
    """One worker can't read its file."""

    def __call__(self) -> Said:
        try:
            Path(self.mark).touch(exist_ok=False)
        except FileExistsError:
            return Said("read")
        return Said("", (Problem("file", "not mounted here"),))


@dataclass(frozen=True)
class Unreadable(DiesOnce):
    def __call__(self) -> Said:
        return Said("", (Problem("file", "damaged"),))


@pytest.fixture(scope="module")
def runner():
    import dask

    from skymatch_cli.run.dask import connected

    # Dask gives a task up after the death of its second worker, not of its fourth: starting workers takes long.
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), connected("local", 2) as made:
        yield made


def found(runner, *tasks) -> list[Said]:
    return list(runner(Tasks(tasks.__getitem__, range(len(tasks)), 0)))


@pytest.fixture
def frames(tmp_path) -> list[str]:
    return write_all(tmp_path, row([10.0, 50.0, 30.0, 20.0, 5.0, 60.0], noise=1.0))


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_the_bytes_are_those_of_the_serial_run(runner, frames, compare):
    settings = Settings(dry_run=True, compare=compare)
    assert pipeline.evaluate(frames, settings, runner=runner).to_json() == pipeline.evaluate(frames, settings).to_json()


def test_relative_names_mean_the_same_files_on_workers(runner, frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers were started elsewhere
    settings = Settings(dry_run=True)
    result = pipeline.evaluate(["img_0.fits", "img_1.fits"], settings, runner=runner)
    assert result.infos[0].ref.file == "img_0.fits"


@dataclass(frozen=True)
class KillsOne:
    """A runner that kills a worker process when the first finding has come back."""

    runner: Any
    killed: list[int] = field(default_factory=list)

    def __call__(self, tasks, *, progress=None):
        for finding in self.runner(tasks, progress=progress):
            if not self.killed:
                self.killed.append(next(iter(self.runner.client.run(os.getpid).values())))
                os.kill(self.killed[0], signal.SIGKILL)
            yield finding


def test_a_measurement_whose_worker_is_killed_in_mid_run_has_the_same_bytes(runner, tmp_path):
    frames = write_all(tmp_path, row([float(k) for k in range(40)], noise=1.0))
    settings = Settings(dry_run=True)
    killing = KillsOne(runner)
    result = pipeline.evaluate(frames, settings, runner=killing)
    assert killing.killed
    assert result.to_json() == pipeline.evaluate(frames, settings).to_json()


def test_a_worker_that_is_killed_loses_nothing(runner, tmp_path):
    tasks = [DiesOnce(str(tmp_path / "mark")) for _ in range(6)]
    assert [said.value for said in found(runner, *tasks)] == ["alive"] * 6


def test_a_file_that_one_worker_cant_read_is_tried_on_another(runner, tmp_path):
    assert found(runner, ReadableElsewhere(str(tmp_path / "mark"))) == [Said("read")]


def test_a_file_that_no_worker_can_read_is_reported(runner):
    assert found(runner, Unreadable(""))[0].problems == (Problem("file", "damaged"),)


def test_what_kills_every_worker_is_reported_and_the_rest_is_done(runner, tmp_path):
    mark = tmp_path / "mark"
    mark.touch()
    killer, alive = found(runner, AlwaysDies(""), DiesOnce(str(mark)))
    assert "died" in killer.problems[0].what
    assert alive.value == "alive"


def test_a_scheduler_that_is_not_there_is_a_usage_error(monkeypatch):
    from skymatch_cli.run import dask as cluster

    monkeypatch.setattr(cluster, "_CONNECT_S", 1)
    with pytest.raises(UsageError, match="can't be reached"), cluster.connected("tcp://127.0.0.1:9"):
        pass
