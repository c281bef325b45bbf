"""``match --store``: what was measured is kept, and the result is that of a run without a store."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.compare.meshed import MeshTask
from skymatch_cli.compare.pooled import PooledTask

from .factories import Frame, row, write, write_all


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """The images that were measured, one by one."""
    done: list[int] = []
    for kind in (PooledTask, MeshTask):

        def counted(task, call=kind.__call__):
            done.append(task.image)
            return call(task)

        monkeypatch.setattr(kind, "__call__", counted)
    return done


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row([10.0, 50.0, 30.0, 20.0], noise=1.0))
    return tmp_path


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The files whose headers were read."""
    from skymatch_cli.images import image, inputs

    done: list[str] = []
    structure, header = inputs.read_structure, image.parse_header

    def counted(path, where):
        done.append(where)
        return structure(path, where)

    def parsed(stream, hdu):
        done.append("header")
        return header(stream, hdu)

    monkeypatch.setattr(inputs, "read_structure", counted)
    monkeypatch.setattr(image, "parse_header", parsed)
    return done


def match(*options: str, store: bool = True) -> bytes:
    kept = ["--store", "kept.db"] if store else []
    done = CliRunner().invoke(main, ["match", *kept, "--jobs", "1", "--format", "json", *options, "img_*.fits"])
    assert done.exit_code == 0, done.output
    return done.stdout_bytes


def test_a_second_run_says_why_the_degree_of_the_model_was_chosen(folder, measured):
    args = ["match", "--store", "kept.db", "--dry-run", "--model", "auto", "img_*.fits"]
    first, second = (CliRunner().invoke(main, args).stderr for _ in range(2))
    assert len(measured) == 4
    assert "degree 0 of --model auto" in first
    assert second == first


@pytest.mark.parametrize("options", [(), ("--compare", "mesh"), ("--method", "globalmin+match")])
def test_a_second_run_measures_nothing(folder, measured, options):
    first = match("--dry-run", *options)
    assert measured == [0, 1, 2, 3]
    assert match("--dry-run", *options) == first
    assert measured == [0, 1, 2, 3]


def test_recording_the_skies_leaves_nothing_to_measure(folder, measured):
    first = match()
    assert fits.getval("img_1.fits", "BKGLEVEL") > 30
    assert match() == first
    assert len(measured) == 4


def test_subtracting_them_neither(folder, measured):
    first = match("--subtract")
    assert match("--subtract") == first
    assert len(measured) == 4


@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_the_plan_of_files_as_they_were_gives_no_other_skies(tmp_path, monkeypatch, dtype):
    """Subtracted pixels are not taken for original ones: the plan must be made again, with the sky in the header."""
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row([10.0, 50.0, 30.0, 20.0], noise=1.0, dtype=dtype))
    match("--subtract")
    run = CliRunner().invoke
    again = ["measure", "kept.db", "--compare", "pooled", "--skystat", "mean"]
    refused = run(main, again)
    assert refused.exit_code == 3
    assert "changed while it was in use, or since its plan was made" in refused.stderr
    assert "(run again; if a store has its plan, from skymatch plan on)" in refused.stderr
    assert run(main, ["plan", "--store", "kept.db", "img_*.fits"]).exit_code == 0
    assert run(main, again).exit_code == 0
    found = json.loads(run(main, ["solve", "kept.db", "--format", "json"]).stdout)
    np.testing.assert_allclose([image["sky"] for image in found["images"]], [0, 40, 20, 10], atol=0.3)


def test_steps_go_on_after_recorded_skies_once_the_files_are_planned_again(folder):
    found = json.loads(match("--skystat", "mean", "--compare", "pooled"))
    run = CliRunner().invoke
    refused = run(main, ["measure", "kept.db"])
    assert refused.exit_code == 3
    assert "from skymatch plan on" in refused.stderr
    solved = run(main, ["solve", "kept.db", "--format", "json"])  # what was measured is still there
    assert json.loads(solved.stdout)["images"] == found["images"]
    for line in (
        ["plan", "--store", "kept.db", *sorted(map(str, Path().glob("img_*.fits")))],
        ["measure", "kept.db"],
        ["solve", "kept.db", "--match-up", "-o", "up.fits"],
        ["apply", "up.fits", "--subtract"],
    ):
        done = run(main, line)
        assert done.exit_code == 0, done.stderr


def test_a_store_does_not_grow_with_every_subtraction(folder):
    def rows() -> int:
        with sqlite3.connect("kept.db") as db:
            return int(db.execute("SELECT count(*) FROM findings").fetchone()[0])

    counts = []
    for _ in range(3):
        match("--subtract")
        counts.append(rows())
        assert CliRunner().invoke(main, ["undo", *sorted(map(str, Path().glob("img_*.fits")))]).exit_code == 0
    assert counts[1] == counts[2] == counts[0]


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_new_image_is_measured_and_its_neighbour_in_their_overlap(folder, measured, compare):
    match("--dry-run", "--compare", compare)
    measured.clear()
    write(folder / "img_4.fits", Frame(x=120.0, sky=70.0, noise=1.0, seed=9))
    second = match("--dry-run", "--compare", compare)
    assert measured == [3, 4]
    assert second == match("--dry-run", "--compare", compare, store=False)


def test_another_file_of_the_same_size_and_time_is_measured(folder, measured):
    first = match("--dry-run")
    measured.clear()
    kept = Path("img_1.fits").stat()
    write(folder / "other.fits", Frame(x=30.0, sky=77.0, noise=1.0, seed=5))
    os.utime("other.fits", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert Path("other.fits").stat().st_size == kept.st_size
    Path("other.fits").replace("img_1.fits")
    second = match("--dry-run")
    assert 1 in measured
    assert second == match("--dry-run", store=False) != first


def test_an_image_that_is_gone_is_forgotten(folder, measured):
    match("--dry-run")
    Path("img_3.fits").unlink()
    assert match("--dry-run") == match("--dry-run", store=False)


def test_a_file_that_changed_is_measured_again(folder, measured):
    match("--dry-run")
    measured.clear()
    with fits.open("img_1.fits", mode="update") as hdus:
        hdus[0].data += 5
    assert match("--dry-run") == match("--dry-run", store=False)
    assert 1 in measured


@pytest.mark.parametrize("option", [("--nclip", "2"), ("--skystat", "mean"), ("--lower", "3"), ("--ignore-value", "0")])
def test_other_settings_measure_again(folder, measured, option):
    match("--dry-run")
    measured.clear()
    assert match("--dry-run", *option) == match("--dry-run", *option, store=False)
    assert len(measured) == 8


def test_settings_of_the_solution_dont(folder, measured):
    match("--dry-run")
    measured.clear()
    match("--dry-run", "--match-up", "--max-residual", "3", "--max-step", "5")
    assert measured == []


def test_headers_are_read_once(folder, opened):
    first = match("--dry-run")
    assert len(opened) == 8
    assert match("--dry-run") == first
    assert len(opened) == 8


def test_headers_of_new_and_changed_files_are_read(folder, opened):
    match("--dry-run")
    opened.clear()
    write(folder / "img_4.fits", Frame(x=120.0, sky=70.0, noise=1.0, seed=9))
    fits.setval("img_1.fits", "EXPTIME", value=2.0)
    Path("img_3.fits").unlink()
    second = match("--dry-run")
    assert opened == ["img_1.fits", "img_4.fits", "header", "header"]
    assert second == match("--dry-run", store=False)


@pytest.mark.parametrize("option", ["--group-by=EXPNAME", "--exptime-key=XPOSURE", "--units=as-is", "--dqbits=none"])
def test_other_settings_read_headers_again(tmp_path, monkeypatch, opened, option):
    monkeypatch.chdir(tmp_path)
    header = {"BUNIT": "electron", "EXPTIME": 1.0, "XPOSURE": 3.0, "EXPNAME": "one"}
    write_all(tmp_path, [f.but(header=header | {"EXPNAME": f"e{k}"}) for k, f in enumerate(row([10.0, 50.0]))])
    match("--dry-run")
    opened.clear()
    assert match("--dry-run", option) == match("--dry-run", option, store=False)
    assert opened.count("header") == 4


def test_a_mask_of_another_shape_is_seen(folder):
    fits.PrimaryHDU(np.ones((40, 40), np.uint8)).writeto("mask.fits")
    match("--dry-run", "--mask", "mask.fits")
    fits.PrimaryHDU(np.ones((41, 40), np.uint8)).writeto("mask.fits", overwrite=True)
    command = ["match", "--store", "kept.db", "--dry-run", "--mask", "mask.fits", "img_*.fits"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 3
    assert "its mask mask.fits is 40 × 41 pixels" in done.output


@pytest.mark.parametrize("option", ["--mask", "--weight"])
def test_pixels_are_measured_again_where_a_plane_beside_them_changed(folder, measured, option):
    good = np.ones((40, 40), np.float32)
    fits.PrimaryHDU(good).writeto("good.fits")
    match("--dry-run", option, "good.fits")
    measured.clear()
    good[:, 38:] = 0
    fits.PrimaryHDU(good).writeto("good.fits", overwrite=True)
    assert match("--dry-run", option, "good.fits") == match("--dry-run", option, "good.fits", store=False)
    assert measured[:4] == [0, 1, 2, 3]


def test_units_and_warnings_are_those_of_a_run_without_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = row([10.0, 50.0, 30.0])
    headers = [{"BUNIT": "DN", "EXPTIME": 1.0 + k, "FILTER": "gr"[k % 2]} for k in range(3)]
    write_all(tmp_path, [f.but(header=h, scale=1.0 + k) for k, (f, h) in enumerate(zip(frames, headers, strict=True))])
    fresh = match("--dry-run", store=False)
    assert b"FILTER" in fresh
    assert match("--dry-run") == match("--dry-run") == fresh


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_run_with_nothing_new_writes_nothing_into_the_store(folder, compare):
    match("--dry-run", "--compare", compare)
    before = Path("kept.db").read_bytes()
    match("--dry-run", "--compare", compare)
    assert Path("kept.db").read_bytes() == before


@pytest.mark.parametrize(
    ("compare", "order"), [("pooled", (2, 0, 3, 1)), ("mesh", (2, 0, 3, 1)), ("pooled", (2, 1)), ("pooled", (3, 2, 1))]
)
def test_images_in_another_order_or_fewer_are_found_again(folder, measured, compare, order):
    match("--dry-run", "--compare", compare)
    measured.clear()
    command = ["match", "--dry-run", "--jobs", "1", "--format", "json", "--compare", compare]
    command += [f"img_{k}.fits" for k in order]
    again = CliRunner().invoke(main, [*command, "--store", "kept.db"])
    assert measured == []
    assert again.stdout_bytes == CliRunner().invoke(main, command).stdout_bytes


def test_a_link_that_leads_to_another_file_of_the_same_size_and_time_is_read_anew(folder):
    for k in (0, 1):
        (folder / f"link_{k}.fits").symlink_to(f"img_{k}.fits")
        os.utime(folder / f"img_{k}.fits", (10**9, 10**9))
    run = ["match", "--dry-run", "--format", "json", "link_0.fits", "link_1.fits", "img_2.fits"]
    CliRunner().invoke(main, [*run, "--store", "kept.db"], catch_exceptions=False)
    for k in (0, 1):
        (folder / f"link_{k}.fits").unlink()
        (folder / f"link_{k}.fits").symlink_to(f"img_{1 - k}.fits")
    kept = CliRunner().invoke(main, [*run, "--store", "kept.db"], catch_exceptions=False)
    fresh = CliRunner().invoke(main, run, catch_exceptions=False)
    assert kept.exit_code == 0
    assert kept.stdout == fresh.stdout


@pytest.fixture
def compared(monkeypatch) -> list[str]:
    """How often overlaps were intersected, and their measurements put together."""
    from skymatch_cli.store import measuring, planning

    done: list[str] = []
    for module, name in ((measuring, "assemble"), (planning, "overlap_graph")):
        call = getattr(module, name)

        def counted(*given, name=name, call=call):
            done.append(name)
            return call(*given)

        monkeypatch.setattr(module, name, counted)
    return done


@pytest.mark.parametrize(
    "options", [["pooled"], ["mesh"], ["mesh", "--model", "plane"], ["pooled", "--method", "localmin"]]
)
def test_overlaps_are_found_and_compared_once(folder, compared, options):
    first = match("--compare", *options)  # which changes the headers
    assert compared == ["overlap_graph", "assemble"]
    match("--compare", *options)
    assert match("--dry-run", "--compare", *options) == first
    assert compared.count("assemble") == 1
    assert compared.count("overlap_graph") == 2  # a file that changed may lie somewhere else


@pytest.mark.parametrize("option", [("--group-by", "BUNIT"), ("--lower", "0"), ("--compare", "mesh")])
def test_other_groups_and_limits_are_compared_again(folder, compared, option):
    common = ("--dry-run", "--method", "localmin", "--compare", "pooled")
    match(*common)
    assert match(*common, *option) == match(*common, *option, store=False)
    assert compared.count("assemble") == 3
