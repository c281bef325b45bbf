"""Every FITS file that the program writes beside images is valid (images: see `test_kinds`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from skymatch_cli.cli import main

from .factories import row, write_all
from .valid import assert_valid

LEVELS = (100.0, 107.0, 90.0)


def run(*args: str) -> None:
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.stderr


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, row(LEVELS, noise=1.0))
    return [f"img_{k}.fits" for k in range(len(LEVELS))]


@pytest.mark.parametrize("compare", ["pooled", "mesh"])
def test_files_between_the_steps(images: list[str], compare: str) -> None:
    run("plan", "-o", "plan.fits", *images)
    run("plan", "--store", "field.db", *images)
    run("measure", "field.db", "--compare", compare)
    run("solve", "field.db", "-o", "solution.fits")
    run("match", "--dry-run", "--compare", compare, "-o", "result.fits", *images)
    for name in ("plan.fits", "solution.fits", "result.fits"):
        assert_valid(Path(name))


def test_a_result_without_overlaps_and_with_warnings(images: list[str]) -> None:
    run("match", "--dry-run", "--method", "localmin", "-o", "result.fits", images[0])
    run("match", "--dry-run", "-o", "parts.fits", "--lower", "95", *images)
    for name in ("result.fits", "parts.fits"):
        assert_valid(Path(name))


def test_the_images_of_the_demo(tmp_path: Path) -> None:
    run("demo", str(tmp_path / "demo"))
    found = sorted((tmp_path / "demo").rglob("*.fits"))
    assert len(found) > 3
    for path in found:
        assert_valid(path)
