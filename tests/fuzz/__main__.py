"""Damage files and run commands over them, in child processes with little memory that may not take long."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from .bases import Base, own, pack, real
from .check import COMMANDS, SECONDS, BrokenPromiseError, check, limit_memory
from .damage import damaged
from .grammars import check_inputs, kept_files

BLOCK = 500
WAIT_SECONDS = 10 * SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case: a failure is run again by it")
    parser.add_argument("--keep", type=Path, help="folder for the files that broke a promise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        bases = [*own(Path(top)), *real()]
        codes, broken = run(bases, range(options.first, options.first + options.cases), options.keep)
    for code, count in sorted(codes.items()):
        print(f"exit {code}: {count}")
    print(f"{sum(codes.values()) + len(broken)} cases from {len(bases)} files, {len(broken)} broken promises")
    sys.exit(bool(broken))


def run(bases: Sequence[Base], cases: range, keep: Path | None = None) -> tuple[Counter[int], list[str]]:
    """Exit codes, and what went wrong, of all cases; a child that dies takes one case with it."""
    codes: Counter[int] = Counter()
    broken: list[str] = []
    _import_all(bases[0])
    started, at = time.monotonic(), cases.start
    while at < cases.stop:
        stop = min(at + BLOCK - (at - cases.start) % BLOCK, cases.stop)
        here, there = get_context("fork").Pipe(duplex=False)
        child = get_context("fork").Process(target=_work, args=(there, bases, range(at, stop)))
        child.start()
        there.close()
        while at < stop:
            try:
                code, said = here.recv()
            except EOFError:
                child.join()
                code, said = None, f"died: {_death(child.exitcode)}"
            if code is None:
                broken.append(f"case {at}: {said}")
                print(broken[-1], file=sys.stderr, flush=True)
                _keep(bases, at, keep)
            else:
                codes[code] += 1
            at += 1
            if said.startswith("died"):
                break
        child.join()
        if (at - cases.start) % (4 * BLOCK) == 0:
            print(f"{at} cases, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return codes, broken


def _import_all(base: Base) -> None:
    """Run the commands over a whole file, so that no child has to import what they need."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for turn in range(len(COMMANDS)):
            check(Path(folder), base.content, base.content, turn=turn)
        os.chdir(here)


def _work(results: Connection, bases: Sequence[Base], cases: range) -> None:
    """The child: an alarm that nobody catches ends what hangs."""
    limit_memory()
    signal.alarm(WAIT_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        whole = kept_files(Path(folder), bases[0])
        for case in cases:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of processor time: other programs may be running
            signal.alarm(WAIT_SECONDS)
            try:
                code = _case(Path(folder), bases, whole, case)
            except BrokenPromiseError as error:
                results.send((None, str(error)))
            else:
                results.send((code, ""))
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        os.chdir("/")
    results.close()
    os._exit(0)


def _case(folder: Path, bases: Sequence[Base], whole: dict[str, bytes], case: int) -> int:
    """One case: a damaged image, or every fifth one a damaged file of another kind."""
    for path in folder.iterdir():
        path.unlink()
    if case % 5 == 4:
        return check_inputs(folder, whole, case)
    base, content = damaged(bases, case)
    try:
        turn = case // len(bases)
        return check(folder, content, pack(base.content, base.suffix), suffix=base.suffix, turn=turn)
    except BrokenPromiseError as error:
        raise BrokenPromiseError(f"{base.name}: {error}") from error


def _death(code: int | None) -> str:
    if code == -signal.SIGPROF:
        return f"no answer in {SECONDS} s of work"
    return f"no answer in {WAIT_SECONDS} s" if code == -signal.SIGALRM else f"exit status {code}"


def _keep(bases: Sequence[Base], case: int, keep: Path | None) -> None:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        base, content = damaged(bases, case)
        (keep / f"{case}_{base.name}{base.suffix}").write_bytes(content)


if __name__ == "__main__":
    main()
