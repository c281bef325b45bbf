"""Keep sheets for repeated passes: in memory up to a limit, then in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from typing import IO, Any, cast

import numpy as np

from skymatch_cli.compare.mesh.sheets import Sheet


class KeptSheets:
    """Sheets in their order.

    Parameters
    ----------
    most_bytes : int
        What memory holds of them.
    stack : ExitStack
        Closes the file.
    """

    def __init__(self, most_bytes: int, stack: ExitStack) -> None:
        self._room, self._stack = most_bytes, stack
        self._sheets: list[Sheet | int] = []  # themselves, or their places in the file
        self._file: IO[bytes] | None = None

    def __iter__(self) -> Iterator[Sheet]:
        for sheet in self._sheets:
            if isinstance(sheet, Sheet) or self._file is None:
                yield cast("Sheet", sheet)
                continue
            self._file.seek(sheet)
            yield pickle.load(self._file)  # noqa: S301 - written by this process, without a name

    def append(self, sheet: Sheet) -> None:
        """Add a sheet."""
        self._room -= _n_bytes(sheet)
        if self._room >= 0:
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
