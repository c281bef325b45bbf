"""The examples of the pipeline in steps are run: make as it is, Slurm with a stand-in that runs jobs at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits

from .factories import Frame, row, write, write_all

EXAMPLES = Path(__file__).parents[1] / "examples"
BIN = Path(sys.executable).parent
SBATCH = """#!/bin/sh
tasks=none
while [ $# -gt 0 ]; do
    case $1 in
        --array=1-*) tasks=$(seq 1 "${1#--array=1-}") ;;
        --wrap) job=$2; shift ;;
    esac
    shift
done
for task in $tasks; do
    SLURM_ARRAY_TASK_ID=$task sh -c "$job" >&2 || exit
done
echo 1
"""


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(cwd / "bin"), str(BIN), os.environ["PATH"]])
    env = {**os.environ, "PATH": path}
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def frames(tmp_path) -> list[str]:
    return write_all(tmp_path / "raw", row([10.0, 50.0, 30.0, 20.0], noise=1.0))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_does_what_is_needed(tmp_path, frames):
    recipe = ("make", "-f", EXAMPLES / "steps.mk")
    done = run(*recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert fits.getheader(tmp_path / "matched" / "img_1.fits")["BKGSUB"] is True
    assert "Nothing to be done" in run(*recipe, cwd=tmp_path).stdout
    write(tmp_path / "raw" / "img_4.fits", Frame(x=120.0, sky=70.0, noise=1.0, seed=9))
    again = run(*recipe, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [p.name for p in sorted((tmp_path / "work").iterdir())] == [
        "field.db",
        "measured",
        "planned",
        "solution.fits",
    ]
    assert (tmp_path / "matched" / "img_4.fits").exists()


def test_the_slurm_array(tmp_path, frames):
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    (tmp_path / "my list.txt").write_text("\n".join(f"raw/{Path(f).name}" for f in frames))
    recipe = ("sh", EXAMPLES / "slurm_array.sh", "my list.txt")
    done = run(*recipe, 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = sorted(p.name for p in (tmp_path / "work").glob("part*"))
    assert [Path(name).stem for name in parts] == ["part1", "part2"]
    assert len(list((tmp_path / "matched").glob("img_*.fits"))) == 4
    (tmp_path / "work" / parts[1]).write_text("left by an earlier run")
    done = run(*recipe, 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_slurm_array_of_an_empty_list(tmp_path):
    (tmp_path / "list.txt").touch()
    done = run("sh", EXAMPLES / "slurm_array.sh", "list.txt", cwd=tmp_path)
    assert done.returncode == 1
    assert "list.txt: no exposures in it" in done.stderr
