"""Runs under poor conditions: few descriptors, closed streams, no folder for temporary files, odd dates of files."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .crash.fileset import contents
from .factories import row, write_all

# without the right of root to read everything
AS_ANYBODY = "" if os.geteuid() else "setpriv --bounding-set=-dac_override,-dac_read_search"
SKYMATCH = f"{shlex.quote(sys.executable)} -m skymatch_cli"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    write_all(tmp_path / "in", row([10.0, 30.0]))
    return tmp_path / "in"


def shell(command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", command], capture_output=True, check=False)


@pytest.mark.parametrize(
    "conditions",
    [
        "ulimit -n 20; {}",
        "{} <&-",
        "{} >&- 2>&- <&-",
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {}",
        "TMPDIR=/nonexistent {}",
        "{} 2>/dev/full",
        "touch -d 1969-12-01 in/img_0.fits; touch -d 2100-01-01 in/img_1.fits; {}",
        pytest.param(f"mkdir -m 000 home; HOME=$PWD/home {AS_ANYBODY} {{}}", id="a home that can't be read"),
    ],
)
def test_a_run_and_undo_give_the_pixels_back(images: Path, conditions: str) -> None:
    before = contents(images)
    done = shell(conditions.format(f"{SKYMATCH} match --subtract in/*.fits"))
    assert done.returncode == 0, done.stderr
    assert contents(images) != before
    assert shell(f"{SKYMATCH} undo in/*.fits").returncode == 0
    assert contents(images) == before


def test_a_limit_of_the_size_of_files_leaves_them_as_they_are(images: Path) -> None:
    before = contents(images)
    done = shell(f"ulimit -f 8; {SKYMATCH} match --subtract in/*.fits")
    assert done.returncode in {3, 6}  # 6: the journal, before the first image
    assert b"can't be written" in done.stderr
    assert b"Traceback" not in done.stderr
    assert contents(images) == before


def test_a_folder_that_was_removed_meanwhile_does_not_matter(images: Path) -> None:
    done = shell(f"mkdir gone; cd gone; rmdir ../gone; {SKYMATCH} match {images}/*.fits")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("planted", ["link", "folder"])
def test_what_is_in_the_way_of_a_new_file_is_named_and_left_alone(images: Path, planted: str) -> None:
    way = images / ".img_0.fits.skymatch-tmp"
    Path("precious").write_text("precious")
    way.symlink_to("../precious") if planted == "link" else way.mkdir()
    before = {path.name: path.read_bytes() for path in images.glob("*.fits")}
    done = shell(f"{SKYMATCH} match in/*.fits")
    assert done.returncode == 3
    assert b".img_0.fits.skymatch-tmp: is in the way of a new file" in done.stderr
    assert Path("precious").read_text() == "precious"
    assert {path.name: path.read_bytes() for path in images.glob("*.fits")} == before
    assert os.path.lexists(way)
