"""Every system call of every writer fails in turn: ``python -m tests.crash.syscalls FOLDER``.

A small library (``shim.c``, made by ``cc``) stands before the C library of this process, so that also SQLite's calls
can fail. Each command is run once for each call that it makes to files in the folder, in a process of its own; the
error is EIO, ENOSPC or EINTR, or with ``--all`` each of them. Then every file must be the old or the new one, with an
exit code that says so, and running again must finish the job.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.store.solution import read_solution
from skymatch_cli.store.store import Store

KINDS = ("open", "read", "write", "sync", "rename", "unlink", "truncate", "lock", "mode")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR)
IMAGES = ("a.fits", "b.fits")
REFUSED = {3, 6}


@dataclass(frozen=True)
class Writer:
    """A command that writes, and what is done before it.

    ``dated`` is a file that holds the times of the images: it is made anew for every fault.
    """

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    dated: str = ""


WRITERS = {
    "record": Writer(("match", "--jobs", "1", *IMAGES)),
    "subtract": Writer(("match", "--subtract", "--jobs", "1", *IMAGES)),
    "undo": Writer(("undo", *IMAGES), (("match", "--subtract", "--jobs", "1", *IMAGES),)),
    "copies": Writer(("match", "--subtract", "--jobs", "1", "--output-dir", "out", "--overwrite", *IMAGES)),
    "result": Writer(("match", "--dry-run", "--jobs", "1", "-o", "r.json", "--overwrite", *IMAGES)),
    "solution": Writer(("match", "--dry-run", "--jobs", "1", "-o", "r.fits", "--overwrite", *IMAGES), dated="r.fits"),
    "report": Writer(("match", "--dry-run", "--jobs", "1", "--report", "r.html", "--overwrite", *IMAGES)),
    "plot": Writer(("match", "--dry-run", "--jobs", "1", "--plot", "r.png", "--overwrite", *IMAGES)),
    "store": Writer(("match", "--dry-run", "--jobs", "1", "--store", "field.db", *IMAGES), dated="field.db"),
    "store again": Writer(
        ("match", "--subtract", "--jobs", "1", "--store", "field.db", *IMAGES),
        (("match", "--dry-run", "--jobs", "1", "--compare", "pooled", "--store", "field.db", *IMAGES),),
        dated="field.db",
    ),
    "apply": Writer(
        ("apply", "--subtract", "s.fits"),
        (("match", "--dry-run", "--jobs", "1", "-o", "s.fits", *IMAGES),),
        dated="s.fits",
    ),
    "export": Writer(
        ("export", "s.fits", "--to", "swarp", "-o", "r.txt", "--overwrite"),
        (("match", "--dry-run", "--jobs", "1", "-o", "s.fits", *IMAGES),),
    ),
}


class Shim:
    """The library before the C library, which counts the calls of this process and fails one of them."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])

    def arm(self, folder: Path, kind: int = -1, nth: int = 0, number: int = 0) -> None:
        self._library.arm(os.fsencode(f"{folder}/"), kind, nth, number)

    def count(self, kind: int) -> int:
        return int(self._library.seen(kind))


def preloaded(library: Path) -> dict[str, str]:
    """Make the library; the environment in which a process has it."""
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def run(*command: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*command])
    assert done.exit_code in {0, *REFUSED}, (command, done.exit_code, done.stderr)
    assert "unexpected" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.exit_code, done.stderr


def tree(folder: Path) -> dict[str, bytes]:
    return {f"{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_child(
    shim: Shim, folder: Path, command: tuple[str, ...], fault: tuple[int, int, int]
) -> tuple[int, list[int]]:
    """Run a command with a fault; its exit code, and how often it made each kind of call."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code, said = 99, ""
        try:
            shim.arm(folder, *fault)
            code, said = run(*command)
        except BaseException as error:  # noqa: BLE001 - a child never returns into its parent's loop
            said = repr(error)
        counts = [shim.count(kind) for kind in range(len(KINDS))]
        shim.arm(Path("/nowhere"))
        os.write(write, " ".join(map(str, counts)).encode())
        if code == 99:
            os.write(2, f"{said}\n".encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as stream:
        counts = [int(word) for word in stream.read().split()]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), counts


def faults(counts: list[int], every: int, *, each: bool) -> Iterator[tuple[int, int, int]]:
    """Kind, number and error of the calls that fail: of each kind the first, and every n-th that follows."""
    turn = 0
    for kind, n in enumerate(counts):
        for nth in range(1, n + 1, every):
            for number in ERRORS if each else (ERRORS[turn % len(ERRORS)],):
                yield kind, nth, number
            turn += 1


def try_writer(
    shim: Shim, name: str, folder: Path, images: dict[str, bytes], every: int, *, each: bool
) -> Counter[str]:
    """All faults of one writer."""
    writer, said = WRITERS[name], Counter[str]()

    def prepare() -> None:
        reset(folder, images)
        for command in writer.before:
            assert run(*command)[0] == 0

    prepare()
    old = tree(folder)
    code, counts = in_a_child(shim, folder, writer.command, (-1, 0, 0))
    assert code == 0
    new = tree(folder)
    assert new != old, name
    for kind, nth, number in faults(counts, every, each=each):
        prepare() if writer.dated else reset(folder, old)
        code, _ = in_a_child(shim, folder, writer.command, (kind, nth, number))
        what = f"{name}: {KINDS[kind]} {nth}, {errno.errorcode[number]}: exit {code}"
        said[f"{name}: exit {code}"] += 1
        assert code in {0, *REFUSED}, what
        now = tree(folder)
        for file in {*old, *new, *now} - {f"{writer.dated}-journal"}:
            whole = now.get(file) in (old.get(file), new.get(file)) or (file == writer.dated and is_readable(file))
            assert whole or file.endswith((".skymatch-journal", ".skymatch-tmp")), (
                f"{what}: {file} is neither old nor new"
            )
            assert not (file.endswith(".skymatch-tmp") and kind != KINDS.index("unlink")), f"{what}: left {file}"
        assert run(*writer.command)[0] == 0, what
        again = tree(folder)
        ended = again.pop(f"{writer.dated}-journal", bytes(8))  # SQLite may leave it, if its header is zeros
        assert ended.startswith(bytes(8)), f"{what}: running again left an open journal"
        assert again.keys() == new.keys(), f"{what}: {sorted(again)}"
        assert all(again[file] == new[file] for file in new if file != writer.dated), f"{what}: running again differs"
    return said


def is_readable(file: str) -> bool:
    """Whether a solution or a store that is there is whole: of a store what a killed run began is taken back first.

    A store in which nothing was committed yet is an empty file.
    """
    if not Path(file).exists() or (file.endswith(".db") and not Path(file).stat().st_size):
        return True
    if file.endswith(".fits"):
        return bool(len(read_solution(file).sky))
    with Store(file, write=True, create=True) as store:
        return store.get("facts", "layout") is not None


def reset(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def try_all(folder: Path, names: list[str], every: int, *, each: bool) -> None:
    from tests.factories import row, write_all

    shim = Shim()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    made = write_all(folder, row([10.0, 20.0]))
    images = {name: Path(path).read_bytes() for name, path in zip(IMAGES, made, strict=True)}
    for name in names:
        for what, n in sorted(try_writer(shim, name, folder, images, every, each=each).items()):
            print(f"{what}: {n}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("writers", nargs="*", default=list(WRITERS))
    parser.add_argument("--all", action="store_true", help="each call with each error")
    parser.add_argument("--every", type=int, default=1, help="fail every n-th call alone")
    options = parser.parse_args()
    if "LD_PRELOAD" not in os.environ:
        library = options.folder.with_suffix(".so").resolve()
        library.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.crash.syscalls", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=preloaded(library), check=False).returncode)
    try_all(options.folder, options.writers, options.every, each=options.all)
