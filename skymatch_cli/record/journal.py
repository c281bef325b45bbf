"""Journal of a run that writes several files, so that a later run can finish it after an interruption.

Floats that lost a sky don't come back to the last bit, so what is measured in files that are done already may
differ by a rounding from what was measured at first. A run that subtracts from several files therefore leaves
what it measured in a journal (``.DIGEST.skymatch-journal``, beside the first of them) before it replaces the
first, and takes it away when all are done. The digest is of the names of the files: the same set finds it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from skymatch_cli.images.formats.files import file_state
from skymatch_cli.model import Journal
from skymatch_cli.record import disk
from skymatch_cli.record.atomic import Locks, replacement

_SUFFIX = ".skymatch-journal"


def journal_path(files: Iterable[str]) -> str:
    """Return the path of the journal of a set of files (real paths)."""
    names = sorted(set(files))
    digest = hashlib.blake2b("\0".join(names).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return str(Path(names[0]).parent / f".{digest}{_SUFFIX}")


@contextmanager
def kept(journal: Journal, locks: Locks) -> Iterator[Callable[[], None]]:
    """Keep a journal while files are replaced, then remove it; it stays if only some of them are done.

    Call what it yields before a file is replaced: the first call writes the journal. ``locks`` are those of
    the files and of the journal.
    """
    begun = False

    def begin() -> None:
        nonlocal begun
        write, begun = None if begun else journal.write, True
        if write is not None:
            _write(journal.path, write, locks)

    try:
        yield begin
    except BaseException:
        if begun and journal.write is not None and locks.replaced <= {journal.path}:
            with suppress(OSError):
                _discard(journal.path)
        raise
    _discard(journal.path)


def _write(path: str, write: Callable[[BinaryIO], object], locks: Locks) -> None:
    before = file_state(path) if Path(path).exists() else None
    with replacement(path, before, locks) as new:
        write(cast("BinaryIO", new))


def _discard(path: str) -> None:
    if os.path.lexists(path):
        disk.remove(path)
        disk.sync_directory(str(Path(path).parent))
