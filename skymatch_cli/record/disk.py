"""The few system calls that change the disk, one function each, so that tests can count, stop or fail them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS of Linux
_FROZEN = 0x10 | 0x20  # immutable, append-only


def open_new(path: str) -> int:
    """Open a new file for writing; never an existing one, never through a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write(fd: int, data: bytes | memoryview) -> int:
    """Write some of the data and return the number of bytes."""
    return os.write(fd, data)


def like(fd: int, other: str | None, *, exact: bool = False) -> None:
    """Give a file the permissions, owner and extended attributes (ACL) of another one; None: as any new file.

    ``exact``: fail where they can't all be kept; else the new file is open to nobody to whom the other one is closed.
    """
    if other is None:
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(fd, 0o666 & ~umask)
        return
    model = Path(other).stat()
    owned = _own(fd, model, exact=exact)
    mode = stat.S_IMODE(model.st_mode)
    if not owned:
        mode &= 0o777  # set-user-ID bits are for the owner they were given by
    if os.fstat(fd).st_gid != model.st_gid:
        mode = mode & 0o700 | (mode >> 3 & mode & 0o007) * 0o11  # another group: what both group and others may
    try:
        os.fchmod(fd, mode)
    except PermissionError:
        if exact and os.fstat(fd).st_mode != model.st_mode and os.fstat(fd).st_uid != os.geteuid():
            raise  # else the file system gives all files the same permissions: the file is our own
    if not _attributes(fd, other, exact=exact):
        os.fchmod(fd, mode & 0o700)


def _own(fd: int, model: os.stat_result, *, exact: bool) -> bool:
    """Set the owner and group of a file, or only the group; return whether both were set."""
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) == (model.st_uid, model.st_gid):
        return True
    try:
        os.fchown(fd, model.st_uid, model.st_gid)
    except OSError:
        if exact:
            raise
        with suppress(OSError):
            os.fchown(fd, -1, model.st_gid)
        return False
    return True


def _attributes(fd: int, source: str, *, exact: bool) -> bool:
    """Copy extended attributes; False where a list of who may read (ACL) could not be copied."""
    kept = True
    for name in _names(source):
        value = b""
        try:
            value = os.getxattr(source, name)
            if name not in _names(fd) or os.getxattr(fd, name) != value:
                os.setxattr(fd, name, value)
        except OSError:
            if exact:
                raise
            kept = kept and not name.startswith("system.")
    return kept


def _names(file: str | int) -> list[str]:
    """Return the extended attributes of a file; none where the file system does not support them."""
    if not hasattr(os, "listxattr"):
        return []
    try:
        return os.listxattr(file)
    except OSError as error:
        if error.errno not in {errno.ENOTSUP, errno.ENOSYS}:
            raise
        return []


def obstacle(path: str) -> str:
    """Say why no new file can take this real path, though its folder may be written to; "" where one can."""
    file, folder = Path(path), Path(path).parent
    if _is_mounted(path):
        return "can't be replaced: it is a mount point"
    if _is_frozen(path) or _is_frozen(str(folder)):
        return "can't be replaced: it, or its folder, is immutable or append-only"
    me = os.geteuid()
    if (
        me
        and file.exists()
        and folder.stat().st_mode & stat.S_ISVTX
        and me not in {f.stat().st_uid for f in (file, folder)}
    ):
        return "can't be replaced: its folder is sticky, and it belongs to another user"
    return ""


def _is_mounted(path: str) -> bool:
    """Whether Linux lists a file as a mount point (`proc_pid_mountinfo(5)`); False where there is no such list."""
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    name = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % ord(found[0]), os.fsencode(path))
    return b" %b " % name in table


def _is_frozen(path: str) -> bool:
    """Whether a file or folder is marked as immutable or append-only, so that nothing in it can be replaced."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flags = fcntl.ioctl(fd, _GET_FLAGS, bytes(8))
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(int.from_bytes(flags[:4], sys.byteorder) & _FROZEN)


def sync(fd: int) -> None:
    """Flush the content of a file to the disk."""
    os.fsync(fd)


def replace(source: str, target: str) -> None:
    """Rename a file over another one, atomically."""
    Path(source).replace(target)


def remove(path: str) -> None:
    """Remove a file."""
    Path(path).unlink()


def sync_directory(path: str) -> None:
    """Flush a changed file name to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
