"""Every example is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits

from skymatch_cli.demo import write_demo

EXAMPLES = Path(__file__).parents[1] / "examples"
M17 = sorted(Path(os.environ.get("SKYMATCH_DATA", "nowhere")).glob("m17_2mass_k/*.fits.gz"))
BIN = Path(sys.executable).parent


def run(*command: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    return list(write_demo(tmp_path / "raw"))


def test_the_session(tmp_path):
    done = run("sh", EXAMPLES / "session.sh", "session", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "session" / "skies.csv").read_text().count("\n") == 7
    assert "BKGLEVEL" not in fits.getheader(tmp_path / "session" / "frame_00.fits", "SCI")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_writes_subtracted_copies_and_the_table_once(tmp_path, frames):
    recipe = ("make", "-f", EXAMPLES / "Makefile")
    assert run(*recipe, cwd=tmp_path).returncode == 0
    assert fits.getheader(tmp_path / "matched" / "frame_01.fits", "SCI")["BKGSUB"] is True
    assert "BKGSUB" not in fits.getheader(frames[1], "SCI")
    assert (tmp_path / "matched" / "sky.ecsv").exists()
    again = run(*recipe, cwd=tmp_path)
    assert "Nothing to be done" in again.stdout
    assert "frame_00" in run(*recipe, "report", cwd=tmp_path).stdout
    (tmp_path / "matched" / "frame_02.fits").unlink()
    assert run(*recipe, cwd=tmp_path).returncode == 0
    assert (tmp_path / "matched" / "frame_02.fits").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_says_that_there_is_nothing_to_match_and_quotes_names(tmp_path, frames):
    recipe = ("make", "-f", EXAMPLES / "Makefile")
    nothing = run(*recipe, "EXPOSURES=nowhere/*.fits", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "no exposure matches EXPOSURES = nowhere/*.fits" in nothing.stderr
    frames[0].rename(tmp_path / "raw" / "a&b(1).fits")
    assert run(*recipe, cwd=tmp_path).returncode == 0
    assert (tmp_path / "matched" / "a&b(1).fits").exists()
    frames[1].rename(tmp_path / "raw" / "two words.fits")
    assert "no names with blanks" in run(*recipe, cwd=tmp_path).stderr


def test_the_check_passes_frames_that_agree(tmp_path, frames):
    done = run("sh", EXAMPLES / "check_frames.sh", *frames, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "sky.json").read_text())["images"]) == 6


def test_the_check_fails_when_one_frame_disagrees(tmp_path, frames):
    """A ramp on one frame of the loop: its overlaps contradict one another."""
    with fits.open(frames[0], mode="update") as hdus:
        hdus["SCI"].data += 40 * (hdus["SCI"].data * 0 + 1).cumsum(axis=1) / 256
    assert run("sh", EXAMPLES / "check_frames.sh", *frames, cwd=tmp_path).returncode == 5
    assert run("sh", EXAMPLES / "check_frames.sh", "nowhere.fits", cwd=tmp_path).returncode == 3


def test_the_check_takes_the_step_that_a_person_accepts(tmp_path, frames):
    """A ramp of 3 counts leaves steps of some counts: too many for 0.01, few enough for 3."""
    with fits.open(frames[0], mode="update") as hdus:
        hdus["SCI"].data += 3 * (hdus["SCI"].data * 0 + 1).cumsum(axis=1) / 256
    for step, code in (("3", 0), ("0.01", 5)):
        done = run("env", f"MAX_STEP={step}", "sh", EXAMPLES / "check_frames.sh", *frames, cwd=tmp_path)
        assert done.returncode == code, done.stderr


@pytest.mark.skipif(not M17, reason="SKYMATCH_DATA does not name a folder with the 2MASS images of M17")
def test_the_check_passes_m17_with_a_step_of_2_dn(tmp_path):
    assert run("env", "MAX_STEP=2", "sh", EXAMPLES / "check_frames.sh", *M17, cwd=tmp_path).returncode == 0


def test_the_python_script(tmp_path, frames):
    done = run(sys.executable, EXAMPLES / "largest_residuals.py", *frames, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_the_slurm_script_matches_a_list(tmp_path, frames):
    (tmp_path / "list.txt").write_text("".join(f"{frame}\n" for frame in frames))
    done = run("sh", EXAMPLES / "slurm.sh", "list.txt", cwd=tmp_path, SLURM_CPUS_PER_TASK="1")
    assert done.returncode == 0, done.stderr
    assert fits.getheader(tmp_path / "matched" / "frame_01.fits", "SCI")["BKGSUB"] is True


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="snakemake is not installed")
def test_the_snakefile_makes_the_table(tmp_path, frames):
    done = run(
        "snakemake", "-s", EXAMPLES / "Snakefile", "--cores", "1", "--config", "exposures=raw/*.fits", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(frames) == len(list((tmp_path / "matched").glob("*.fits")))


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="snakemake is not installed")
def test_the_snakefile_quotes_names_and_says_that_there_is_nothing_to_match(tmp_path, frames):
    recipe = ("snakemake", "-s", EXAMPLES / "Snakefile", "--cores", "1", "--config")
    nothing = run(*recipe, "exposures=nowhere/*.fits", cwd=tmp_path)
    assert nothing.returncode != 0
    assert "no exposure matches 'nowhere/*.fits'" in nothing.stderr + nothing.stdout
    frames[0].rename(tmp_path / "raw" / "two words.fits")
    done = run(*recipe, "exposures=raw/*.fits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "matched" / "two words.fits").exists()
