"""Headers of many files are read by several processes, with the plan of a run in one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from .factories import row, write_all

SCRIPT = """
import os, sys
from skymatch_cli import pipeline
from skymatch_cli.images import image, inputs
from skymatch_cli.settings import Settings
from skymatch_cli.store.store import Store

image._PIXELS_A_HEADER = inputs._PIXELS_A_STRUCTURE = {pixels}
read = image._HeaderReader.read_file

def noted(self, named):
    with open("readers", "a") as stream:
        print(os.getpid(), file=stream)
    return read(self, named)

image._HeaderReader.read_file = noted
planned = pipeline.plan(sys.argv[2:], Settings(jobs=2, skip_bad=True))
with Store(sys.argv[1], write=True, create=True) as store:
    store.save_plan(planned)
print(os.getpid())
"""


def contents(store: Path) -> list[str]:
    """All that a store holds: the file itself also counts how often it was written."""
    with closing(sqlite3.connect(store)) as connection:
        return list(connection.iterdump())


def planned(folder: Path, pixels: int, frames: list[str]) -> tuple[list[str], int]:
    """The plan, and how many headers its process read itself."""
    command = [sys.executable, "-c", SCRIPT.format(pixels=pixels), "plan.db", *frames]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    readers = (folder / "readers").read_text().split()
    (folder / "readers").unlink()
    assert len(readers) == len(frames) - 1  # one of them is no FITS file
    return contents(folder / "plan.db"), readers.count(done.stdout.strip())


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
def test_the_plan_is_that_of_one_process(tmp_path):
    frames = write_all(tmp_path, row([float(k) for k in range(35)]))
    Path(frames[20]).write_bytes(b"no FITS")
    alone, by_itself = planned(tmp_path, 1, frames)
    assert by_itself == 34
    together, by_itself = planned(tmp_path, 10**9, frames)
    assert by_itself == 1  # to import what the others need
    assert together == alone
