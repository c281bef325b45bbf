"""The few calls that change what is on disk, each on its own: here a test can count them, stop or fail them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_new(path: str) -> int:
    """Open a new file for writing; never an existing one, never through a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write(fd: int, data: bytes | memoryview) -> int:
    """Write some of the data; says how much."""
    return os.write(fd, data)


def like(fd: int, model: os.stat_result | None) -> None:
    """Give a file the permissions of another one, and its owner where that is allowed; None: as any new file."""
    if model is None:
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(fd, 0o666 & ~umask)
        return
    try:
        os.fchown(fd, model.st_uid, model.st_gid)
    except OSError:
        keep = 0o777  # set-user-ID bits are for the owner they were given by
    else:
        keep = 0o7777
    with suppress(PermissionError):  # only where the file system has no permissions: the file is our own
        os.fchmod(fd, model.st_mode & keep)


def sync(fd: int) -> None:
    """Wait until a file is on the medium."""
    os.fsync(fd)


def replace(source: str, target: str) -> None:
    """Give a file another's name, atomically."""
    Path(source).replace(target)


def remove(path: str) -> None:
    """Remove a file."""
    Path(path).unlink()


def sync_directory(path: str) -> None:
    """Wait until a name that changed is on the medium."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
