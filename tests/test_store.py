"""The store: what it holds comes back to the last bit, and a damaged or foreign file is refused by name."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from skymatch_cli import pipeline
from skymatch_cli.choices import WarningName
from skymatch_cli.cli import main
from skymatch_cli.compare.meshed import MeshTask
from skymatch_cli.compare.pooled import PooledTask
from skymatch_cli.errors import InputError, SkymatchError
from skymatch_cli.model import SkyWarning
from skymatch_cli.settings import Settings
from skymatch_cli.store import database, findings, keys
from skymatch_cli.store.findings import StoredFindings
from skymatch_cli.store.measuring import find
from skymatch_cli.store.store import CODEC, Store

from .commands import skymatch
from .factories import row, write, write_all

SKIES = (10.0, 50.0, 30.0, 20.0, 40.0, 15.0)


@pytest.fixture
def measured(frames) -> bytes:
    """A store with a measurement, and its solution."""
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db")
    return solution()


def solution(store: str = "field.db", code: int = 0) -> bytes:
    done = skymatch("solve", store, "--format", "json", code=code)
    return done.stdout_bytes


def stored(planned: pipeline.Plan, file: str = "field.db") -> pipeline.Plan:
    """A plan after it was stored, whole."""
    with Store(file, write=True, create=True) as store:
        store.save_plan(planned)
    with Store(file) as store:
        read = store.plan()
        graph = replace(read.graph, polygon=read.graph.polygon.part(np.arange(len(read.graph.polygon))))
        return replace(read, infos=tuple(read.infos), graph=graph)


# --- what is stored comes back


@pytest.mark.parametrize("frame", [{}, {"projection": "CAR"}, {"sip": True, "rotation": 20.0}, {"dec_first": True}])
def test_a_plan(tmp_path, monkeypatch, frame):
    monkeypatch.chdir(tmp_path)
    planned = pipeline.plan(write_all(tmp_path, row([1.0, 2.0, 3.0], **frame)), Settings())
    read = stored(planned)
    assert read.settings == planned.settings
    assert [replace(i, wcs=None) for i in read.infos] == [replace(i, wcs=None) for i in planned.infos]
    assert read.graph.planes == planned.graph.planes
    for name in ("a", "b", "area_arcmin2", "plane"):
        assert np.array_equal(getattr(read.graph, name), getattr(planned.graph, name))
    for name in ("xy", "ring_offset", "outer", "row_offset"):
        assert np.array_equal(getattr(read.graph.polygon, name), getattr(planned.graph.polygon, name))
    x = np.array([0.0, 13.5])
    for one, other in zip(read.infos, planned.infos, strict=True):
        assert np.array_equal(one.wcs.to_sky(x, x), other.wcs.to_sky(x, x))


SAID = SkyWarning(WarningName.UNITS, "Achtung: é"), SkyWarning(WarningName.STEP, "b", 0.5, "adu", visible=False)


def test_names_in_any_script_and_warnings(tmp_path):
    folder = tmp_path / "nächte κόσμος 'a;b?c%20#&"
    planned = pipeline.plan(write_all(folder, row([1.0, 2.0])), Settings())
    planned = replace(planned, skipped=("weggelassen: ü",), warnings=SAID)
    read = stored(planned, str(folder / "störe ?mode=ro&x#%41 ':memory:'"))
    assert read.infos[0].ref == planned.infos[0].ref
    assert (read.skipped, read.warnings) == (planned.skipped, planned.warnings)


@pytest.mark.parametrize("name", [b"f\xff.db", b":memory:", b"file:x", b"-x.db", "µ".encode()])
def test_a_store_may_have_any_name(frames, name):
    file = os.fsdecode(name)
    for command in (["plan", "--store", file, *frames], ["measure", "--", file], ["solve", "--", file]):
        skymatch(*command)
    assert Path(file).is_file()


@pytest.mark.parametrize("options", [{}, {"compare": "mesh"}, {"compare": "mesh", "model": "plane"}])
def test_findings_come_back_to_the_last_bit(frames, options):
    planned = pipeline.plan(frames, Settings(**options))
    held = list(find(planned))
    with Store("field.db", write=True, create=True) as store:
        store.save_plan(planned)
        found = StoredFindings(planned, store, store, with_local=True)
        for image in (4, 0, 1):
            found.put(image, held[image])
        assert [f is not None for f in found] == [True, True, False, False, True, False]  # before they are written
        found.flush()
        found.put(1, held[1])
        found.flush()
    with Store("field.db") as store:
        found = StoredFindings(planned, store, with_local=True)
        assert found.n_measured == 3
        for image in (0, 1, 4):
            assert CODEC.encode(found[image]) == CODEC.encode(held[image])


def test_long_columns_are_stored_in_blocks(frames, monkeypatch):
    from skymatch_cli.store import store

    monkeypatch.setattr(store, "_BLOCK", 2)
    planned = pipeline.plan(frames, Settings())
    read = stored(planned)
    assert np.array_equal(read.graph.b, planned.graph.b)
    with Store("field.db") as opened:
        for rows in ([4, 0, 1, 3], [2], []):
            some = np.array(rows, np.int64)
            mine, its = opened.plan().graph.polygon.part(some), planned.graph.polygon.part(some)
            assert np.array_equal(mine.xy, its.xy)
            assert np.array_equal(mine.row_offset, its.row_offset)


# --- what is not a store, or not whole


@pytest.mark.parametrize("content", [b"", b"no store", bytes(100), b"SIMPLE  =                    T" + bytes(5000)])
def test_another_file_is_refused(frames, content):
    Path("field.db").write_bytes(content)
    for command in (("measure", "field.db"), ("solve", "field.db"), ("merge", "field.db", "part.db")):
        said = skymatch(*command, code=3).output
        assert said.startswith("skymatch: error: field.db: is not a store of skymatch")
        assert said.count("\n") == 1
    if content:  # an empty file may be filled
        for command in ("plan", "match"):
            assert "is not a store" in skymatch(command, "--store", "field.db", *frames, code=3).output
        assert Path("field.db").read_bytes() == content


def test_a_database_of_another_program_is_refused(frames):
    with sqlite3.connect("field.db") as other:
        other.execute("CREATE TABLE facts (k, body, digest)")
    other.close()
    before = Path("field.db").read_bytes()
    said = skymatch("plan", "--store", "field.db", *frames, code=3).output
    assert "field.db: is a database of another program" in said
    assert Path("field.db").read_bytes() == before


@pytest.mark.parametrize(("name", "value"), [("SCHEMA_VERSION", 2), ("layout", None)])
def test_a_store_of_another_version_is_refused(measured, monkeypatch, name, value):
    from skymatch_cli.store import store

    if name == "layout":
        monkeypatch.setattr(store, "layout", lambda: "another")
    else:
        monkeypatch.setattr(database, name, value)
    for command in (["solve", "field.db"], ["match", "--dry-run", "--store", "field.db", "img_0.fits"]):
        said = skymatch(*command, code=3).output
        assert said.startswith("skymatch: error: field.db: is a store of another version of skymatch")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_file_is_refused(frames, kind):
    Path("field.db").mkdir() if kind == "folder" else os.mkfifo("field.db")
    for command in (["match", "--dry-run", "--store", "field.db", *frames], ["measure", "field.db"]):
        assert f"field.db: is a {kind}" in skymatch(*command, code=3).output


def test_a_folder_that_is_not_there_is_said_before_any_work(frames):
    said = skymatch("match", "--store", "nowhere/field.db", *frames, code=3).output
    assert "nowhere/field.db: can't be opened for writing" in said


def test_a_store_is_not_made_where_there_is_nothing_to_store(frames):
    for command in (["plan", "--store", "field.db", "nowhere.fits"], ["match", "--store", "field.db", "nowhere.fits"]):
        skymatch(*command, code=3)
    assert not Path("field.db").exists()


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_file_that_is_damaged_anywhere_is_refused_or_gives_the_same(frames, compare):
    """Single bits, at places drawn at random: never another answer, never an unexpected error."""
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--compare", compare)
    right = solution()
    content = Path("field.db").read_bytes()
    rng = random.Random(7)
    refused = 0
    for at in rng.sample(range(len(content)), 150):
        spoilt = bytearray(content)
        spoilt[at] ^= 1 << rng.randrange(8)
        Path("spoilt.db").write_bytes(spoilt)
        done = CliRunner().invoke(main, ["solve", "spoilt.db", "--format", "json"])
        if done.exit_code == 0:
            assert done.stdout_bytes == right
        else:
            refused += 1
            assert done.exit_code == 3, done.output
            assert done.stderr.startswith("skymatch: error: spoilt.db: ")
            assert done.stderr.count("\n") == 1
    assert refused > 20


def test_a_file_that_is_cut_is_refused(measured):
    content = Path("field.db").read_bytes()
    for size in range(1, len(content), 4999):
        Path("cut.db").write_bytes(content[:size])
        assert skymatch("solve", "cut.db", code=3).output.startswith("skymatch: error: cut.db: ")


def swap(table: str, column: str, one: int, other: int) -> None:
    """Exchange what two rows hold, as no bit flip could do it without a trace in SQLite itself."""
    with sqlite3.connect("field.db") as db:
        rows = db.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid").fetchall()
        for (rowid, _), (_, value) in ((rows[one], rows[other]), (rows[other], rows[one])):
            db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
    db.close()


@pytest.mark.parametrize("table", ["headers", "findings"])
@pytest.mark.parametrize("column", ["body", "body, digest", "digest"])
def test_rows_never_stand_for_one_another(measured, table, column):
    for name in column.split(", "):
        swap(table, name, 1, 2)
    assert skymatch("solve", "field.db", code=3).output.startswith("skymatch: error: field.db: is damaged")


@pytest.mark.parametrize("table", ["headers", "overlaps", "polygons", "columns", "facts"])
def test_rows_that_are_missing_are_missed(measured, table):
    with sqlite3.connect("field.db") as db:
        db.execute(f"DELETE FROM {table} WHERE rowid = (SELECT max(rowid) FROM {table})")
    db.close()
    skymatch("measure", "field.db", "--compare", "mesh", code=3)


def test_a_finding_that_is_missing_is_measured_again(measured):
    with sqlite3.connect("field.db") as db:
        db.execute("DELETE FROM findings WHERE rowid = 2")
    db.close()
    assert "1 of 6 images are not measured yet" in skymatch("solve", "field.db", code=3).output
    skymatch("measure", "field.db")
    assert solution() == measured


# --- one process writes, and what ends it loses little


def test_one_process_writes(measured):
    with Store("field.db", write=True):
        line = [sys.executable, "-m", "skymatch_cli"]
        for command in (["measure", "field.db"], ["match", "--dry-run", "--store", "field.db", "img_0.fits"]):
            done = subprocess.run([*line, *command], capture_output=True, text=True, check=False)
            assert done.returncode == 3
            assert "field.db: another run is writing here" in done.stderr


def test_many_processes_read(measured):
    with Store("field.db") as one, Store("field.db") as other:
        assert one.plan().settings == other.plan().settings
        assert solution() == measured


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_may_only_be_read_is_solved(measured):
    Path("field.db").chmod(0o444)
    Path().chmod(0o555)
    try:
        assert solution() == measured
        assert "can't be opened for writing" in skymatch("measure", "field.db", code=3).output
    finally:
        Path().chmod(0o755)


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
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--jobs", "1", *options, code=130)
    Path("again").touch()
    done.clear()
    return done


@pytest.mark.parametrize("options", [(), ("--compare", "mesh"), ("--compare", "mesh", "--model", "plane")])
def test_what_was_found_before_an_interruption_is_used(frames, monkeypatch, options):
    skymatch("plan", "img_*.fits", "--store", "straight.db")
    skymatch("measure", "straight.db", *options)
    done = interrupted_before(monkeypatch, 4, *options)
    skymatch("measure", "field.db", "--jobs", "1", *options)
    assert done == [4, 5]
    assert solution() == solution("straight.db")


def test_twice_interrupted(frames, monkeypatch):
    with monkeypatch.context() as first:
        interrupted_before(first, 2)
    Path("again").unlink()
    done = interrupted_before(monkeypatch, 4)
    skymatch("measure", "field.db", "--jobs", "1")
    assert done == [4, 5]


def test_other_settings_begin_anew(frames, monkeypatch):
    done = interrupted_before(monkeypatch, 4)
    skymatch("measure", "field.db", "--jobs", "1", "--nclip", "2")
    assert done == [0, 1, 2, 3, 4, 5]


def test_another_version_of_the_program_measures_anew(frames, monkeypatch):
    done = interrupted_before(monkeypatch, 4)
    monkeypatch.setattr(keys, "__version__", "0.0.1")
    skymatch("measure", "field.db", "--jobs", "1")
    assert done == [0, 1, 2, 3, 4, 5]


def test_a_run_that_is_killed_at_any_moment_goes_on(tmp_path, monkeypatch):
    """Killed again and again while it measures: each time it goes on, and the result is that of a straight run."""
    monkeypatch.chdir(tmp_path)
    n = 300
    write_all(tmp_path, row([float(k % 7) for k in range(n)], nx=40, ny=12, noise=1.0))
    Path("list.txt").write_text("".join(f"img_{k}.fits\n" for k in range(n)))
    for name in ("field.db", "straight.db"):
        skymatch("plan", "@list.txt", "--store", name)
    script = (
        "import sys; from skymatch_cli.store import findings; findings._COMMIT_S = 0.02;"
        "from skymatch_cli.__main__ import *; from skymatch_cli.cli import main; main()"
    )
    line = [sys.executable, "-c", script, "measure", "field.db", "--jobs", "1", "-q"]
    rng = random.Random(3)
    known = [0]
    for _ in range(6):
        running = subprocess.Popen(line)
        before = known[-1]
        while running.poll() is None and before == committed():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        running.send_signal(signal.SIGKILL)
        running.wait()
        known.append(committed())
        assert known[-1] >= before
        if known[-1] == n:
            break
    assert sum(0 < k < n for k in known) >= 2  # it was hit in the midst
    left = n - known[-1]
    done: list[int] = []
    call = MeshTask.__call__
    monkeypatch.setattr(MeshTask, "__call__", lambda task: done.append(task.image) or call(task))
    skymatch("measure", "field.db", "--jobs", "1")
    assert len(done) == left
    skymatch("measure", "straight.db")
    assert solution() == solution("straight.db")


def committed() -> int:
    """Findings in a copy of the store, as the next run would find them."""
    for suffix in ("", "-journal"):
        Path("copy.db" + suffix).unlink(missing_ok=True)
        if Path("field.db" + suffix).exists():
            try:
                shutil.copy("field.db" + suffix, "copy.db" + suffix)
            except FileNotFoundError:
                continue
    db = sqlite3.connect("copy.db")
    try:
        return int(db.execute("SELECT count(*) FROM findings").fetchone()[0])
    except sqlite3.DatabaseError:
        return -1  # copied while it was written
    finally:
        db.close()


def test_a_plan_that_is_killed_leaves_the_old_one(measured, monkeypatch):
    monkeypatch.setattr(Store, "_put_blocks", lambda *_: os._exit(9))
    write(Path("img_6.fits"), row(SKIES)[0])
    child = os.fork()
    if child == 0:
        main(["plan", "--store", "field.db", "img_*.fits"], standalone_mode=False)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert solution() == measured


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(findings, "_COMMIT_BYTES", 2**15)  # few images reach what is held at most
    write_all(tmp_path, row([float(k) for k in range(240)], nx=40, ny=8))

    def peak(n: int) -> int:
        Path("list.txt").write_text("".join(f"img_{k}.fits\n" for k in range(n)))
        skymatch("plan", "@list.txt", "--store", f"{n}.db")
        tracemalloc.start()
        skymatch("measure", f"{n}.db", "--jobs", "1")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)  # what is imported and cached once
    few, many = peak(120), peak(240)
    assert many - few < 120 * 2500  # bytes; a plan and findings in memory take eight times as much for each image


def test_memory_of_solve_does_not_grow_with_the_cells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(findings, "_IMAGES_KEPT", 4)
    for kept in ("SHEET_BYTES", "SKY_BYTES"):
        monkeypatch.setattr(f"skymatch_cli.compare.mesh.joint.{kept}", 0)
    write_all(tmp_path, row([float(k) for k in range(72)], nx=160, ny=80))

    def peak(n: int) -> tuple[int, int]:
        names = [f"img_{k}.fits" for k in range(n)]
        skymatch("plan", *names, "--store", f"{n}.db")
        skymatch("measure", f"{n}.db")
        tracemalloc.start()
        skymatch("solve", f"{n}.db", "-o", f"{n}.json")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most, Path(f"{n}.db").stat().st_size

    peak(6)  # what is imported and cached once
    (few, small), (many, large) = peak(48), peak(72)
    # The store holds little but cells; where they lie takes a third of that.
    assert many - few < 0.6 * (large - small)


def full(monkeypatch) -> None:
    whole = database.Database.put

    def put(self, table, rows):
        if table != "findings":
            return whole(self, table, rows)
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        with self.explained():
            raise error

    monkeypatch.setattr(database.Database, "put", put)


def test_a_full_disk_is_said_and_what_was_committed_is_kept(frames, monkeypatch):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--shard", "1/2")
    with monkeypatch.context() as patched:
        full(patched)
        said = skymatch("measure", "field.db", code=6).output
    assert said.startswith("skymatch: error: field.db can't be written: database or disk is full")
    assert "3 of 6 images are not measured yet" in skymatch("solve", "field.db", code=3).output


def test_a_full_disk_costs_match_no_result(frames, monkeypatch):
    run = ["match", "--dry-run", "--format", "json", *frames]
    expected = skymatch(*run).stdout
    full(monkeypatch)
    done = skymatch(*run, "--store", "field.db")
    assert done.stdout == expected
    assert "what was measured is not kept: field.db can't be written" in " ".join(done.stderr.split())


def test_a_disk_that_is_full_in_earnest(frames, monkeypatch):
    """The limit of the size of a file stands in for the disk."""
    skymatch("plan", "img_*.fits", "--store", "field.db")
    size = Path("field.db").stat().st_size
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
        "from skymatch_cli.__main__ import *; from skymatch_cli.cli import main; main()"
    )
    line = [sys.executable, "-c", code, "measure", "field.db", "--compare", "mesh", "--jobs", "1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("skymatch: error: field.db can't be written: ")
    skymatch("measure", "field.db", "--compare", "mesh")
    assert solution()


def test_an_open_store_is_not_sent_to_another_process(measured):
    with Store("field.db") as store, pytest.raises(TypeError, match="pickle"):
        pickle.dumps(store.plan())


def test_errors_of_the_store_are_those_of_the_program(measured):
    assert issubclass(InputError, SkymatchError)
    with Store("field.db") as store, pytest.raises(InputError, match="missing"):
        store.span("headers", 0, 99)


# --- standard output


def test_standard_output_gets_the_bytes_of_the_file(frames):
    skymatch("plan", *frames, "-o", "plan.fits")
    line = f"{sys.executable} -m skymatch_cli plan img_*.fits --format fits -q"
    subprocess.run(f"{line} | cat >piped.fits && echo before >>appended && {line} >>appended", shell=True, check=True)
    assert Path("piped.fits").read_bytes() == Path("plan.fits").read_bytes()
    assert Path("appended").read_bytes() == b"before\n" + Path("plan.fits").read_bytes()
