"""Files behind URLs, through fsspec: only the blocks that are read are fetched (extra ``remote``).

Whatever a protocol's package raises becomes an OSError with the URL's own words, so that the readers of files
need to know one kind of failure.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from skymatch_cli.errors import InputError, reason

_BLOCK_BYTES = 128 * 2**10  # read ahead, so that most headers take one request
_NOT_FOUND = 404
_NO_PARTS = "its server sends no parts of files (range requests): fetch it first"
_VERSION_FIELDS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "VersionId", "mtime", "created")


def open_file(url: str) -> IO[bytes]:
    """Open a remote file for reading and seeking.

    InputError if a package is missing; OSError if it can't be opened, or the server has no range requests.
    """
    with _as_os_errors():
        system, path = _file_system(url)
        stream = system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        if not stream.seekable():
            stream.close()
            raise OSError(_NO_PARTS)
    return cast("IO[bytes]", _Remote(stream))


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

    def __init__(self, stream: Any) -> None:
        super().__init__()
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
            try:
                data = bytes(self._stream.read(len(view)))
            except ValueError:
                raise OSError(_NO_PARTS) from None
            view[: len(data)] = data
            return len(data)

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
