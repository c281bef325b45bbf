"""Sheets that are gone through many times: in memory while there is room, else in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from typing import IO, Any

import numpy as np

from skymatch_cli.compare.mesh.sheets import Sheet


class KeptSheets:
    """Sheets by their numbers.

    Parameters
    ----------
    most_bytes : int
        What memory holds of them.
    stack : ExitStack
        Closes the file.
    """

    def __init__(self, most_bytes: int, stack: ExitStack) -> None:
        self._room, self._stack = most_bytes, stack
        self._sheets: list[Sheet | int | None] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._sheets)

    def __getitem__(self, k: int) -> Sheet | None:
        sheet = self._sheets[k]
        if self._file is None or not isinstance(sheet, int):
            return sheet if isinstance(sheet, Sheet) else None
        self._file.seek(sheet)
        read: Sheet = pickle.load(self._file)  # noqa: S301 - written by this process, without a name
        return read

    def append(self, sheet: Sheet | None) -> None:
        """Add a sheet, or None where a plan has none."""
        if sheet is not None:
            self._room -= _n_bytes(sheet)
        if sheet is None or self._room >= 0:
            self._sheets.append(sheet)
            return
        if self._file is None:
            self._file = self._stack.enter_context(tempfile.TemporaryFile(prefix="skymatch-"))  # noqa: SIM115 - it does
        self._sheets.append(self._file.seek(0, 2))
        pickle.dump(sheet, self._file, pickle.HIGHEST_PROTOCOL)


def _n_bytes(value: Any) -> int:
    """Bytes of the arrays in a dataclass."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value):
        return sum(_n_bytes(getattr(value, f.name)) for f in fields(value))
    return sum(map(_n_bytes, value)) if isinstance(value, tuple) else 0
