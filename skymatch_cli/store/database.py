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
_TABLES = {
    "facts": "k TEXT PRIMARY KEY, body BLOB",
    **dict.fromkeys(("files", "headers", "columns", "overlaps", "polygons"), "k INTEGER PRIMARY KEY, body BLOB"),
    "findings": "k BLOB PRIMARY KEY, head BLOB, body BLOB",
}
Row = tuple[Any, ...]
"""A row without its digest: its key, and bytes; of a finding two, of which the head is read alone too."""


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
            for name, columns in _TABLES.items():
                self._db.execute(f"CREATE TABLE {name} ({columns}, digest BLOB)")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self.put("facts", [("layout", self._layout.encode())])

    def _check(self) -> None:
        names = "application_id", "user_version"
        application, version = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
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

    def put(self, table: str, rows: Iterable[Row]) -> None:
        """Store rows, in place of those with their keys."""
        kept = ((*row, _digest(table, row)) for row in rows)
        marks = ", ".join("?" * (_TABLES[table].count(",") + 2))
        with self.explained():
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", kept)  # noqa: S608 (a table of this module)

    def clear(self, table: str, low: int = 0) -> None:
        """Remove the rows of a table from a number on."""
        with self.explained():
            self._db.execute(f"DELETE FROM {table} WHERE k >= ?", (low,))  # noqa: S608 (a table of this module)

    def get(self, table: str, k: int | str | bytes) -> bytes | None:
        """The content of a row; None where there is none."""
        row = self.row(table, k)
        return None if row is None else row[-1]

    def row(self, table: str, k: int | str | bytes) -> Row | None:
        """A row; None where there is none."""
        rows = list(self._select(table, "k = ?", k))
        if rows and rows[0][0] != k:
            raise self.damaged(f"the index of {table} is wrong")
        return rows[0] if rows else None

    def span(self, table: str, low: int, high: int) -> list[bytes]:
        """The contents of the rows from ``low`` to ``high`` (not included), all of which must exist."""
        rows = list(self._select(table, "k >= ? AND k < ? ORDER BY k", low, high))
        if [row[0] for row in rows] != list(range(low, high)):
            raise self.damaged(f"rows of {table} are missing")
        return [row[-1] for row in rows]

    def findings(self, image: bytes = b"") -> Iterator[Row]:
        """All findings, or those with keys that begin so, one by one; nothing may be written meanwhile."""
        for row in self._select("findings", "k BETWEEN ? AND ? ORDER BY k", image, _end(image)):
            if not row[0].startswith(image):
                raise self.damaged("the index of findings is wrong")
            yield row

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """The keys and heads of all findings."""
        with self.explained():
            for k, head in self._db.execute("SELECT k, head FROM findings"):
                if not (isinstance(k, bytes) and isinstance(head, bytes) and len(head) > 2):
                    raise self.damaged("a finding is not what was written")
                yield k, head

    def forget(self, images: Iterable[bytes]) -> None:
        """Remove findings by the beginnings of their keys."""
        with self.explained():
            ranges = ((image, _end(image)) for image in images)
            self._db.executemany("DELETE FROM findings WHERE k BETWEEN ? AND ?", ranges)

    def _select(self, table: str, where: str, *values: object) -> Iterator[Row]:
        with self.explained():
            for *row, digest in self._db.execute(f"SELECT * FROM {table} WHERE {where}", values):  # noqa: S608 (as above)
                if not all(isinstance(part, bytes) for part in row[1:]) or digest != _digest(table, row):
                    raise self.damaged(f"a row of {table} is not what was written")
                yield tuple(row)


def _end(start: bytes) -> bytes:
    """The last key that begins so."""
    return start.ljust(2 * DIGEST_BYTES, b"\xff")


def _digest(table: str, row: Sequence[Any]) -> bytes:
    k, *content = row
    return digest_of(table.encode(), repr(k).encode(), *content)


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
