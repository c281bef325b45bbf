"""Images in memory, each under a name by which it is read as a FITS file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import IO, Any, cast

from skymatch_cli.images.formats.registry import Transport
from skymatch_cli.images.formats.view import FitsView

PREFIX = "skymatch-memory://"

_NUMBERS = itertools.count()
_HELD: dict[str, Sequence[tuple[bytes, Any]]] = {}


def hold(parts: Sequence[tuple[bytes, Any]], name: str) -> str:
    """Make HDUs readable under a path, until `release`.

    Parameters
    ----------
    parts : sequence of (header, array or bytes)
        As `FitsView` takes them; arrays are not copied.
    name : str
        The last part of the path.
    """
    path = f"{PREFIX}{next(_NUMBERS)}/{name}"
    _HELD[path] = parts
    return path


def release(paths: Iterable[str]) -> None:
    """Forget images."""
    for path in paths:
        _HELD.pop(path, None)


def _open(path: str) -> IO[bytes]:
    if path not in _HELD:
        raise FileNotFoundError(path)
    return cast("IO[bytes]", FitsView(_HELD[path]))


def _size_and_version(path: str) -> tuple[int, int]:
    with _open(path) as view:
        return view.seek(0, 2), 0


FORMAT = Transport(open_file=_open, size_and_version=_size_and_version, matching=lambda path: [path])
