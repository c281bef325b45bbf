"""Kill runs at random moments and look at what they leave: ``python -m tests.crash.kill_at_random --kills 2000``.

Every file must be the old one or the new one, whole; nothing else may lie there but one temporary file and the
journal; and running again must give the same bytes as a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from skymatch_cli import pipeline
from skymatch_cli.record.write import undo, write_skies
from skymatch_cli.settings import Settings
from tests.factories import row, write_all

from .faults import in_a_child
from .fileset import contents, make_files

Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000, help="kills that must hit a living run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    seen: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as top:
        for names in itertools.cycle(("be", "ac", "d", "match", "abcde")):
            if seen["kills"] >= options.kills:
                break
            run_through(Path(top, "files"), names, rng, seen, options.kills)
            print(f"{seen['kills']} kills, {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(f"{seen['kills']} kills in {time.monotonic() - started:.0f} s, seed {options.seed}: every file whole")
    for what in ("none", "some", "all"):
        print(f"  {what} of the files replaced when the run died: {seen[what]}")
    print(f"  temporary file left by the run and removed by the next: {seen['temporary']}")
    print(f"  journal left by the run and used by the next: {seen['journal']}")
    print(f"  runs that were over before the kill: {seen['over']}")


def run_through(folder: Path, names: str, rng: random.Random, seen: Counter[str], kills: int) -> None:
    """Record, subtract and undo the skies of some files, each step killed again and again."""
    for name, step in match_steps(folder) if names == "match" else write_steps(folder, names):
        kill_until_done(folder, name, step, rng, seen, kills)
    shutil.rmtree(folder)


def write_steps(folder: Path, names: str) -> list[tuple[str, Step]]:
    updates = make_files(folder, names)
    return [
        ("record", lambda: write_skies(updates, Settings())),
        ("subtract", lambda: write_skies(updates, Settings(subtract=True))),
        ("undo", lambda: undo([u.ref for u in updates], Settings())),
    ]


def match_steps(folder: Path) -> list[tuple[str, Step]]:
    """From floats, whose skies are of the size of their pixels: rounded where a sky is added again."""
    frames = [frame.but(noise=3.0, dtype="f4") for frame in row((-40.0, 55.0, -30.0, 100.0, 7.0))]
    images = write_all(folder, frames)
    settings = Settings(subtract=True, skystat="mean", jobs=1)
    again = Settings(subtract=True, compare="mesh", jobs=1)
    return [("match", lambda: pipeline.match(images, settings)), ("match anew", lambda: pipeline.match(images, again))]


def kill_until_done(folder: Path, name: str, step: Step, rng: random.Random, seen: Counter[str], kills: int) -> None:
    """Twenty kills of one job, each from the same start; then the job itself, for the next one to start from."""
    old = contents(folder)
    took = time.monotonic()
    assert in_a_child(step) == 0, f"{name} failed"
    took = time.monotonic() - took
    new = contents(folder)
    for _ in range(20):
        if seen["kills"] == kills:
            break
        reset(folder, old)
        if not killed(step, rng.uniform(0, 1.1 * took)):
            seen["over"] += 1
            continue
        seen["kills"] += 1
        seen[check(folder, name, old, new, seen)] += 1
        step()
        assert contents(folder) == new, f"{name}: running again gave other bytes"
    reset(folder, new)


def killed(step: Step, after_s: float) -> bool:
    """Run in a child and kill it; whether it was still alive."""
    child = os.fork()
    if child == 0:
        step()
        os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def check(folder: Path, name: str, old: dict[str, bytes], new: dict[str, bytes], seen: Counter[str]) -> str:
    """How many files were replaced: none, some or all; fails where one is neither old nor new."""
    now = contents(folder)
    strangers = now.keys() - old.keys()
    temporary = [stranger for stranger in strangers if stranger.endswith(".skymatch-tmp")]
    journals = [stranger for stranger in strangers if stranger.endswith(".skymatch-journal")]
    assert len(temporary) <= 1, f"{name} left {strangers}"
    assert len(journals) <= name.startswith("match"), f"{name} left {strangers}"
    assert len(strangers) == len(temporary) + len(journals), f"{name} left {strangers}"
    seen["temporary"] += len(temporary)
    seen["journal"] += len(journals)
    replaced = [now[key] == new[key] for key in old]
    assert all(now[key] in (old[key], new[key]) for key in old), f"{name}: a file is neither old nor new"
    return "all" if all(replaced) else "some" if any(replaced) else "none"


def reset(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
