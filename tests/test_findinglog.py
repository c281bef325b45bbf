"""Findings on their way from the images to the measurement: in a file, of which memory holds a little."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner, Result

from skymatch_cli import pipeline
from skymatch_cli.cli import main
from skymatch_cli.compare.meshed import MeshTask
from skymatch_cli.compare.pooled import PooledTask, n_pixels_of
from skymatch_cli.errors import SkymatchError
from skymatch_cli.settings import Settings
from skymatch_cli.store import findinglog
from skymatch_cli.store.findinglog import FindingLog, read_log
from skymatch_cli.store.findings import Measured
from skymatch_cli.store.store import open_plan

from .factories import Frame, row, write, write_all

SKIES = (10.0, 50.0, 30.0, 20.0, 40.0, 15.0)


def skymatch(*args: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(a) for a in args])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def frames(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row(SKIES, noise=1.0))
    skymatch("plan", "img_*.fits", "-o", "plan.fits")
    return [f"img_{k}.fits" for k in range(len(SKIES))]


def interrupted_before(monkeypatch, image: int, *options: object) -> list[int]:
    """Interrupt a measurement; the list grows by the images that are measured from now on."""
    done: list[int] = []
    for task in (PooledTask, MeshTask):

        def call(self, run=task.__call__):
            if self.image == image and not Path("again").exists():
                raise KeyboardInterrupt
            done.append(self.image)
            return run(self)

        monkeypatch.setattr(task, "__call__", call)
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", *options, code=130)
    Path("again").touch()
    done.clear()
    return done


def found(compare: str = "pooled", most: int = 3) -> tuple[Measured, list]:
    """What is measured, and the findings; blocks of the log hold ``most`` of them."""
    planned = pipeline.plan([f"img_{k}.fits" for k in range(len(SKIES))], Settings(compare=compare))
    measured = pipeline.find(planned)
    return Measured(planned.infos, planned.graph, planned.settings, ()), list(measured.found)


def same(one: object, other: object) -> bool:
    """Whether two findings are the same to the last bit."""
    columns = [findinglog.to_columns(findinglog._Block(np.array([0]), (f,)), {}) for f in (one, other)]
    return columns[0].keys() == columns[1].keys() and all(
        columns[0][name].tobytes() == columns[1][name].tobytes() for name in columns[0]
    )


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_findings_come_back_whatever_waits_and_whatever_is_written(frames, monkeypatch, compare):
    monkeypatch.setattr(findinglog, "_MOST_FINDINGS", 2)
    start, findings = found(compare)
    log = FindingLog("log", start, [(4, findings[4])])
    for i in (0, 1, 2, 5):
        log.put(i, findings[i])
    assert log[3] is None
    assert all(same(log[i], findings[i]) for i in (0, 1, 2, 4, 5))
    log.put(1, findings[2])  # replaces what was written
    assert same(log[1], findings[2])
    log.flush()
    assert len(log.all()) == len(SKIES)
    left = read_log("log")
    assert left is not None
    assert [f is not None for f in left.found] == [True, True, True, False, True, True]
    assert same(left.found[1], findings[2])


def test_a_log_that_is_cut_or_spoilt_anywhere_gives_what_stands_before(frames, monkeypatch):
    monkeypatch.setattr(findinglog, "_MOST_FINDINGS", 1)
    start, findings = found()
    log = FindingLog("log", start, [])
    ends = []
    for i, finding in enumerate(findings):
        ends.append(Path("log").stat().st_size)
        log.put(i, finding)
    content = Path("log").read_bytes()
    ends.append(len(content))
    for at in range(0, len(content), 397):
        whole = [end <= at for end in ends[1:]]
        Path("cut").write_bytes(content[:at])
        Path("spoilt").write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        for file in ("cut", "spoilt"):
            left = read_log(file)
            if at < ends[0]:
                assert left is None or not any(f is not None for f in left.found)
            else:
                assert [f is not None for f in left.found] == whole
                assert all(same(f, g) for f, g in zip(left.found, findings, strict=True) if f is not None)


@pytest.mark.parametrize("content", [b"", b"no log", bytes(100), b"\xff" * 100])
def test_another_file_is_no_log(tmp_path, content):
    (tmp_path / "log").write_bytes(content)
    assert read_log(str(tmp_path / "log")) is None


def test_a_log_of_another_version_is_begun_anew(frames, monkeypatch):
    done = interrupted_before(monkeypatch, 3)
    monkeypatch.setattr(findinglog, "__version__", "0.0.1")
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1")
    assert done == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("options", [(), ("--compare", "mesh"), ("--compare", "mesh", "--model", "plane")])
def test_what_was_found_before_an_interruption_is_used(frames, monkeypatch, options):
    skymatch("measure", "plan.fits", "-o", "straight.fits", *options)
    done = interrupted_before(monkeypatch, 4, *options)
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", *options)
    assert done == [4, 5]
    assert Path("measured.fits").read_bytes() == Path("straight.fits").read_bytes()
    assert not list(Path().glob(".skymatch-*"))


def test_it_is_used_for_a_plan_with_more_images_too(frames, monkeypatch):
    done = interrupted_before(monkeypatch, 4)
    write(Path("a_new.fits"), Frame(x=-30.0, sky=70.0, noise=1.0, seed=9))  # it comes first, and overlaps the first
    skymatch("plan", "a_new.fits", "img_*.fits", "-o", "plan.fits", "--overwrite")
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1")
    assert done == [0, 1, 5, 6]  # the new one, its neighbour in their overlap, and what was missing
    skymatch("measure", "plan.fits", "-o", "straight.fits")
    assert Path("measured.fits").read_bytes() == Path("straight.fits").read_bytes()


def test_twice_interrupted(frames, monkeypatch):
    with monkeypatch.context() as first:
        interrupted_before(first, 2)
    Path("again").unlink()
    done = interrupted_before(monkeypatch, 4)
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1")
    assert done == [4, 5]


def test_an_earlier_measurement_and_an_interrupted_one_are_both_used(frames, monkeypatch):
    skymatch("plan", *frames[:3], "-o", "few.fits")
    skymatch("measure", "few.fits", "-o", "earlier.fits")
    done = interrupted_before(monkeypatch, 5, "--nclip", "2")  # of other settings: of no use
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", "--update", "earlier.fits")
    assert done == [2, 3, 4, 5]
    Path("measured.fits").rename("straight.fits")
    Path("again").unlink()
    with monkeypatch.context() as again:
        done = interrupted_before(again, 4, "--update", "earlier.fits")
        skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", "--update", "earlier.fits")
    assert done == [4, 5]
    assert Path("measured.fits").read_bytes() == Path("straight.fits").read_bytes()


def test_a_log_has_the_mode_of_any_new_file(frames, monkeypatch):
    interrupted_before(monkeypatch, 2)
    Path("new").touch()
    assert Path("measured.fits.partial").stat().st_mode == Path("new").stat().st_mode


def test_other_settings_begin_anew(frames, monkeypatch):
    done = interrupted_before(monkeypatch, 4)
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", "--nclip", "2")
    assert done == [0, 1, 2, 3, 4, 5]


def test_a_run_that_is_killed_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n = 400
    write_all(tmp_path, row([float(k % 7) for k in range(n)], nx=40, ny=12, noise=1.0))
    Path("list.txt").write_text("".join(f"img_{k}.fits\n" for k in range(n)))
    skymatch("plan", "@list.txt", "-o", "plan.fits")
    line = [sys.executable, "-m", "skymatch_cli", "measure", "plan.fits", "-o", "m.fits", "--jobs", "1", "-q"]
    running = subprocess.Popen(line)
    while (left := read_log("m.fits.partial") if Path("m.fits.partial").exists() else None) is None or not any(
        f is not None for f in left.found
    ):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not Path("m.fits").exists()
    left = read_log("m.fits.partial")
    n_left = sum(f is not None for f in left.found)
    done: list[int] = []
    call = PooledTask.__call__
    monkeypatch.setattr(PooledTask, "__call__", lambda task: done.append(task.image) or call(task))
    skymatch("measure", "plan.fits", "-o", "m.fits", "--jobs", "1")
    assert 0 < n_left < n
    assert len(done) == n - n_left
    skymatch("measure", "plan.fits", "-o", "straight.fits")
    assert Path("m.fits").read_bytes() == Path("straight.fits").read_bytes()


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(findinglog, "_MOST_FINDINGS", 8)  # few images reach what is held at most
    write_all(tmp_path, row([float(k) for k in range(240)], nx=40, ny=8))

    def peak(n: int) -> int:
        Path("list.txt").write_text("".join(f"img_{k}.fits\n" for k in range(n)))
        skymatch("plan", "@list.txt", "-o", f"plan{n}.fits")
        tracemalloc.start()
        skymatch("measure", f"plan{n}.fits", "-o", f"m{n}.fits", "--jobs", "1")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)  # what is imported and cached once
    few, many = peak(120), peak(240)
    assert many - few < 120 * 2500  # bytes; a plan and findings in memory take eight times as much for each image


def test_a_full_disk_is_said_and_nothing_is_left(frames, monkeypatch):
    def full(self, content: bytes, at: int) -> None:
        if at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(findinglog.FileBytes, "write", full)
    said = skymatch("measure", "plan.fits", "-o", "measured.fits", code=1).output
    assert said.startswith("skymatch: error: measured.fits.partial can't be written: No space left on device")
    assert not [p for p in Path().iterdir() if not p.name.startswith(("img_", "plan"))]


def test_a_folder_that_cannot_be_written_is_said(frames, monkeypatch):
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    start, _ = found()
    monkeypatch.setattr(findinglog.tempfile, "mkstemp", refused)
    with pytest.raises(SkymatchError, match=r"log can't be written: Permission denied"):
        FindingLog("log", start, [])


def test_a_pipe_may_be_written_to(frames):
    os.mkfifo("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    skymatch("measure", "plan.fits", "-o", "pipe", "--overwrite")
    reader.join()
    skymatch("measure", "plan.fits", "-o", "measured.fits")
    assert got == [Path("measured.fits").read_bytes()]
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert not Path("pipe.partial").exists()


def test_standard_output_gets_the_bytes_of_the_file(frames):
    line = f"{sys.executable} -m skymatch_cli plan img_*.fits --format fits -q"
    subprocess.run(f"{line} | cat >piped.fits && echo before >>appended && {line} >>appended", shell=True, check=True)
    assert Path("piped.fits").read_bytes() == Path("plan.fits").read_bytes()
    assert Path("appended").read_bytes() == b"before\n" + Path("plan.fits").read_bytes()


def test_a_plan_that_is_damaged_in_one_image_is_refused_when_that_is_read(frames):
    content = Path("plan.fits").read_bytes()
    at = content.rindex(b'"file":"img_4.fits"')
    Path("plan.fits").write_bytes(content[:at] + b"?" + content[at + 1 :])
    said = skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", code=3).output
    assert "plan.fits: is not a plan of this version" in said
    assert "Traceback" not in said
    assert not Path("measured.fits").exists()
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--compare", "mesh", code=3)
    assert not list(Path().glob(".skymatch-*"))


def place(file: str, table: str, name: str, row: int) -> int:
    """Where a value of a table stands in its file."""
    with fits.open(file) as hdus:
        hdu = hdus[table]
        at = hdu.fileinfo()["datLoc"] + row * hdu.header["NAXIS1"]
        return at + hdu.columns.dtype.fields[name][1]


def put(file: str, at: int, content: bytes) -> None:
    whole = Path(file).read_bytes()
    Path(file).write_bytes(whole[:at] + content + whole[at + len(content) :])


HUGE = (2**63 - 1).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("table", "column", "content"),
    [
        ("IMAGES", "component", HUGE),
        ("IMAGES", "component", b"\xff" * 8),
        ("DETAILS", "detail", HUGE),
        ("DETAILS", "cards", b"\0" * 7 + b"\x10" + HUGE),
        ("POLYGONS", "wkb", b"\xff" * 16),
        ("POLYGONS", "plane", HUGE),
        ("OVERLAPS", "a", HUGE),
    ],
)
@pytest.mark.parametrize("options", [(), ("--shard", "1/3")])
def test_numbers_of_a_plan_that_point_nowhere_are_refused(frames, table, column, content, options):
    put("plan.fits", place("plan.fits", table, column, 1), content)
    said = skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", *options, code=3).output
    assert said.startswith("skymatch: error: plan.fits: is not a plan of this version")
    assert not Path("measured.fits").exists()


@pytest.mark.parametrize(
    ("compare", "table", "column", "content"),
    [
        ("pooled", "REGIONS", "overlap", HUGE),
        ("pooled", "REGIONS", "overlap", b"\xff" * 8),
        ("pooled", "REGIONS", "image", HUGE),
        ("pooled", "REGIONS", "image", (4).to_bytes(8, "big")),
        ("pooled", "IMAGES", "component", HUGE),
        ("mesh", "CELLS", "plane", HUGE),
        ("mesh", "CELLS", "image", b"\xff" * 8),
    ],
)
def test_numbers_of_a_measurement_that_point_nowhere_are_refused(frames, compare, table, column, content):
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--compare", compare)
    put("measured.fits", place("measured.fits", table, column, 1), content)
    for command in (
        ("solve", "measured.fits", "-o", "out.json"),
        ("merge", "measured.fits", "-o", "out.fits"),
        ("measure", "plan.fits", "-o", "out.fits", "--update", "measured.fits", "--compare", compare),
    ):
        said = skymatch(*command, code=3).output
        assert said.startswith("skymatch: error: measured.fits: is not a measurement of this version")


@pytest.mark.parametrize("keyword", ["NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "TFIELDS"])
@pytest.mark.parametrize("value", [-1, 0, 10**12, 2**63 - 1])
@pytest.mark.parametrize("table", ["IMAGES", "DETAILS", "NOTES"])
def test_a_header_that_claims_anything_is_no_trap(frames, keyword, value, table):
    content = Path("plan.fits").read_bytes()
    extension = content.rindex(b"XTENSION", 0, content.index(f"EXTNAME = '{table:<8}'".encode()))
    at = content.index(f"{keyword:<8}=".encode(), extension)
    is_true = content[at + 10 : at + 30].split() == [str(value).encode()]
    put("plan.fits", at + 10, f"{value:>20}".encode())
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", code=0 if is_true else 3)


def test_cards_that_are_damaged_are_those_of_the_plan(frames):
    content = Path("plan.fits").read_bytes()
    at = content.index(open_plan("plan.fits").infos[2].wcs.cards) + 20
    put("plan.fits", at, bytes([content[at] ^ 8]))
    said = skymatch("measure", "plan.fits", "-o", "measured.fits", "--jobs", "1", code=3).output
    assert said.startswith("skymatch: error: plan.fits: is not a plan of this version")


def test_a_block_of_images_that_are_not_there_ends_a_log(frames):
    start, findings = found()
    for image in (-1, len(SKIES)):
        log = FindingLog("log", start, [(4, findings[4])])
        log._append(findinglog._Block(np.array([image]), (findings[0],)))
        left = read_log("log")
        assert left is not None
        assert [i for i, f in enumerate(left.found) if f is not None] == [4]


def test_an_open_file_is_not_sent_to_another_process(frames):
    with pytest.raises(TypeError, match="open file"):
        pickle.dumps(open_plan("plan.fits"))


def test_standard_output_that_is_a_pipe_may_be_named(frames):
    line = f"{sys.executable} -m skymatch_cli measure plan.fits -q -o"
    subprocess.run(f"{line} /dev/stdout --overwrite | cat >piped.fits && {line} measured.fits", shell=True, check=True)
    assert Path("piped.fits").read_bytes() == Path("measured.fits").read_bytes()


def test_a_pipe_in_the_place_of_the_log_is_not_waited_for(frames):
    os.mkfifo("measured.fits.partial")
    skymatch("measure", "plan.fits", "-o", "measured.fits")


def test_how_much_there_is_to_read_is_guessed_from_all_of_the_list():
    infos = [SimpleNamespace(shape=(1, 1))] * 100 + [SimpleNamespace(shape=(1000, 1000))] * 900
    assert n_pixels_of(infos, range(1000)) == pytest.approx(9e8, rel=0.1)
    assert n_pixels_of(infos, []) == 0
    assert n_pixels_of(infos, [3]) == 1


def test_cells_that_are_damaged_are_refused(frames):
    skymatch("measure", "plan.fits", "-o", "measured.fits", "--compare", "mesh")
    content = Path("measured.fits").read_bytes()
    assert b'"dtype"' in content
    Path("measured.fits").write_bytes(content.replace(b'"dtype"', b'"dtypf"'))
    assert "measured.fits: is not a measurement" in skymatch("solve", "measured.fits", code=3).output
