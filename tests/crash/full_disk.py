"""Runs on a file system that has room for some of the new files only: ``unshare -rm python -m tests.crash.full_disk``.

A small one is mounted in memory (in a mount namespace of its own, so that nobody else sees it) and filled up to a
few blocks; with each number of free blocks the disk is full at another write.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from skymatch_cli import pipeline
from skymatch_cli.errors import InputError
from skymatch_cli.record.write import undo, write_skies
from skymatch_cli.settings import Settings
from tests.factories import row, write_all

from .fileset import contents, make_files

BLOCK = 4096
SIZE = 4 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to mount it")
    folder = parser.parse_args().folder
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    updates = make_files(folder / "files")
    full = fill(folder, "record", lambda: write_skies(updates, Settings()))
    full += fill(folder, "subtract", lambda: write_skies(updates, Settings(subtract=True)))
    full += fill(folder, "undo", lambda: undo([u.ref for u in updates], Settings()))
    images = write_all(folder / "files", [f.but(noise=3.0, dtype="f4") for f in row((-40.0, 55.0, -30.0, 100.0))])
    settings = Settings(subtract=True, skystat="mean", jobs=1)
    full += fill(folder, "match", lambda: pipeline.match(images, settings))
    print(f"{full} runs on a full disk: every file whole, and finished by running again")


def fill(top: Path, name: str, job: Callable[[], object]) -> int:
    """Run a job with 0, 1, 2, … free blocks until it has room; how often it had none."""
    folder, ballast = top / "files", top / "ballast"
    old = contents(folder)
    job()
    new = contents(folder)
    for n_free in range(SIZE // BLOCK):
        for key, content in old.items():
            (folder / key).write_bytes(content)
        room = os.statvfs(top).f_bavail - n_free
        ballast.write_bytes(bytes(BLOCK * max(room, 0)))
        said = error_of(job)
        if not said:
            ballast.unlink()
            assert contents(folder) == new
            return n_free
        assert "No space left on device" in said
        assert "free some space, then run again" in said
        now = contents(folder)
        assert all(now[key] in (old[key], new[key]) for key in old), f"{name}: a file is neither old nor new"
        strangers = now.keys() - old.keys()
        done = any(now[key] != old[key] for key in old)
        assert all(stranger.endswith(".skymatch-journal") and done for stranger in strangers), f"left {strangers}"
        ballast.unlink()
        job()
        assert contents(folder) == new, f"{name}: running again gave other bytes"
    raise AssertionError(f"{name} never had room")


def error_of(job: Callable[[], object]) -> str:
    """What a job says that can't be done; nothing where it is done."""
    try:
        job()
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
