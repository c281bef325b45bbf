"""What ``match --cache`` keeps in a folder: the headers and the findings of the images of the last run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from skymatch_cli.errors import InputError, SkymatchError, UsageError
from skymatch_cli.images.formats.gwcs import GwcsWcs
from skymatch_cli.images.known import Headers
from skymatch_cli.model import CelestialWcs
from skymatch_cli.output.destination import save_target
from skymatch_cli.sky.celestial import FitsWcs
from skymatch_cli.store.columnfile import read_columns, write_columns
from skymatch_cli.store.columns import from_columns, to_columns
from skymatch_cli.store.findings import Measured, renewed
from skymatch_cli.store.kept import Kept

_Whole = TypeVar("_Whole", Headers, Kept)
_WCS = {CelestialWcs: (FitsWcs, GwcsWcs)}


@dataclass
class Cache:
    """A folder with what was measured.

    Parameters
    ----------
    folder : str
        It is made if there is none.

    Attributes
    ----------
    old : Kept or None
        What earlier runs found.
    headers : Headers or None
        What they read.
    warnings : tuple of str

    Raises
    ------
    UsageError
        If the folder can't be made.
    """

    folder: str
    old: Kept | None = field(init=False, default=None)
    headers: Headers | None = field(init=False, default=None)
    warnings: tuple[str, ...] = field(init=False, default=())
    _now: Measured | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--cache {self.folder}: {error.strerror or error}", "name a folder") from None
        self.headers = self._read(Headers, self._headers_file)
        self.old = self._read(Kept, self._file)

    @property
    def _file(self) -> Path:
        return Path(self.folder, "measured.columns")

    @property
    def _headers_file(self) -> Path:
        return Path(self.folder, "headers.columns")

    def _read(self, cls: type[_Whole], file: Path) -> _Whole | None:
        """What a file holds; None where there is none, or one that can't be used."""
        try:
            return from_columns(cls, read_columns(str(file)), _WCS)
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 (whatever a damaged file trips over)
            why = f"{file}: {getattr(error, 'strerror', None) or error!s:.80}"
            self.warnings += (f"the cache can't be used, its part is read anew: {why}",)
            return None

    def _write(self, whole: object, file: Path) -> None:
        columns = to_columns(whole, _WCS)
        try:
            save_target(str(file), "--cache", lambda stream: write_columns(columns, stream))
        except SkymatchError as error:  # what was found is worth more than the next run's time
            self.warnings += tuple(line for line in error.lines() if line not in self.warnings)

    def save_headers(self, headers: Headers) -> None:
        """Keep what was read, instead of what was there."""
        if headers != self.headers:
            usable = tuple(image for image in headers.images if not isinstance(image.footprint, InputError))
            self._write(replace(headers, images=usable), self._headers_file)

    def save(self, measured: Measured) -> None:
        """Keep what was found, instead of what was there."""
        self._now = measured
        kept = Kept.of(measured)
        if self.old is None or not kept.is_same(self.old):
            self._write(kept, self._file)

    def renew(self, files: Collection[str]) -> None:
        """Keep what was found in files that were written since by this program."""
        if self._now is not None and files:
            self.save(renewed(self._now, frozenset(files)))
