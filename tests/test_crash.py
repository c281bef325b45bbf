"""A run that dies or fails at any call to the disk leaves whole files, and running again finishes the job."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.errors import InputError, StoppedError
from skymatch_cli.record.edits import SkyUpdate
from skymatch_cli.record.write import undo, write_skies
from skymatch_cli.settings import Settings

from .crash.faults import Fault, counted, die_after, die_halfway, fail_with, in_a_child
from .crash.fileset import Interrupted, contents, make_files
from .factories import row, write_all

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

RECORD = Settings()
SUBTRACT = Settings(subtract=True)

Job = Callable[[list[SkyUpdate]], object]

JOBS: dict[str, tuple[str, Job, Job]] = {  # the files, what is done before, and what is stopped
    "record": ("abcde", lambda _: None, lambda u: write_skies(u, RECORD)),
    "subtract": ("abcde", lambda _: None, lambda u: write_skies(u, SUBTRACT)),
    "subtract anew": (
        "be",
        lambda u: write_skies([_other(x) for x in u], SUBTRACT),
        lambda u: write_skies(u, SUBTRACT),
    ),
    "undo": ("be", lambda u: write_skies(u, SUBTRACT), lambda u: undo([x.ref for x in u], RECORD)),
}


def _other(update: SkyUpdate) -> SkyUpdate:
    return replace(update, sky=update.sky - 3.3)


@dataclass(frozen=True)
class Scene(Interrupted):
    """Files and what is done to them."""

    updates: list[SkyUpdate]
    job: Job

    def assert_whole(self, *, leftovers: bool) -> None:
        now = contents(self.folder)
        strangers = {name for name in now if name not in self.old}
        assert len(strangers) <= leftovers
        assert all(name.endswith(".skymatch-tmp") for name in strangers)
        assert {name for name in self.old if now.get(name) not in (self.old[name], self.new[name])} == set()

    def assert_finished_by_running_again(self) -> None:
        self.job(self.updates)
        assert contents(self.folder) == self.new


@pytest.fixture(params=JOBS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    names, before, job = JOBS[request.param]
    updates = make_files(tmp_path / "files", names)
    before(updates)
    old = contents(tmp_path / "files")
    calls = counted(lambda: job(updates))
    return Scene(tmp_path / "files", old, contents(tmp_path / "files"), calls, updates, job)


# (death before a call is death after the one before it)
@pytest.mark.parametrize(("die", "calls"), [(die_after, None), (die_halfway, "write")])
def test_death_at_every_call(scene, die, calls):
    for at in scene.every_call(of=calls):
        with Fault(at, die).installed():
            assert in_a_child(lambda: scene.job(scene.updates)) == 77
        scene.assert_whole(leftovers=True)
        scene.assert_finished_by_running_again()


@pytest.mark.parametrize(("number", "calls"), [(errno.EIO, None), (errno.EINTR, None), (errno.ENOSPC, "write")])
def test_failure_of_every_call(scene, number, calls):
    for at in scene.every_call(of=calls):
        with Fault(at, fail_with(number)).installed(), pytest.raises(InputError, match=os.strerror(number)):
            scene.job(scene.updates)
        scene.assert_whole(leftovers=False)
        scene.assert_finished_by_running_again()


def test_calls_are_those_of_an_atomic_replacement(scene):
    calls = [call for i, call in enumerate(scene.calls) if call != "write" or scene.calls[i - 1] != "write"]
    assert calls == ["open_new", "write", "like", "sync", "replace", "sync_directory"] * len(scene.old)


def test_interrupt_from_the_keyboard_leaves_no_temporary_file(scene):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for call in ("open_new", "write", "sync", "replace"):
        scene.reset()
        with Fault(scene.calls.index(call), interrupt).installed(), pytest.raises(KeyboardInterrupt):
            scene.job(scene.updates)
        scene.assert_whole(leftovers=False)


WRITERS = {
    "table": (["match", "--dry-run", "-o", "out.json", "--overwrite"], "out.json"),
    "FITS": (["match", "--dry-run", "-o", "out.fits", "--overwrite"], "out.fits"),
    "report": (["match", "--dry-run", "--report", "out.html", "--overwrite"], "out.html"),
    "export": (["export", "solution.fits", "--to", "swarp", "-o", "out.txt", "--overwrite"], "out.txt"),
    "journal": (["match", "--subtract"], "a.fits"),
}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EINTR])
@pytest.mark.parametrize("writer", WRITERS)
def test_failure_of_every_call_of_every_writer(tmp_path, monkeypatch, writer, number):
    args, target = WRITERS[writer]
    if writer == "report":
        pytest.importorskip("jinja2")
        pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row([10.0, 20.0]))
    names = sorted(path.name for path in tmp_path.glob("*.fits"))
    for k, name in enumerate(names):
        Path(name).rename(f"{'ab'[k]}.fits")
    if writer == "export":
        run_cli("match", "--dry-run", "-o", "solution.fits", "a.fits", "b.fits")
    if target != "a.fits":
        Path(target).write_text("precious")
    command = [*args, *([] if writer == "export" else ["--jobs", "1", "a.fits", "b.fits"])]
    old = contents(tmp_path)
    calls = counted(lambda: run_cli(*command))
    new = contents(tmp_path)
    assert new[target] != old[target]
    for at in range(len(calls)):
        for name in contents(tmp_path).keys() - old.keys():
            (tmp_path / name).unlink()
        for name, content in old.items():
            if (tmp_path / name).read_bytes() != content:
                (tmp_path / name).write_bytes(content)
        with Fault(at, fail_with(number)).installed():
            done = CliRunner().invoke(main, command)
        now = contents(tmp_path)
        if done.exit_code:
            assert os.strerror(number) in done.stderr
        else:
            assert (number, now) == (errno.EINTR, new)  # a buffered write is taken up again
        assert {name for name in old if now[name] not in (old[name], new[name])} == set()
        assert {name for name in now if name not in old and not name.endswith(".skymatch-journal")} == set()
        run_cli(*command)
        assert contents(tmp_path) == new


def run_cli(*args: str) -> None:
    done = CliRunner().invoke(main, [*args])
    assert done.exit_code == 0, done.stderr


def test_message_of_a_full_disk_says_what_to_do(tmp_path):
    updates = make_files(tmp_path)
    last = counted(lambda: write_skies(updates, RECORD))
    undo([u.ref for u in updates], RECORD)
    at = len(last) - 1 - last[::-1].index("write")
    with Fault(at, fail_with(errno.ENOSPC)).installed(), pytest.raises(StoppedError) as caught:
        write_skies(updates, RECORD)
    assert "No space left on device" in str(caught.value)
    assert caught.value.exit_code == 6
    assert len(caught.value.files) == 4
    first = ", ".join(caught.value.files[:3])
    assert caught.value.lines()[-1] == f"4 files written before it: {first} and 1 more (run again to finish)"
    assert "free some space, then run again" in str(caught.value)


def test_copies_that_a_full_disk_stopped_are_finished_as_the_message_says(tmp_path):
    updates, copies = make_files(tmp_path), replace(SUBTRACT, output_dir=str(tmp_path / "copies"))
    last = counted(lambda: write_skies(updates, copies))
    shutil.rmtree(tmp_path / "copies")
    at = len(last) - 1 - last[::-1].index("write")
    with Fault(at, fail_with(errno.ENOSPC)).installed(), pytest.raises(StoppedError) as caught:
        write_skies(updates, copies)
    assert caught.value.lines()[-1].endswith(" (run again with --overwrite to finish)")
    with pytest.raises(InputError, match="use --overwrite"):
        write_skies(updates, copies)
    assert len(write_skies(updates, replace(copies, overwrite=True)).files) == 5


def test_write_that_the_kernel_refuses(tmp_path):
    import resource

    updates = make_files(tmp_path)
    before = contents(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(InputError, match="File too large"):
            write_skies(updates, SUBTRACT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == before


def test_full_disk(tmp_path):
    """With every number of free blocks, on a small file system of its own where the system lets us mount one."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "mount", "-t", "tmpfs", "x", tmp_path], check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    command = [*alone, sys.executable, "-m", "tests.crash.full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 30


@pytest.mark.skipif(not shutil.which("cc") or not sys.platform.startswith("linux"), reason="needs a C compiler")
def test_every_system_call_of_every_writer_fails_in_turn(tmp_path):
    """Some of them, each with one of EIO, ENOSPC and EINTR; `make crash-test` tries all, of more writers."""
    command = [
        sys.executable,
        "-m",
        "tests.crash.syscalls",
        tmp_path / "files",
        "copies",
        "store again",
        "--every",
        "30",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    tried = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert tried == {"copies", "store again"}
