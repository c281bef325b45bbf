# ruff: noqa: PTH100, PTH114, PTH116, PTH118 - of thousands of paths; a Path for each takes five times as long
"""Files on a disk or behind a URL (the extra ``remote`` fetches the bytes that are read)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO

from skymatch_cli.images.formats import memory
from skymatch_cli.model import FileState

_SECOND_NS = 10**9
_TICK_NS = 2 * 10**7  # clocks of file systems go on with the kernel's, at least a hundred times a second
_COARSE_TICK_NS = 2 * _SECOND_NS  # of those that keep whole seconds, or every other one


def is_remote(path: str) -> bool:
    """Return whether a name is a URL: ``https://``, ``s3://`` or any other that fsspec knows."""
    return "://" in path


def absolute_path(path: str) -> str:
    """Return the path from the root, links as they are; a URL as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def real_path(path: str) -> str:
    """Return the path with all links followed; a URL or an invalid path is unchanged."""
    return path if is_remote(path) or "\0" in path else os.path.realpath(path)


def real_paths(paths: Iterable[str]) -> list[str]:
    """`real_path` of many: links are looked for once in each folder's own path, and in the last name of each."""
    folders: dict[str, str] = {}
    found = []
    for path in paths:
        folder, name = os.path.split(path)
        if is_remote(path) or name in {"", ".", ".."} or os.path.islink(path):
            found.append(real_path(path))
            continue
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.append(os.path.join(folders[folder], name))
    return found


def base_name(path: str) -> str:
    """Return the name of a file without its folder; for a URL also without its query."""
    if not is_remote(path):
        return Path(path).name
    place = re.split(r"[?#]", path.partition("::")[0], maxsplit=1)[0]
    return PurePosixPath(place.partition("://")[2].partition("/")[2] if "://" in place else place).name


def file_state(path: str) -> FileState:
    """Size, times and inode: any later change of the file, or another file under its name, gives other numbers.

    Programs may set the time of the content (mtime), not that of the change itself (ctime). A file that was changed a
    moment ago is looked at again when the clock of the file system has gone on: a second change would show no other
    time before. Behind a URL a number stands for what the server says of the version (entity tag, time); the rest is 0.
    OSError if it can't be found.
    """
    if is_remote(path):
        return (*_transport(path).size_and_version(path), 0, 0)
    found = os.stat(path)
    tick_ns = _TICK_NS if found.st_ctime_ns % _SECOND_NS else _COARSE_TICK_NS
    age_ns = time.time_ns() - found.st_ctime_ns
    if abs(age_ns) < tick_ns:
        time.sleep((tick_ns - age_ns) / _SECOND_NS)
        found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def open_file(path: str) -> IO[bytes]:
    """Open the bytes of a file for reading and seeking; OSError if that fails."""
    if is_remote(path):
        opened: IO[bytes] = _transport(path).open_file(path)
        return opened
    return Path(path).open("rb", buffering=0)


def matching(pattern: str) -> list[str]:
    """Return the URLs that a pattern with ``*`` matches, sorted; InputError or OSError of the server."""
    return [pattern] if pattern.startswith(memory.PREFIX) else list(_transport(pattern).matching(pattern))


def _transport(url: str) -> ModuleType:
    """Return the module that fetches the bytes; OSError where its token was removed (`without_secrets`)."""
    if url.startswith(memory.PREFIX):
        return memory
    if "=…" in url:
        raise OSError("skymatch stores no tokens: plan, measure and write in one run of skymatch match")
    from skymatch_cli.images.formats import remote

    return remote
