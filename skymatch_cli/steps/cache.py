"""What ``match --cache`` keeps in a folder: the headers and the findings of the images of the last run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from skymatch_cli.errors import InputError, UsageError
from skymatch_cli.fits.known import Headers
from skymatch_cli.output.destination import save_target
from skymatch_cli.steps.findings import Measured, renewed
from skymatch_cli.steps.plan import Plan
from skymatch_cli.steps.store import read_measured, read_plan_headers, write_headers, write_measured


@dataclass
class Cache:
    """A folder with what was measured.

    Parameters
    ----------
    folder : str
        It is made if there is none.

    Attributes
    ----------
    old : Measured or None
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
    old: Measured | None = field(init=False, default=None)
    headers: Headers | None = field(init=False, default=None)
    warnings: tuple[str, ...] = field(init=False, default=())
    _now: Measured | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--cache {self.folder}: {error.strerror or error}", "name a folder") from None
        try:
            if self._headers_file.exists():
                self.headers = read_plan_headers(str(self._headers_file))
            if self._file.exists():
                self.old = read_measured(str(self._file))[1]
        except InputError as error:
            self.warnings = (f"the cache can't be used, all is read anew: {error}",)

    @property
    def _file(self) -> Path:
        return Path(self.folder, "measured.fits")

    @property
    def _headers_file(self) -> Path:
        return Path(self.folder, "headers.fits")

    def save_headers(self, headers: Headers) -> None:
        """Keep what was read, instead of what was there."""
        if headers != self.headers:
            save_target(str(self._headers_file), "--cache", lambda stream: write_headers(headers, stream))

    def save(self, measured: Measured) -> None:
        """Keep what was found, instead of what was there."""
        self._now = measured
        planned = Plan(measured.settings, measured.infos, (), measured.graph, (), ())
        save_target(str(self._file), "--cache", lambda stream: write_measured(planned, measured, stream))

    def renew(self, files: Collection[str]) -> None:
        """Keep what was found in files that were written since by this program."""
        if self._now is not None and files:
            self.save(renewed(self._now, frozenset(files)))
