"""The pipeline in steps, through the command line: the result is that of ``match``, to the byte."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from .commands import skymatch
from .factories import Frame, row, write, write_all

SKIES = (10.0, 50.0, 30.0, 20.0)


def measured(*options: object) -> None:
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", *options)


@pytest.mark.parametrize(
    ("measuring", "solving"),
    [
        ([], []),
        ([], ["--method", "globalmin+match"]),
        ([], ["--method", "localmin"]),
        ([], ["--reference", "img_2.fits"]),
        (["--compare", "mesh"], []),
        (["--compare", "mesh", "--model", "plane"], []),
        (["--skystat", "mean", "--nclip", "3"], ["--match-up", "--max-residual", "3"]),
    ],
)
def test_the_steps_give_the_bytes_of_match(frames, measuring, solving):
    skymatch("match", "--dry-run", "-o", "match.json", *measuring, *solving, "img_*.fits")
    measured(*measuring)
    skymatch("solve", "field.db", "-o", "steps.json", *solving)
    assert Path("steps.json").read_bytes() == Path("match.json").read_bytes()


def test_a_plan_with_groups_and_units_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, frame in enumerate(row(SKIES)):
        header = {"BUNIT": "electron", "EXPTIME": 1.0 + k, "EXPNAME": f"e{k // 2}"}
        dq = np.zeros((40, 40), np.int16)
        dq[:4] = 1
        write(tmp_path / f"img_{k}.fits", frame.but(header=header, noise=1.0), dq=dq)
    planning = ["--group-by", "EXPNAME"]
    skymatch("match", "--dry-run", "-o", "match.json", *planning, "img_*.fits")
    skymatch("plan", *planning, "--store", "field.db", "img_*.fits")
    skymatch("measure", "field.db")
    skymatch("solve", "field.db", "-o", "steps.json")
    assert Path("steps.json").read_bytes() == Path("match.json").read_bytes()


def test_a_strict_solution_says_what_became_of_itself(frames):
    write(Path("img_9.fits"), Frame(x=900, sky=1.0))
    measured()
    done = skymatch("solve", "field.db", "-o", "sky.json", "--strict", code=5)
    assert "the solution was written all the same" in done.stderr
    assert "no image" not in done.stderr
    assert Path("sky.json").exists()
    done = skymatch("solve", "field.db", "--strict", code=5)
    assert "no file was written" in done.stderr
    assert "written all the same" not in done.stderr


def solution(store: str = "field.db", *options: object) -> bytes:
    skymatch("solve", store, "-o", "solved.json", "--overwrite", *options)
    return Path("solved.json").read_bytes()


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_shards_are_merged_in_any_order(frames, compare):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    plain = Path("field.db").read_bytes()
    for k in (1, 2, 3):
        skymatch("measure", "field.db", "-o", f"part{k}.db", "--shard", f"{k}/3", "--compare", compare)
    assert Path("field.db").read_bytes() == plain  # it is only read
    assert "4 of 4" in skymatch("merge", "field.db", "part3.db", "part1.db", "part2.db").output
    merged = solution()
    skymatch("plan", "img_*.fits", "--store", "other.db")
    skymatch("measure", "other.db", "--compare", compare)
    assert solution("other.db") == merged


def test_a_part_is_measured_once(frames, monkeypatch):
    from skymatch_cli.compare.pooled import PooledTask

    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--shard", "1/2", "-o", "part.db")
    monkeypatch.setattr(PooledTask, "__call__", None)
    skymatch("measure", "field.db", "--shard", "1/2", "-o", "part.db")


def test_shards_may_be_measured_into_the_store_one_after_the_other(frames):
    measured("--shard", "1/2")
    assert "2 of 4 images are not measured yet" in skymatch("solve", "field.db", code=3).output
    assert "4 of 4" in skymatch("measure", "field.db", "--shard", "2/2").output
    assert solution()


def test_a_measurement_that_lacks_images_is_not_solved(frames):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--shard", "1/2", "-o", "part.db")
    skymatch("merge", "field.db", "part.db")
    assert "2 of 4 images are not measured yet" in skymatch("solve", "field.db", code=3).output


def test_a_part_is_not_solved_and_not_measured(frames):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--shard", "1/2", "-o", "part.db")
    for command in ("solve", "measure"):
        assert "is a part of a measurement: it has no plan" in skymatch(command, "part.db", code=3).output


def test_parts_of_different_measurements_are_not_merged(frames):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "-o", "one.db", "--shard", "1/2")
    skymatch("measure", "field.db", "-o", "other.db", "--shard", "2/2", "--nclip", "2")
    before = Path("field.db").read_bytes()
    assert (
        "other.db: was measured with other settings than one.db"
        in skymatch("merge", "field.db", "one.db", "other.db", code=3).output
    )
    assert Path("field.db").read_bytes() == before


def test_parts_of_another_plan_are_not_merged(frames):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("plan", *frames[:3], "--store", "few.db")
    skymatch("measure", "few.db", "-o", "part.db", "--shard", "1/2")
    assert "part.db: is not of the plan in field.db" in skymatch("merge", "field.db", "part.db", code=3).output
    skymatch("plan", *frames[:3], "--store", "field.db")
    skymatch("merge", "field.db", "part.db")  # now it is
    fits.setval(frames[0], "OBSERVER", value="someone else")
    skymatch("plan", *frames[:3], "--store", "field.db")
    assert "part.db: is not of the plan in field.db" in skymatch("merge", "field.db", "part.db", code=3).output
    assert "few.db: is not a part of a measurement" in skymatch("merge", "field.db", "few.db", code=3).output


def test_a_store_is_not_a_part_of_itself(frames):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    said = skymatch("merge", "field.db", "./field.db", code=3).output
    assert "./field.db: is named twice: as the store, and as a part" in said


def test_a_store_with_a_plan_does_not_become_a_part(frames):
    for name in ("field.db", "other.db"):
        skymatch("plan", "img_*.fits", "--store", name)
    assert "other.db: holds a plan" in skymatch("measure", "field.db", "-o", "other.db", code=3).output


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_makes_no_sense_is_refused(frames, shard):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    assert "--shard" in skymatch("measure", "field.db", "-o", "part.db", "--shard", shard, code=2).output
    assert not Path("part.db").exists()


def test_what_an_earlier_step_decided_is_not_changed_later(frames):
    Path("other.toml").write_text("nclip = 2\n")
    measured()
    said = skymatch("solve", "field.db", "--config", "other.toml", code=2).output
    assert "--nclip: was set to 5 in an earlier step" in said


def test_apply_records_and_subtracts_what_match_does(frames, tmp_path):
    measured()
    skymatch("solve", "field.db", "-o", "solution.fits")
    skymatch("match", "--subtract", "--output-dir", "by_match", "img_*.fits", "-o", "by_match.json")
    for k in (1, 2):
        skymatch("apply", "solution.fits", "--subtract", "--output-dir", "by_steps", "--shard", f"{k}/2")
    for name in frames:
        assert Path("by_steps", name).read_bytes() == Path("by_match", name).read_bytes()


def test_an_interrupted_apply_is_finished_by_running_it_again(frames):
    measured()
    skymatch("solve", "field.db", "-o", "solution.fits")
    skymatch("apply", "solution.fits", "--shard", "1/2")
    skymatch("apply", "solution.fits")
    assert "4 images already as wanted" in skymatch("apply", "solution.fits").output
    assert all("BKGLEVEL" in fits.getheader(name) for name in frames)


def test_a_file_that_changed_since_it_was_measured_is_refused(frames):
    measured()
    skymatch("solve", "field.db", "-o", "solution.fits")
    fits.setval(frames[1], "OBSERVER", value="someone else")
    assert "was changed since it was measured" in skymatch("apply", "solution.fits", code=3).output
    assert "BKGLEVEL" not in fits.getheader(frames[0])


def test_what_match_wrote_can_be_applied(frames):
    skymatch("match", "--dry-run", "-o", "solution.fits", "img_*.fits")
    assert "recorded BKGLEVEL in 4 images" in skymatch("apply", "solution.fits").output


@pytest.fixture
def done(monkeypatch) -> list[tuple[int, list[int]]]:
    """The images that are measured, with the overlaps in which they are."""
    from skymatch_cli.compare.pooled import PooledTask

    done: list[tuple[int, list[int]]] = []
    call = PooledTask.__call__

    def counted(task):
        done.append((task.image, task.pairs.tolist()))
        return call(task)

    monkeypatch.setattr(PooledTask, "__call__", counted)
    return done


def test_only_new_images_and_their_overlaps_are_measured(frames, done):
    measured("--compare", "pooled")
    write(Path("img_4.fits"), Frame(x=120.0, sky=70.0, noise=1.0, seed=9))
    done.clear()
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--compare", "pooled")
    assert sorted(done) == [(3, [3]), (4, [3])]
    updated = solution()
    Path("field.db").unlink()
    measured("--compare", "pooled")
    assert solution() == updated


def test_a_new_image_that_comes_first_changes_no_other_one(frames, done):
    measured("--compare", "pooled")
    write(Path("a_new.fits"), Frame(x=-30.0, sky=70.0, noise=1.0, seed=9))  # it overlaps the first
    done.clear()
    skymatch("plan", "a_new.fits", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--compare", "pooled")
    assert sorted(done) == [(0, [0]), (1, [0])]
    updated = solution()
    Path("field.db").unlink()
    skymatch("plan", "a_new.fits", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--compare", "pooled")
    assert solution() == updated


@pytest.mark.parametrize(
    "images",
    ["img_0 img_1 img_2 img_3 last", "first img_0 img_1 img_2 img_3", "img_0 img_2", "img_0 img_3 img_1 img_2", "last"],
)
@pytest.mark.parametrize("exptime", [1.0, 4.0])
def test_a_plan_made_again_is_a_fresh_plan(tmp_path, monkeypatch, images, exptime):
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, [frame.but(header={"BUNIT": "DN", "EXPTIME": 1.0}) for frame in row([10.0, 50.0, 30.0, 20.0])])
    for name, x in (("first", -30.0), ("last", 120.0)):
        write(Path(f"{name}.fits"), Frame(x=x, sky=70.0, noise=1.0, seed=9, header={"BUNIT": "DN", "EXPTIME": exptime}))
    named = [f"{name}.fits" for name in images.split()]
    skymatch("plan", "img_*.fits", "--store", "again.db")
    skymatch("plan", *named, "--store", "again.db", "-o", "again.fits")
    skymatch("plan", *named, "--store", "fresh.db", "-o", "fresh.fits")
    assert Path("again.fits").read_bytes() == Path("fresh.fits").read_bytes()
    tables = "facts", "files", "headers", "columns", "overlaps", "polygons"
    again, fresh = (
        [list(db.execute(f"SELECT * FROM {table} ORDER BY k")) for table in tables]
        for db in map(sqlite3.connect, ("again.db", "fresh.db"))
    )
    assert again == fresh


def test_the_plan_of_the_same_images_leaves_the_store_as_it_is(frames):
    measured()
    before = Path("field.db").read_bytes()
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db")
    skymatch("solve", "field.db")
    assert Path("field.db").read_bytes() == before


def test_both_ways_of_comparing_are_kept(frames, done):
    measured("--compare", "pooled")
    pooled = solution()
    skymatch("measure", "field.db", "--compare", "mesh")
    assert solution() != pooled
    done.clear()
    skymatch("measure", "field.db", "--compare", "pooled")
    assert solution() == pooled
    assert done == []


def test_what_match_measured_is_solved(frames):
    skymatch("match", "--dry-run", "--store", "field.db", "img_*.fits", "-o", "match.json", "--match-up")
    skymatch("match", "--dry-run", "img_*.fits", "-o", "plain.json")
    assert solution() == Path("plain.json").read_bytes()
    said = skymatch("solve", "field.db", "--method", "localmin", code=3).output
    assert "4 of 4 images are not measured yet, or not their own skies" in said
    assert "run skymatch measure field.db" in said
    skymatch("measure", "field.db")
    assert solution("field.db", "--method", "localmin")


def test_estimated_errors_are_called_so(frames, monkeypatch):
    from skymatch_cli.solve import laplacian, leastsquares

    measured()
    said = skymatch("solve", "field.db", "-o", "exact.fits").output
    assert "estimated" not in said
    monkeypatch.setattr(laplacian, "MAX_EXACT", 3)
    monkeypatch.setattr(leastsquares, "_ALL_PAIRS", 1)
    assert "sky_err is estimated" in skymatch("solve", "field.db", "-o", "estimated.fits").output
    assert "estimated" in skymatch("match", "--dry-run", "-o", "m.fits", "img_*.fits").output
    for file, word in {"exact.fits": "1-sigma error", "estimated.fits": "Estimate of the 1-sigma error"}.items():
        header = fits.getheader(file, "IMAGES")
        key = next(key for key, value in header["TTYPE*"].items() if value == "sky_err")
        assert header[f"TCOMM{key[5:]}"].startswith(word)


def test_an_interrupted_measurement_goes_on(frames, monkeypatch):
    from skymatch_cli.compare.pooled import PooledTask

    call, done = PooledTask.__call__, []

    def interrupted(task):
        if task.image == 2 and not Path("again").exists():
            raise KeyboardInterrupt
        done.append(task.image)
        return call(task)

    monkeypatch.setattr(PooledTask, "__call__", interrupted)
    skymatch("plan", "img_*.fits", "--store", "field.db")
    skymatch("measure", "field.db", "--compare", "pooled", "--jobs", "1", code=130)
    Path("again").touch()
    skymatch("measure", "field.db", "--compare", "pooled")
    assert done[:2] == [0, 1]
    assert sorted(done) == [0, 1, 2, 3]  # each once


def test_a_bad_file_is_named_and_what_was_measured_is_kept(frames, done):
    skymatch("plan", "img_*.fits", "--store", "field.db")
    good = Path(frames[1]).read_bytes()
    Path(frames[1]).write_bytes(good[:3000])
    assert "img_1.fits" in skymatch("measure", "field.db", "--compare", "pooled", code=3).output
    assert "1 of 4 images are not measured yet" in skymatch("solve", "field.db", code=3).output
    done.clear()
    said = skymatch("measure", "field.db", "--compare", "pooled", "--skip-bad").output
    assert [image for image, _ in done] == [1]
    assert "img_1.fits" in said
    assert "4 of 4 images are measured" in said
    assert "img_1.fits" in skymatch("solve", "field.db").output


def test_the_tables_open_in_astropy(frames):
    measured()
    skymatch("plan", "img_*.fits", "-o", "plan.fits")
    skymatch("solve", "field.db", "-o", "solution.fits")
    for file in ("plan.fits", "solution.fits"):
        for name in ("IMAGES", "OVERLAPS", "COMPONENTS"):
            assert len(Table.read(file, hdu=name))


@pytest.mark.parametrize("command", ["measure", "merge", "solve", "apply"])
@pytest.mark.parametrize("content", [b"", b"no FITS", b"SIMPLE  =                    T"])
def test_another_file_is_refused_with_a_hint(frames, command, content):
    Path("strange.fits").write_bytes(content)
    for file in ("strange.fits", "img_0.fits", "nowhere.fits"):
        more = ["part.db"] if command == "merge" else []
        said = skymatch(command, file, *more, code=3).output
        assert file in said
        assert "Traceback" not in said
        assert said.count("\n") == 1


def test_a_solution_whose_skies_were_changed_is_not_applied(frames):
    skymatch("match", "--dry-run", "-o", "solution.fits", "img_*.fits")
    with fits.open("solution.fits", mode="update") as hdus:
        hdus["IMAGES"].data["sky"][1] += 1
    assert "its column sky was changed" in skymatch("apply", "solution.fits", code=3).output
    skymatch("match", "--dry-run", "-o", "solution.fits", "--overwrite", "img_*.fits")
    content = bytearray(Path("solution.fits").read_bytes())
    at = content.index(b"EXTNAME = 'SKYMATCH") + 2880
    content[at] ^= 4
    Path("solution.fits").write_bytes(content)
    assert "solution.fits: is damaged" in skymatch("apply", "solution.fits", code=3).output


def test_many_images_with_few_open_files(tmp_path):
    write_all(tmp_path, row([float(k) for k in range(60)], nx=40, ny=8))
    script = "skymatch plan --store f.db 'img_*.fits' && skymatch measure f.db && skymatch solve f.db"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard)),
    )
    assert done.returncode == 0, done.stderr
