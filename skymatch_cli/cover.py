"""How a region covers the tiles of an image: wholly, or in part.

The image is cut into tiles of 32 x 32 pixels, so that a row of a tile is one 32-bit word of flags. A
region given as runs along rows becomes such words by exclusive-or alone, without ever painting a mask of
the frame: a run flips the flags from its first column on, and flips them back behind its last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .model import BoolArray, IntArray
from .raster import Spans

SIDE = 32
"""Rows and columns of a tile."""

_ALL = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Tiles that a region covers; a band is a row of tiles.

    Attributes
    ----------
    band, first, last : (r,) int64
        Runs of wholly covered tiles: columns ``first <= column < last`` of a band.
    edge_band, edge_column : (e,) int64
        Tiles that are covered in part.
    edge_flags : (e, SIDE) uint32
        Their covered pixels: one word a row, lowest bit first.
    """

    band: IntArray
    first: IntArray
    last: IntArray
    edge_band: IntArray
    edge_column: IntArray
    edge_flags: npt.NDArray[np.uint32]

    def edge_pixels(self) -> BoolArray:
        """(e, SIDE * SIDE) bool, True for the covered pixels of the tiles that are covered in part."""
        flags = self.edge_flags.astype("<u4", copy=False).view(np.uint8)
        return np.unpackbits(flags, axis=1, bitorder="little").view(np.bool_)


def n_tiles(shape: tuple[int, int]) -> tuple[int, int]:
    """Bands and columns of tiles that hold a frame of ``shape`` (ny, nx)."""
    return -(-shape[0] // SIDE), -(-shape[1] // SIDE)


def cover(spans: Spans, shape: tuple[int, int]) -> Cover:
    """Tiles that a region covers.

    Parameters
    ----------
    spans : Spans
        Pixels of the region.
    shape : (ny, nx)
        Of the image. Pixels that complete the last tiles beyond its border count as covered where the
        pixels next to them are: they hold nothing.
    """
    bands, columns = n_tiles(shape)
    flags = _flags(spans, shape).reshape(columns, bands, SIDE).transpose(1, 0, 2)
    whole = np.bitwise_and.reduce(flags, axis=2) == _ALL
    band, column = np.nonzero((np.bitwise_or.reduce(flags, axis=2) != 0) & ~whole)
    steps = np.diff(whole.astype(np.int8), axis=1, prepend=0, append=0)
    (run_band, first), (_, last) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return Cover(run_band, first, last, band, column, flags[band, column])


def _flags(spans: Spans, shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """(columns, bands * SIDE) words; by columns first, so that the flips travel in long strides."""
    (ny, nx), (bands, columns) = shape, n_tiles(shape)
    words = np.zeros((columns + 1, bands * SIDE), dtype=np.uint32)
    onward = np.zeros_like(words)
    for x in (spans.x0, np.where(spans.x1 == nx, columns * SIDE, spans.x1)):
        column = x // SIDE
        np.bitwise_xor.at(words, (column, spans.y), _ALL << (x % SIDE).astype(np.uint32))
        np.bitwise_xor.at(onward, (column, spans.y), _ALL)
    if ny % SIDE:
        words[:, ny:], onward[:, ny:] = words[:, ny - 1 : ny], onward[:, ny - 1 : ny]
    for k in range(columns):  # a loop, because accumulate walks along the short axis
        onward[k + 1] ^= onward[k]
        words[k + 1] ^= onward[k]
    return words[:columns]
