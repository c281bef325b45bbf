"""The SQLite file behind a store: locking, and rows that are verified when they are read.

Every row carries a digest of its place and its content. A file is refused by name where SQLite finds it damaged,
where a digest is wrong, and where another program or another version wrote it. One process writes: it holds an
exclusive lock until it closes the file. The rollback journal is SQLite's own (not WAL, which network file systems
can't have): the next run that opens the file rolls back a write that was interrupted.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from skymatch_cli.errors import InputError, Problem, SkymatchError, StoppedError

APPLICATION_ID = 0x534B594D  # "SKYM"
SCHEMA_VERSION = 1
DIGEST_BYTES = 16
_WAIT_S = 5.0  # for a reader while another process rolls back an interrupted write
_SQLITE_MAGIC = b"SQLite format 3\0"
_HINT = "name a file that `skymatch plan --store FILE IMAGES...` or `skymatch match --store FILE` wrote"
_ANEW = "remove it, or name another file"
_TABLES = ("files", "headers", "columns", "overlaps", "polygons")
_FINDINGS = """CREATE TABLE findings (
    image BLOB, how BLOB, local INTEGER, bad INTEGER, overlaps BLOB, body BLOB, digest BLOB, PRIMARY KEY (image, how)
)"""


def digest_of(*parts: bytes) -> bytes:
    """Digest of bytes; each part counts with its length."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


class Database:
    """An open file; use it in a ``with`` block.

    ``layout`` says how rows are encoded: a file with another one is of another version. ``write`` takes the file for
    this process alone; otherwise it is read, by any number of processes. ``create`` makes it where there is none; one
    in which nothing was stored is removed again. InputError if it can't be opened, is in use, is damaged, or is not a
    store of this version.
    """

    def __init__(self, file: str, *, layout: str, write: bool = False, create: bool = False) -> None:
        self.file = file
        self._layout = hashlib.blake2b(layout.encode(), digest_size=DIGEST_BYTES).hexdigest()
        path = Path(os.path.abspath(file))  # noqa: PTH100 - links stay; and no name is special to SQLite then
        self._new = create and (not path.exists() or (path.is_file() and not path.stat().st_size))
        if not self._new:
            _check_kind(path, file)
        mode = "rwc" if self._new else "rw" if os.access(path, os.W_OK) or write else "ro"
        with self.explained():
            where = f"file:{quote(os.fsencode(path))}?mode={mode}"
            self._db = sqlite3.connect(where, uri=True, isolation_level=None, timeout=0 if write else _WAIT_S)
            try:
                self._begin(write=write, create=create)
            except BaseException:
                self._db.close()
                raise
        self._path = path

    def _begin(self, *, write: bool, create: bool) -> None:
        self._db.execute("PRAGMA synchronous = FULL")
        if write:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.execute("BEGIN EXCLUSIVE")
            self._db.execute("COMMIT")
        if create and not self._new:  # what a run that failed while it made the file began is taken back by now
            self._new = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if self._new:
            self._make()
        else:
            self._check()

    def _make(self) -> None:
        with self.transaction():
            self._db.execute("CREATE TABLE facts (k TEXT PRIMARY KEY, body BLOB, digest BLOB)")
            for name in _TABLES:
                self._db.execute(f"CREATE TABLE {name} (k INTEGER PRIMARY KEY, body BLOB, digest BLOB)")
            self._db.execute(_FINDINGS)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self.put("facts", [("layout", self._layout.encode())])

    def _check(self) -> None:
        application, version = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in _VERSIONS)
        if application != APPLICATION_ID:
            raise InputError.at(self.file, "is a database of another program", _HINT)
        if version == SCHEMA_VERSION and self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise self.damaged()
        if version != SCHEMA_VERSION or self.get("facts", "layout") != self._layout.encode():
            raise InputError.at(self.file, "is a store of another version of skymatch", _ANEW)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and remove it again if it is new and nothing was stored in it."""
        if self._new:
            with suppress(sqlite3.Error):
                if not self._db.execute("SELECT 1 FROM facts WHERE k != 'layout' LIMIT 1").fetchone():
                    self._path.unlink(missing_ok=True)
        self._db.close()

    def damaged(self, what: str = "") -> InputError:
        """The error where the file is damaged."""
        return InputError.at(self.file, f"is damaged{what and ': ' + what}", _ANEW)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn errors of SQLite into a StoppedError if the file can't be written, else an InputError."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._explained(error) from None
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from None
        except UnicodeDecodeError:  # the message of SQLite quotes the damaged text
            raise self.damaged("its tables are not text") from None

    def _explained(self, error: sqlite3.OperationalError) -> SkymatchError:
        code = error.sqlite_errorcode & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return InputError.at(self.file, "another run is writing here", "wait for it to end, then run again")
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
            return InputError.at(self.file, f"can't be opened for writing: {error}", "name another file")
        if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            hint = "free some space, then run again: what was measured before is kept"
            return StoppedError([Problem(f"{self.file} can't be written", str(error), hint)])
        return self.damaged(str(error))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all of the block, or nothing of it."""
        with self.explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def put(self, table: str, rows: Iterable[tuple[int | str, bytes]]) -> None:
        """Store rows, each under a number or a name."""
        kept = ((k, body, _digest(table, k, body)) for k, body in rows)
        with self.explained():
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", kept)  # noqa: S608 (a table of this module)

    def clear(self, table: str, low: int = 0) -> None:
        """Remove the rows of a table from a number on."""
        with self.explained():
            self._db.execute(f"DELETE FROM {table} WHERE k >= ?", (low,))  # noqa: S608 (a table of this module)

    def get(self, table: str, k: int | str) -> bytes | None:
        """A row; None where there is none."""
        found = self._all(f"SELECT k, body, digest FROM {table} WHERE k = ?", (k,))  # noqa: S608
        if found and found[0][0] != k:
            raise self.damaged(f"the index of {table} is wrong")
        return self._checked(table, found[0]) if found else None

    def span(self, table: str, low: int, high: int) -> list[bytes]:
        """The rows with the numbers from ``low`` to ``high`` (not included), all of which must exist."""
        query = f"SELECT k, body, digest FROM {table} WHERE k >= ? AND k < ? ORDER BY k"  # noqa: S608
        rows = self._all(query, (low, high))
        if [row[0] for row in rows] != list(range(low, high)):
            raise self.damaged(f"rows of {table} are missing")
        return [self._checked(table, row) for row in rows]

    def _checked(self, table: str, row: Sequence[Any]) -> bytes:
        k, body, digest = row
        if not isinstance(body, bytes) or digest != _digest(table, k, body):
            raise self.damaged(f"a row of {table} is not what was written")
        return body

    def put_finding(self, row: FindingRow) -> None:
        """Store the finding of an image; it replaces an earlier one with the same keys."""
        with self.explained():
            self._db.execute(
                "INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, _finding_digest(row))
            )

    def finding(self, image: bytes, how: bytes) -> FindingRow | None:
        """The finding of an image with these keys, or None."""
        rows = self._all("SELECT * FROM findings WHERE image = ? AND how = ?", (image, how))
        if rows and rows[0][:2] != (image, how):
            raise self.damaged("the index of findings is wrong")
        return self._checked_finding(rows[0]) if rows else None

    def findings_of(self, image: bytes) -> list[FindingRow]:
        """All findings of an image, one for every way of measuring."""
        found = [self._checked_finding(row) for row in self._all("SELECT * FROM findings WHERE image = ?", (image,))]
        if any(row[0] != image for row in found):
            raise self.damaged("the index of findings is wrong")
        return found

    def each_finding(self) -> Iterator[FindingRow]:
        """All findings, one by one, while nothing is written."""
        with self.explained():
            for row in self._db.execute("SELECT * FROM findings ORDER BY rowid"):
                yield self._checked_finding(row)

    def finding_keys(self) -> Iterator[tuple[bytes, bytes, bool, bool, bytes]]:
        """All findings without their content: ``image``, ``how``, ``local``, ``bad`` and ``overlaps``."""
        with self.explained():
            for row in self._db.execute("SELECT image, how, local, bad, overlaps FROM findings"):
                if not (isinstance(row[4], bytes) and row[4]):
                    raise self.damaged("a finding is not what was written")
                yield row

    def forget(self, images: Iterable[bytes]) -> None:
        """Remove the findings of images."""
        with self.explained():
            self._db.executemany("DELETE FROM findings WHERE image = ?", ((image,) for image in images))

    def _checked_finding(self, row: Sequence[Any]) -> FindingRow:
        *own, digest = row
        if not all(isinstance(own[k], bytes) for k in (0, 1, 4, 5)) or digest != _finding_digest(tuple(own)):
            raise self.damaged("a finding is not what was written")
        return tuple(own)

    def _all(self, query: str, values: tuple[object, ...]) -> list[Any]:
        with self.explained():
            return self._db.execute(query, values).fetchall()


FindingRow = tuple[Any, ...]
"""``image``, ``how``, ``local``, ``bad``, ``overlaps``, ``body``: keys, properties and the encoded finding."""

_VERSIONS = ("application_id", "user_version")


def _digest(table: str, k: int | str, body: bytes) -> bytes:
    return digest_of(table.encode(), repr(k).encode(), body)


def _finding_digest(row: Sequence[Any]) -> bytes:
    image, how, local, bad, overlaps, body = row
    return digest_of(image, how, bytes([bool(local), bool(bad)]), overlaps, body)


def _check_kind(path: Path, file: str) -> None:
    """Refuse a file that is not a database, before SQLite opens it."""
    try:
        if path.is_dir():
            raise InputError.at(file, "is a folder, not a file", "name a file")
        if path.exists() and not path.is_file():
            raise InputError.at(file, "is a pipe or a device, not a file", "name a file")
        with path.open("rb") as stream:
            magic = stream.read(len(_SQLITE_MAGIC))
    except FileNotFoundError:
        raise InputError.at(file, "no such file", _HINT) from None
    except OSError as error:
        raise InputError.at(file, f"can't be read: {error.strerror or error}", _HINT) from None
    if magic != _SQLITE_MAGIC:
        raise InputError.at(file, "is not a store of skymatch", _HINT)
