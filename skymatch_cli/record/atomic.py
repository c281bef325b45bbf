"""Replace files whole or not at all, by one run at a time: images, results, reports, journals.

The new file is written beside the old one under a name that is recognised (``.NAME.skymatch-tmp``), synced,
renamed over it, and the folder synced. Whatever fails before the rename leaves the old file as it was and no
temporary one; what a killed run leaves is removed by the next one that comes to the same file.

Locks (``flock``) vanish with the process that holds them, so a crash leaves none. A run shares the lock of the
folder and holds one on every file it will replace; the new file is locked before it takes the old one's
name, so that the name is never free in between. A run with more files than it may open locks the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import resource
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.model import FileState
from skymatch_cli.record import disk

_SUFFIX = ".skymatch-tmp"
_MAX_NAME_BYTES = 255
_FILES_FOR_THE_REST = 200
_BUFFER_BYTES = 2**18
_NO_LOCKS_HERE = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL})


def temporary_name(path: str) -> str:
    """Return the name under which the new content of a file is written: always the same, so a stale one is found."""
    folder, name = os.path.split(path)
    temporary = f".{name}{_SUFFIX}"
    if len(os.fsencode(temporary)) > _MAX_NAME_BYTES:
        temporary = f".{hashlib.sha256(os.fsencode(name)).hexdigest()}{_SUFFIX}"
    return str(Path(folder, temporary))


class Locks:
    """The locks of one run."""

    def __init__(self, *, of_folders: bool) -> None:
        self._fds: dict[str, int] = {}
        self._of_folders = of_folders
        self.unlocked: set[str] = set()  # folders whose file system knows no locks
        self.replaced: set[str] = set()  # files replaced in this run

    def keep(self, path: str, fd: int) -> None:
        """Keep the lock on the file that now has this name."""
        if self._of_folders:
            os.close(fd)
            return
        old, self._fds[path] = self._fds.get(path), fd
        if old is not None:
            os.close(old)

    def close(self) -> None:
        """Release all locks."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


@contextmanager
def locked(paths: Iterable[str]) -> Iterator[Locks]:
    """Hold the locks on files (real paths; they need not exist), and remove what a killed run left beside them.

    InputError if another run holds one of them, or they can't be locked at all.
    """
    with ExitStack() as stack:
        try:
            locks = _acquire(sorted(set(paths)), stack)
        except OSError as error:
            what = f"can't be locked: {error.strerror or error}"
            hint = "raise the limit: ulimit -n" if error.errno == errno.EMFILE else ""
            if str(error.filename).endswith(_SUFFIX):
                what, hint = f"is in the way of a new file: {error.strerror or error}", "remove it"
            raise InputError.at(str(error.filename), what, hint) from error
        yield locks


def _acquire(names: Sequence[str], stack: ExitStack) -> Locks:
    folders = sorted({str(Path(name).parent) for name in names})
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = soft_limit - _FILES_FOR_THE_REST - len(folders)
    whole_folders = soft_limit != resource.RLIM_INFINITY and len(names) > room
    locks = Locks(of_folders=whole_folders)
    stack.callback(locks.close)
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        if not _try_lock(fd, folder, fcntl.LOCK_EX if whole_folders else fcntl.LOCK_SH):
            locks.unlocked.add(folder)
    for name in names:
        if not whole_folders:
            _lock_file(locks, name)
        _remove_stale(name)
    return locks


def _lock_file(locks: Locks, path: str) -> None:
    """Lock the file that has this name, not one that had it a moment ago."""
    while True:
        try:
            fd = _open_to_lock(path)
        except FileNotFoundError:
            return
        try:
            _try_lock(fd, path, fcntl.LOCK_EX)
            named, opened = Path(path).stat(), os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino):
            locks.keep(path, fd)
            return
        os.close(fd)


def _open_to_lock(path: str) -> int:
    """Open for writing where that is allowed: NFS gives no exclusive lock otherwise. Nothing is written."""
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _try_lock(fd: int, where: str, kind: int) -> bool:
    """Lock without waiting; False where the file system has no such lock."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError.at(where, "another run is writing here", "wait for it to end, then run again") from None
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            return False
        raise
    return True


def _remove_stale(path: str) -> None:
    """Remove the temporary file of a killed run; that of a living run is locked."""
    temporary = temporary_name(path)
    try:
        fd = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _try_lock(fd, path, fcntl.LOCK_EX)
        disk.remove(temporary)
    finally:
        os.close(fd)


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Write a single file (real path), such as a table of results, through a stream that can seek.

    A file that is there is replaced when the block ends without an exception, and the new one has its permissions.
    OSError if the file can't be written; InputError if another run is writing it.
    """
    with locked([path]) as locks:
        there = os.path.lexists(path)
        with replacement(path, file_state(path) if there else None, locks, like=path if there else None) as new:
            stream = io.BufferedWriter(new, _BUFFER_BYTES)
            try:
                yield cast("BinaryIO", stream)
                stream.flush()
            finally:
                with suppress(OSError):  # on a full disk the buffer can't be emptied any more
                    stream.detach()


@contextmanager
def replacement(
    path: str, replaces: FileState | None, locks: Locks, *, like: str | None = None, exact: bool = False
) -> Iterator[io.RawIOBase]:
    """Write the new content of a file (real path), which takes its name when the block ends without an exception.

    ``replaces`` is the file that is expected under this name when the new one is whole (None: none), ``like`` the one
    whose permissions it gets, see `disk.like`. OSError if something can't be written; InputError if the file changed in
    the meantime.
    """
    temporary = temporary_name(path)
    fd = disk.open_new(temporary)
    try:
        _try_lock(fd, path, fcntl.LOCK_EX)
        yield _NewFile(fd)
        disk.like(fd, like, exact=exact)
        disk.sync(fd)
        _check_unchanged(path, replaces)
        disk.replace(temporary, path)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            disk.remove(temporary)
        raise
    locks.replaced.add(path)
    locks.keep(path, fd)
    disk.sync_directory(str(Path(path).parent))


def _check_unchanged(path: str, expected: FileState | None) -> None:
    try:
        found = file_state(path)
    except FileNotFoundError:
        found = None
    if found != expected:
        what = "appeared" if expected is None else "vanished" if found is None else "was changed"
        raise InputError.at(path, f"{what} while it was being written", "run again")


class _NewFile(io.RawIOBase):
    """An open file whose writes go through `disk`; each writes all of its data."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return os.lseek(self._fd, offset, whence)

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[disk.write(self._fd, rest) :]
        return size
