"""One damaged file through the command line, and what must hold whatever comes of it."""

from __future__ import annotations

import re
import resource
import shutil
from pathlib import Path

from click.testing import CliRunner

from skymatch_cli.cli import main
from skymatch_cli.images.formats.fitsfile import read_structure

MEMORY_BYTES = 2**30
SECONDS = 10
ALLOWED = frozenset({0, 2, 3, 4, 5})
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
_MEMORY = re.compile(r"MemoryError|Unable to allocate|Cannot allocate", re.IGNORECASE)
_FORGED = b"skymatch-cli undo"  # a header that lies about what it was
_SUMS = re.compile(rb"(CHECKSUM|DATASUM )=.{71}", re.DOTALL)
COMMANDS = (
    ("plan",),
    ("match", "--dry-run"),
    ("match",),
    ("match", "--subtract"),
    ("match", "--dry-run", "--compare", "mesh"),
    ("match", "--method", "localmin", "--output-dir", "copies"),
    ("undo",),
    ("undo", "--from-keyword"),
)


class BrokenPromiseError(AssertionError):
    """Something that must hold for every file does not."""


def limit_memory() -> None:
    """Give this process 1 GiB of address space, what Python and its libraries take included."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def check(folder: Path, content: bytes, good: bytes, *, suffix: str = ".fits", turn: int = 0) -> int:
    """Run a command over a damaged and a good file in an empty folder, and say its exit code.

    Parameters
    ----------
    folder : Path
        The current folder.
    content, good : bytes
        The damaged file and one that overlaps what it was.
    suffix : str
        Of both.
    turn : int
        Which of the commands.

    Raises
    ------
    BrokenPromiseError
        If it ends in an unexpected way, shows what a terminal would act on, or leaves other files than it should.
    """
    names = (f"damaged{suffix}", f"good{suffix}")
    before = dict(zip(names, (content, good), strict=True))
    for name, raw in before.items():
        (folder / name).write_bytes(raw)
    command, *options = COMMANDS[turn % len(COMMANDS)]
    code = run_command([command, *options, "--jobs", "1", *names])
    try:
        if command == "undo" and not code:
            pass  # what it takes back, the header said
        elif code or command == "plan" or "--dry-run" in options or "--output-dir" in options:
            _check_untouched(folder, before, copies=code == 0)
        else:
            _check_undone(folder, before, exactly=suffix == ".fits" and "--subtract" not in options)
    finally:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return code


def run_command(args: list[str]) -> int:
    """Run a command over damaged files and say its exit code, if it ended and spoke as it should."""
    done = CliRunner().invoke(main, args)
    shown = done.stdout + done.stderr
    if done.exit_code not in ALLOWED or "Traceback" in shown:
        raise BrokenPromiseError(f"{' '.join(args)}: exit {done.exit_code}: {done.stderr[-600:]}")
    if control := _CONTROL.search(shown):
        raise BrokenPromiseError(f"{' '.join(args)}: shows {control.group()!r}: {shown!r:.600}")
    if _MEMORY.search(shown):
        raise BrokenPromiseError(f"{' '.join(args)}: wants too much memory: {shown[-600:]}")
    return done.exit_code


def _check_untouched(folder: Path, before: dict[str, bytes], *, copies: bool) -> None:
    allowed = {*before, "copies"} if copies else {*before}
    if not {path.name for path in folder.iterdir()} <= allowed:
        raise BrokenPromiseError(f"left files: {sorted(path.name for path in folder.iterdir())}")
    for name, raw in before.items():
        if (folder / name).read_bytes() != raw:
            raise BrokenPromiseError(f"{name} was changed")


def _check_undone(folder: Path, before: dict[str, bytes], *, exactly: bool) -> None:
    """A sky was recorded or subtracted: it can be taken back, and the files are what they were."""
    if {path.name for path in folder.iterdir()} != {*before}:
        raise BrokenPromiseError(f"left files: {sorted(path.name for path in folder.iterdir())}")
    if (code := run_command(["undo", *before])) and not any(_FORGED in raw for raw in before.values()):
        raise BrokenPromiseError(f"undo after a run that went well: exit {code}")
    for name, raw in before.items():
        if not exactly or _FORGED in raw:
            continue
        undone = _comparable(folder, name, (folder / name).read_bytes())
        if undone != _comparable(folder, name, raw):
            raise BrokenPromiseError(f"{name} is not what it was after undo")


def _comparable(folder: Path, name: str, raw: bytes) -> bytes:
    """The file without what may differ: checksums that were wrong, and what stood after the end of a header."""
    (folder / name).write_bytes(raw)
    data = bytearray(raw)
    for hdu in read_structure(str(folder / name), name).hdus:
        end = hdu.header_offset + hdu.header_size
        data[end : hdu.data_offset] = bytes(hdu.data_offset - end)
    return _SUMS.sub(rb"\1", bytes(data))
