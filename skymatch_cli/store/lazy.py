"""Images and polygons of a plan that stay in their store until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import overload

import numpy as np

from skymatch_cli.model import ImageInfo, IntArray
from skymatch_cli.model.polygons import Polygons

_AT_A_TIME = 64  # images that are read together
_BLOCKS_HELD = 2


class StoredInfos(Sequence[ImageInfo]):
    """``n`` images, which ``read(low, high)`` reads from the store."""

    def __init__(self, read: Callable[[int, int], list[ImageInfo]], n: int) -> None:
        self._read, self._n = read, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, i: int) -> ImageInfo: ...

    @overload
    def __getitem__(self, i: slice) -> Sequence[ImageInfo]: ...

    def __getitem__(self, i: int | slice) -> ImageInfo | Sequence[ImageInfo]:
        if isinstance(i, slice):
            low, high, step = i.indices(self._n)
            return self._read(low, max(low, high)) if step == 1 else [self[k] for k in range(low, high, step)]
        if not -self._n <= i < self._n:
            raise IndexError(i)
        return self._read(i % self._n, i % self._n + 1)[0]

    def __iter__(self) -> Iterator[ImageInfo]:
        for low in range(0, self._n, _AT_A_TIME):
            yield from self._read(low, min(low + _AT_A_TIME, self._n))


class StoredPolygons:
    """``n`` polygons as `PolygonRows`.

    ``read(low, high)`` reads blocks of ``block`` polygons, of which one or two are in memory.
    """

    def __init__(self, read: Callable[[int, int], list[Polygons]], n: int, block: int) -> None:
        self._n, self._rows = n, block
        self._block = lru_cache(_BLOCKS_HELD)(lambda k: read(k, k + 1)[0])

    def __len__(self) -> int:
        return self._n

    def part(self, rows: IntArray) -> Polygons:
        """Return the polygons of some rows."""
        block = rows // self._rows
        edges = np.flatnonzero(np.diff(block, prepend=-1, append=-1))
        runs = [(int(block[low]), rows[low:high] % self._rows) for low, high in pairwise(edges)]
        return Polygons.joined([self._block(k).part(own) for k, own in runs])
