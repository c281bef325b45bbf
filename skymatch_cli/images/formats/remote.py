"""Files behind URLs, through fsspec: only the blocks that are read are fetched (extra ``remote``).

Whatever a protocol's package raises becomes an OSError with the URL's own words, so that the readers of files
need to know one kind of failure.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from skymatch_cli.errors import InputError, reason

_BLOCK_BYTES = 128 * 2**10  # read ahead, so that most headers take one request
_IN_MEMORY = 64 * 2**20
_NOT_FOUND = 404
_VERSION_FIELDS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "VersionId", "mtime", "created")


def open_file(url: str) -> IO[bytes]:
    """Open a remote file for reading and seeking; it is fetched whole where the server has no range requests.

    InputError if a package is missing; OSError if it can't be opened.
    """
    with _as_os_errors():
        system, path = _file_system(url)
        stream = system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        if not stream.seekable():
            stream.close()
            stream = _fetched(system, path)
    return cast("IO[bytes]", _Remote(stream, lambda: _fetched(system, path)))


def _fetched(system: Any, path: str) -> IO[bytes]:
    """The whole of a file, in memory or on the disk."""
    whole = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 (the caller closes it)
    with system.open(path, "rb", block_size=0) as stream:
        shutil.copyfileobj(stream, whole)
    whole.seek(0)
    return cast("IO[bytes]", whole)


def size_and_version(url: str) -> tuple[int, int]:
    """Return the size in bytes, and a number made from the version fields of the server; errors as `open_file`."""
    with _as_os_errors():
        system, path = _file_system(url)
        system.invalidate_cache(path)
        found = system.info(path)
    if found.get("type") == "directory":
        raise IsADirectoryError(url)
    fields = repr([str(found[field]) for field in _VERSION_FIELDS if field in found])
    version = int.from_bytes(hashlib.blake2b(fields.encode(), digest_size=7).digest(), "big")
    return int(found.get("size") or 0), version


def matching(pattern: str) -> list[str]:
    """Return the URLs that a pattern with ``*`` matches, sorted; errors as `open_file`."""
    with _as_os_errors():
        system, path = _file_system(pattern)
        return sorted(system.unstrip_protocol(found) for found in system.glob(path))


class _Remote(io.RawIOBase):
    """A stream of fsspec whose failures are OSErrors."""

    def __init__(self, stream: Any, fetch: Callable[[], IO[bytes]]) -> None:
        super().__init__()
        self._fetch = fetch
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._stream.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._stream.seek(offset, whence))

    def readinto(self, buffer: Any, /) -> int:
        with _as_os_errors(), memoryview(buffer).cast("B") as view:
            data = self._read(len(view))
            view[: len(data)] = data
            return len(data)

    def _read(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except ValueError:  # the server turned out not to know ranges
            at = self._stream.tell()
            self._stream.close()
            self._stream = self._fetch()
            self._stream.seek(at)
            return bytes(self._stream.read(size))

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except ImportError as error:
        what = f"a URL needs the package {error.name or 'fsspec'}"
        raise InputError.at(url, what, "pip install 'skymatch-cli[remote]'") from None
    return system, path


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if error.__cause__ is None or getattr(error.__cause__, "status", None) == _NOT_FOUND:
            raise
        raise OSError(reason(error.__cause__)) from error  # no answer does not mean no file
    except (InputError, PermissionError, IsADirectoryError):
        raise
    except OSError as error:
        if error.strerror:
            raise
        raise OSError(reason(error)) from error
    except Exception as error:  # every protocol's package has errors of its own
        raise OSError(reason(error)) from error
