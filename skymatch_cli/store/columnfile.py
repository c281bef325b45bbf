"""A file of named columns of numbers: what a cache is kept in. It is read whole, in one go, and checked."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, npt.NDArray[Any]]

_MAGIC = b"skymatch columns 1\n"
_ALIGNED = 8
_KINDS = frozenset("biufS")


def write_columns(columns: Columns, stream: BinaryIO) -> None:
    """Write columns: an index (JSON) with its length, the columns one after another, and a checksum of it all."""
    index = json.dumps([[name, values.dtype.str, values.shape] for name, values in columns.items()]).encode("ascii")
    checksum = 0
    for piece in (_MAGIC, len(index).to_bytes(8, "little"), index, *map(_padded, columns.values())):
        checksum = zlib.crc32(piece, checksum)
        stream.write(piece)
    stream.write(checksum.to_bytes(4, "little"))


def read_columns(file: str) -> Columns:
    """Read columns; they share the memory of the file's content and can't be written to.

    Raises
    ------
    OSError, ValueError
        If it can't be read, is another file or is damaged.
    """
    return columns_in(Path(file).read_bytes())


def columns_in(content: bytes) -> Columns:
    """The columns that `write_columns` wrote; they share the memory of the content and can't be written to.

    Raises
    ------
    ValueError
        If it is something else, or damaged.
    """
    if not content.startswith(_MAGIC):
        raise ValueError("it is another kind of file")
    body = memoryview(content)[:-4]
    if zlib.crc32(body) != int.from_bytes(content[-4:], "little"):
        raise ValueError("its checksum is wrong")
    start = len(_MAGIC) + 8
    size = int.from_bytes(body[len(_MAGIC) : start], "little")
    columns: dict[str, npt.NDArray[Any]] = {}
    end = start + size
    for name, code, shape in json.loads(bytes(body[start:end])):
        dtype = np.dtype(code)
        if dtype.kind not in _KINDS:
            raise ValueError("it holds no numbers")
        count = int(np.prod(shape, dtype=np.int64))
        columns[name] = np.frombuffer(body, dtype, count, end).reshape(shape)
        end += -(-count * dtype.itemsize // _ALIGNED) * _ALIGNED
    return columns


def _padded(values: npt.NDArray[Any]) -> bytes:
    content = values.tobytes()
    return content + bytes(-len(content) % _ALIGNED)
