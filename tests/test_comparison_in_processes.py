"""Cells are compared by several processes, each with sheets of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .factories import row, write_all

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")

SCRIPT = """
import os, signal, sys
from pathlib import Path
from skymatch_cli.cli import main
from skymatch_cli.compare.mesh import tiles
from skymatch_cli.compare.mesh.passes import Passes
from skymatch_cli.run import tasks

tasks._WORTH_PROCESSES = 0  # also for few pixels
tiles._LEAVES = 4  # several sheets
iterate, here = Passes.iterate, os.getpid()

def of_test(part, *words):
    Path(f"process_{os.getpid()}").touch()
    if {killed} and os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return iterate(part, *words)

Passes.iterate = of_test
main(["match", "--dry-run", "--format", "csv", *sys.argv[1:]])
"""


def compared(folder: Path, names: list[str], jobs: int, *, killed: bool = False) -> tuple[str, int]:
    """The table of a run, and how many processes compared cells."""
    for file in folder.glob("process_*"):
        file.unlink()
    command = [sys.executable, "-c", SCRIPT.replace("{killed}", str(killed)), "--jobs", str(jobs), *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, len(list(folder.glob("process_*")))


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path):
    names = write_all(tmp_path, row([3.0, 1.0, 4.0, 1.0, 5.0]))
    (alone, n_alone), (two, n_two), (three, n_three) = (compared(tmp_path, names, jobs) for jobs in (1, 2, 3))
    assert (n_alone, n_two, n_three) == (1, 2, 3)
    assert alone == two == three
    assert alone.count("ok") == 5


def test_cells_whose_process_is_killed_are_compared_by_the_first(tmp_path):
    names = write_all(tmp_path, row([3.0, 1.0, 4.0, 1.0, 5.0]))
    alone, _ = compared(tmp_path, names, 1)
    killed, n_processes = compared(tmp_path, names, 2, killed=True)
    assert n_processes == 2
    assert killed == alone
