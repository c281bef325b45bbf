"""``match --subtract`` that dies or fails anywhere, and is run again: the same bytes as if nothing had happened.

The skies of these images are of the size of their pixels, so floats don't come back to the last bit when a sky is
added again; what an interrupted run measured must be kept.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli import pipeline
from skymatch_cli.cli import main
from skymatch_cli.errors import InputError
from skymatch_cli.settings import Settings

from .crash.faults import Fault, counted, die_after, fail_with, in_a_child
from .crash.fileset import Interrupted, contents
from .factories import row, write, write_all

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

LEVELS = (-40.0, 55.0, -30.0, 100.0)
MEAN = Settings(subtract=True, skystat="mean", jobs=1)
JOBS = {
    "mean": (MEAN, None),
    "median": (Settings(subtract=True, jobs=1), None),
    "mesh": (Settings(subtract=True, compare="mesh", jobs=1), None),
    "plane": (Settings(subtract=True, compare="mesh", model="plane", jobs=1), None),
    "own skies": (Settings(subtract=True, method="globalmin+match", skystat="mean", jobs=1), None),
    "cubes": (Settings(subtract=True, compare="mesh", planes="each", jobs=1), None),
    "cubes with tilts": (Settings(subtract=True, compare="mesh", model="plane", planes="each", jobs=1), None),
    "subtracted before": (MEAN, Settings(subtract=True, method="localmin", jobs=1)),
}


@dataclass(frozen=True)
class Scene(Interrupted):
    """Images and what is done to them."""

    names: list[str]
    settings: Settings
    result: str

    def run(self) -> str:
        return pipeline.match(self.names, self.settings).to_json()

    def assert_whole(self, *, temporary: bool) -> None:
        now = contents(self.folder)
        strangers = [name for name in now if name not in self.old]
        assert sum(name.endswith(".skymatch-tmp") for name in strangers) <= temporary
        assert sum(name.endswith(".skymatch-journal") for name in strangers) + temporary >= len(strangers)
        assert all(now[name] in (self.old[name], self.new[name]) for name in self.old)

    def assert_finished_by_running_again(self) -> None:
        done = contents(self.folder) == self.new  # then this is another run, which sees rounded pixels
        result = self.run()
        assert done or result == self.result
        assert contents(self.folder) == self.new


def make_scene(folder: Path, job: str) -> Scene:
    settings, before = JOBS[job]
    frames = [frame.but(noise=3.0, dtype="f4") for frame in row(LEVELS)]
    if settings.planes is None:
        names = write_all(folder, frames)
    else:
        folder.mkdir()
        names = []
        for k, frame in enumerate(frames):
            planes = np.stack([frame.pixels(), frame.but(sky=-2 * frame.sky, seed=9 - k).pixels()])
            names.append(write(folder / f"img_{k}.fits", frame, pixels=planes))
    if before is not None:
        pipeline.match(names, before)
    old, result = contents(folder), ""

    def run() -> None:
        nonlocal result
        result = pipeline.match(names, settings).to_json()

    calls = counted(run)
    return Scene(folder, old, contents(folder), calls, names, settings, result)


@pytest.fixture(params=JOBS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return make_scene(tmp_path / "files", request.param)


@pytest.fixture
def mean(tmp_path: Path) -> Scene:
    return make_scene(tmp_path / "files", "mean")


def interrupt(scene: Scene, *, after: int = 1) -> None:
    """Leave the files as a run does that dies after so many of them were replaced (the journal is one more)."""
    at = [i for i, call in enumerate(scene.calls) if call == "replace"][after]
    scene.reset()
    with Fault(at, die_after).installed():
        assert in_a_child(scene.run) == 77


def test_death_at_every_call(mean: Scene) -> None:
    assert_death_is_survived(mean, mean.every_call())


def test_death_between_files(scene: Scene) -> None:
    assert_death_is_survived(scene, scene.every_call(of="replace"))


def assert_death_is_survived(scene: Scene, calls: Iterator[int]) -> None:
    for at in calls:
        with Fault(at, die_after).installed():
            assert in_a_child(scene.run) == 77
        scene.assert_whole(temporary=True)
        scene.assert_finished_by_running_again()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_failure_of_every_call(mean: Scene, number: int) -> None:
    for at in mean.every_call():
        with Fault(at, fail_with(number)).installed(), pytest.raises(InputError, match=os.strerror(number)):
            mean.run()
        mean.assert_whole(temporary=False)
        if contents(mean.folder).items() >= mean.old.items():
            assert contents(mean.folder) == mean.old  # no file was replaced: nothing is left, no journal either
        mean.assert_finished_by_running_again()


def test_without_the_journal_other_bytes_may_come(mean: Scene) -> None:
    """What the journal is for: these tests would not see it missing otherwise."""
    after = []
    for n_replaced in range(1, len(LEVELS)):
        interrupt(mean, after=n_replaced)
        for journal in mean.folder.glob(".*.skymatch-journal"):
            journal.unlink()
        mean.run()
        after.append(contents(mean.folder))
    assert any(files != mean.new for files in after)


def test_the_user_is_told(mean: Scene) -> None:
    interrupt(mean)
    done = CliRunner().invoke(main, ["match", "--subtract", "--skystat", "mean", *mean.names])
    assert done.exit_code == 0
    assert "finished an interrupted run, with its measurements" in done.stderr
    assert "subtracted the sky from 3 images, 1 already as wanted" in done.stderr
    assert contents(mean.folder) == mean.new


def test_other_settings_begin_anew(mean: Scene) -> None:
    interrupt(mean)
    other = Settings(subtract=True, skystat="median", jobs=1)
    pipeline.match(mean.names, other)
    assert contents(mean.folder).keys() == mean.old.keys()
    interrupted = {name: fits.getheader(name)["BKGLEVEL"] for name in mean.names}
    mean.reset()
    pipeline.match(mean.names, other)
    assert interrupted == {name: pytest.approx(fits.getheader(name)["BKGLEVEL"], abs=1e-4) for name in mean.names}


@pytest.mark.parametrize("done", [True, False])
def test_where_another_program_changed_a_file_all_is_measured_anew(mean: Scene, *, done: bool) -> None:
    """In a file that the run had done, positions; in one that it had not, pixels."""
    interrupt(mean)
    with fits.open(mean.names[0 if done else -1], mode="update") as hdus:
        if done:
            hdus[0].header["CRVAL2"] += 10 / 3600
        else:
            hdus[0].data += np.float32(7.0)
    expected = pipeline.match(mean.names, Settings(skystat="mean", dry_run=True)).to_json()
    assert mean.run() == expected
    assert contents(mean.folder).keys() == mean.old.keys()


def test_undo_forgets_the_interrupted_run(mean: Scene) -> None:
    interrupt(mean)
    assert CliRunner().invoke(main, ["undo", *mean.names]).exit_code == 0
    assert contents(mean.folder).keys() == mean.old.keys()


def test_a_damaged_journal_is_no_journal(mean: Scene) -> None:
    interrupt(mean)
    (journal,) = mean.folder.glob(".*.skymatch-journal")
    journal.write_bytes(journal.read_bytes()[:5000])
    mean.run()
    assert contents(mean.folder).keys() == mean.old.keys()
    for name in mean.names:
        old = fits.PrimaryHDU.fromstring(mean.new[Path(name).name]).data
        np.testing.assert_allclose(fits.getdata(name), old, atol=1e-4)


def test_where_nothing_is_to_be_written_there_is_no_journal(mean: Scene) -> None:
    assert counted(mean.run) == []


@pytest.mark.parametrize(("dtype", "many"), [("i2", True), ("f4", False)])
def test_integers_and_single_files_need_no_journal(tmp_path: Path, dtype: str, *, many: bool) -> None:
    frames = [frame.but(noise=3.0, dtype=dtype) for frame in row(LEVELS)]
    names = write_all(tmp_path, frames if many else frames[:1])
    settings = Settings(subtract=True, method="match" if many else "localmin")
    assert counted(lambda: pipeline.match(names, settings)).count("replace") == len(names)


def test_second_run_at_the_same_time_says_so_and_stops(mean: Scene) -> None:
    """The first run stands still in the middle of its second file while the second one comes."""
    mean.reset()
    (there, go), (wait, here) = os.pipe(), os.pipe()

    def stand_still(_name: str, call: object, args: tuple[object, ...]) -> object:
        os.write(go, b".")
        os.read(wait, 1)
        return call(*args)  # type: ignore[operator]

    at = [i for i, call in enumerate(mean.calls) if call == "replace"][2]
    child = os.fork()
    if child == 0:
        with Fault(at, stand_still).installed():
            mean.run()
        os._exit(0)
    os.read(there, 1)
    before = contents(mean.folder)
    for args in (["match", "--subtract", "--skystat", "mean"], ["match", "--subtract"], ["undo"]):
        second = subprocess.run(
            [sys.executable, "-m", "skymatch_cli", *args, *mean.names], capture_output=True, text=True, check=False
        )
        assert second.returncode == 3
        assert "another run is writing here" in second.stderr
        assert second.stdout == ""
        assert contents(mean.folder) == before
    os.write(here, b".")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert contents(mean.folder) == mean.new
    for end in (there, go, wait, here):
        os.close(end)
