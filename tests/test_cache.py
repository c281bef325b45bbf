"""``match --cache``: what was measured is kept, and the result is that of a run without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.io import fits
from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.measure import PooledTask
from skymatch_cli.measure_mesh import MeshTask

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


def match(*options: str, cache: bool = True) -> bytes:
    kept = ["--cache", "kept"] if cache else []
    done = CliRunner().invoke(main, ["match", *kept, "--jobs", "1", "--format", "json", *options, "img_*.fits"])
    assert done.exit_code == 0, done.output
    return done.stdout_bytes


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


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_a_new_image_is_measured_and_its_neighbour_in_their_overlap(folder, measured, compare):
    match("--dry-run", "--compare", compare)
    measured.clear()
    write(folder / "img_4.fits", Frame(x=120.0, sky=70.0, noise=1.0, seed=9))
    second = match("--dry-run", "--compare", compare)
    assert measured == [3, 4]
    assert second == match("--dry-run", "--compare", compare, cache=False)


def test_an_image_that_is_gone_is_forgotten(folder, measured):
    match("--dry-run")
    Path("img_3.fits").unlink()
    assert match("--dry-run") == match("--dry-run", cache=False)


def test_a_file_that_changed_is_measured_again(folder, measured):
    match("--dry-run")
    measured.clear()
    with fits.open("img_1.fits", mode="update") as hdus:
        hdus[0].data += 5
    assert match("--dry-run") == match("--dry-run", cache=False)
    assert 1 in measured


@pytest.mark.parametrize("option", [("--nclip", "2"), ("--skystat", "mean"), ("--lower", "3"), ("--ignore-value", "0")])
def test_other_settings_measure_again(folder, measured, option):
    match("--dry-run")
    measured.clear()
    assert match("--dry-run", *option) == match("--dry-run", *option, cache=False)
    assert len(measured) == 8


def test_settings_of_the_solution_dont(folder, measured):
    match("--dry-run")
    measured.clear()
    match("--dry-run", "--match-up", "--max-residual", "3")
    assert measured == []


def test_a_spoiled_cache_is_measured_anew_with_a_warning(folder, measured):
    first = match("--dry-run")
    Path("kept/measured.fits").write_bytes(b"spoiled")
    assert match("--dry-run") == first
    assert len(measured) == 8


def test_a_cache_that_is_a_file_is_refused(folder):
    Path("kept").touch()
    done = CliRunner().invoke(main, ["match", "--cache", "kept", "--dry-run", "img_*.fits"])
    assert done.exit_code == 2
    assert "--cache kept" in done.output
