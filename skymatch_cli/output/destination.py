"""Where a report goes: which file, which format, which table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from skymatch_cli.choices import Format, TableName
from skymatch_cli.errors import UsageError, unwritten
from skymatch_cli.record.atomic import replacing
from skymatch_cli.record.disk import obstacle
from skymatch_cli.record.files import FilesRead
from skymatch_cli.settings import checked_choice

if TYPE_CHECKING:
    from skymatch_cli.output.tables import Report

_SUFFIXES = {f".{form}": form for form in Format if form != Format.TABLE}
_SPOOLED_BYTES = 2**24  # output to a pipe is buffered in memory up to this size
_ALL_TABLES = frozenset({Format.JSON, Format.FITS, Format.VOT})
_COMPRESSED = frozenset({".gz", ".bz2", ".fz", ".xz", ".zst", ".z", ".zip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The options that say where a result goes.

    ``output`` is a file, or None (also written ``-``) for standard output; ``format`` None is what the suffix says, and
    ``table`` on standard output; ``table`` is which one, for formats that hold one. UsageError if the format is
    unknown, can't be told from the suffix, or contradicts it.
    """

    output: str | None = None
    format: str | None = None
    table: str = "images"

    def __post_init__(self) -> None:
        if self.output == "-":
            object.__setattr__(self, "output", None)
        if self.format is not None:
            checked_choice("format", self.format, Format)
        checked_choice("table", self.table, TableName)
        form = self.form
        if self.table != TableName.IMAGES and form in _ALL_TABLES:
            raise UsageError(f"--table has no effect with {form}, which holds all tables", "leave it out")

    @property
    def form(self) -> Format:
        """The format that is written."""
        given = None if self.format is None else Format(self.format)
        if self.output is None:
            return given or Format.TABLE
        suffix = Path(self.output).suffix.lower()
        implied = _SUFFIXES.get(suffix)
        known = " ".join(_SUFFIXES)
        if suffix in _COMPRESSED:
            raise UsageError(f"--output {self.output}: {suffix} is not written", f"use one of {known}")
        if given is None and implied is None:
            raise UsageError(
                f"--output {self.output}: the suffix names no format", f"use one of {known}, or give --format"
            )
        if given is not None and implied is not None and given != implied:
            raise UsageError(f"--format {given} contradicts the suffix of --output {self.output}", "leave --format out")
        form = given or implied
        assert form is not None  # noqa: S101 (both None was refused above)
        return form

    def check(self, *, overwrite: bool, inputs: Iterable[str] = ()) -> None:
        """Refuse a file that may not be written, as `check_target`."""
        check_target(self.output, "--output", overwrite=overwrite, inputs=inputs)

    def dump(self, report: Report, stream: BinaryIO) -> None:
        """Write the report to an open stream, from its start to its end."""
        write_through(lambda whole: self._write(report, whole), stream)

    def _write(self, report: Report, stream: BinaryIO) -> None:
        from skymatch_cli.output.formats import WRITERS

        WRITERS[self.form](report, self.table, stream)

    def save(self, report: Report) -> None:
        """Write the report to the file, whole or not at all; StoppedError if it can't be written."""
        if self.output is None:
            raise ValueError("standard output is not a file")
        save_target(self.output, "--output", lambda stream: self._write(report, stream))


def check_target(file: str | None, option: str, *, overwrite: bool, inputs: Iterable[str] = ()) -> None:
    """Refuse a file that may not be written, before any work is done for it (UsageError).

    ``option`` is where the user named it; ``inputs`` is all that the run reads, which is never replaced.
    """
    if file is None:
        return
    path = Path(file)
    if path.is_dir():
        raise UsageError(f"{option} {path} is a directory", "name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no directory {path.parent}", "make it first")
    if not os.access(path.parent, os.W_OK) and (path.is_file() or not path.exists()):
        raise UsageError(f"{option} {path}: the directory can't be written", "choose another one")
    if what := obstacle(os.path.realpath(file)):
        raise UsageError(f"{option} {path} {what}", "choose another name")
    if not path.exists():
        return
    if file in FilesRead(inputs):
        raise UsageError(f"{option} {path} is one of the inputs", "choose another name")
    if not overwrite and path.is_file():
        raise UsageError(f"{option} {path} exists", "--overwrite replaces it")


def check_distinct(files: Mapping[str, str | None]) -> None:
    """Refuse two outputs, by their options, that would be the same file (UsageError)."""
    seen: dict[str, str] = {}
    for option, file in files.items():
        if file is None or (Path(file).exists() and not Path(file).is_file()):  # pipes and devices take both
            continue
        if (other := seen.setdefault(os.path.realpath(file), option)) != option:
            raise UsageError(f"{other} and {option} name the same file, {file}", "choose another name for one of them")


def save_target(file: str, option: str, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole, or StoppedError; a link stays a link, a pipe or device is written to."""
    named = Path(file)
    try:
        if named.exists() and not named.is_file():  # by the name that was given: /dev/stdout leads to no other
            with named.open("wb") as stream:
                write_through(write, stream)
        else:
            with replacing(os.path.realpath(file)) as stream:
                write(stream)
    except OSError as error:
        raise unwritten(f"{option} {file}", error) from error


def write_through(write: Callable[[BinaryIO], object], stream: BinaryIO) -> None:
    """Write to a stream that can't seek, or not where it would have to."""
    import shutil
    import tempfile

    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as whole:
        write(cast("BinaryIO", whole))
        whole.seek(0)
        shutil.copyfileobj(whole, stream)
