"""Keep the cells of sheets for repeated passes: in memory up to a limit, then in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from typing import IO, Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _InFile:
    place: int
    size: int


class Kept(Generic[T]):
    """Dataclasses of arrays, or arrays, in their order: up to ``most_bytes`` in memory; the stack closes the file."""

    def __init__(self, most_bytes: int, stack: ExitStack) -> None:
        self._room, self._stack = most_bytes, stack
        self._values: list[T | _InFile] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[T]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> T:
        value = self._values[k]
        if not isinstance(value, _InFile):
            return value
        self._opened().seek(value.place)
        read: T = pickle.load(self._opened())  # noqa: S301 - written by this process, without a name
        return read

    def __setitem__(self, k: int, value: T) -> None:
        """Replace a value by one with arrays of the same shapes."""
        before = self._values[k]
        self._values[k] = self._written(value, before) if isinstance(before, _InFile) else value

    def append(self, value: T) -> None:
        """Add a value."""
        self._room -= _n_bytes(value)
        self._values.append(value if self._room >= 0 else self._written(value, _InFile(0, 0)))

    def _written(self, value: T, before: _InFile) -> _InFile:
        """Write a value in the place of another, or at the end if it is larger."""
        data, file = pickle.dumps(value, pickle.HIGHEST_PROTOCOL), self._opened()
        place = file.seek(before.place) if len(data) <= before.size else file.seek(0, 2)
        file.write(data)
        return _InFile(place, len(data))

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = self._stack.enter_context(tempfile.TemporaryFile(prefix="skymatch-"))  # noqa: SIM115 - it does
        return self._file


def _n_bytes(value: Any) -> int:
    """Bytes of the arrays in a dataclass."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value):
        return sum(_n_bytes(getattr(value, f.name)) for f in fields(value))
    return sum(map(_n_bytes, value)) if isinstance(value, tuple) else 0
