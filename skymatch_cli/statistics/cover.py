"""Which tiles of an image a set of regions covers, wholly or in part.

The image is cut into tiles of 32 x 32 pixels, so a row of a tile is one 32-bit word of flags. Exclusive-or alone
turns the runs of a region into such words, without a mask of the frame: a run flips the flags from its first column
on, and flips them back after its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, IntArray
from skymatch_cli.sky.raster import Spans

SIDE = 32
"""Rows and columns of a tile."""

_ALL = np.uint32(0xFFFFFFFF)
_FRAMES = 2**23  # pixels (of the frame, times regions) whose flags fit in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """The tiles that regions cover, sorted by region; a band is a row of tiles."""

    n_regions: int
    run_region: IntArray  # (r,): runs of wholly covered tiles: columns ``first <= column < last`` of a band
    band: IntArray  # (r,)
    first: IntArray  # (r,)
    last: IntArray  # (r,)
    edge_region: IntArray  # (e,): tiles that are covered in part
    edge_band: IntArray  # (e,)
    edge_column: IntArray  # (e,)
    edge_flags: npt.NDArray[np.uint32]  # (e, SIDE) uint32: their covered pixels: one word per row, lowest bit first

    def edge_pixels(self, tiles: slice = slice(None)) -> BoolArray:
        """Return the covered pixels of some partly covered tiles, (e, SIDE * SIDE) bool."""
        flags = self.edge_flags[tiles].astype("<u4", copy=False).view(np.uint8)
        return np.unpackbits(flags, axis=1, bitorder="little").view(np.bool_)


def n_tiles(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the numbers of bands and columns of tiles in a frame of ``shape`` (ny, nx)."""
    return -(-shape[0] // SIDE), -(-shape[1] // SIDE)


def cover(regions: Sequence[Spans], shape: tuple[int, int]) -> Cover:
    """Find the tiles that regions cover.

    Parameters
    ----------
    regions : sequence of Spans
        Pixels of each region.
    shape : (ny, nx)
        Of the image. The last tiles reach beyond its border; the pixels there are empty, and count as covered where
        the pixels next to them are.
    """
    together = max(1, _FRAMES // (shape[0] * shape[1]))
    parts = [_cover(regions[k : k + together], shape, k) for k in range(0, len(regions), together)]
    columns = ([getattr(part, f.name) for part in parts] for f in fields(Cover) if f.name != "n_regions")
    return Cover(len(regions), *(np.concatenate(column) for column in columns))


def _cover(regions: Sequence[Spans], shape: tuple[int, int], first: int) -> Cover:
    """Find the tiles that some regions cover; the first of these has the number ``first``."""
    bands, columns = n_tiles(shape)
    flags = _flags(regions, shape)
    whole = np.bitwise_and.reduce(flags, axis=1).T == _ALL
    part = (np.bitwise_or.reduce(flags, axis=1).T != 0) & ~whole
    band, column = np.nonzero(part)
    framed = np.zeros((len(whole), columns + 2), dtype=bool)
    framed[:, 1:-1] = whole
    run_band, change = np.nonzero(framed[:, 1:] != framed[:, :-1])
    run_region, run_band = np.divmod(run_band[::2], bands)
    edge_region, edge_band = np.divmod(band, bands)
    return Cover(
        n_regions=len(regions),
        run_region=run_region + first,
        band=run_band,
        first=change[::2],
        last=change[1::2],
        edge_region=edge_region + first,
        edge_band=edge_band,
        edge_column=column,
        edge_flags=flags[column, :, band],
    )


def _flags(regions: Sequence[Spans], shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Return the flags as words, (columns, SIDE, regions * bands): bands last, since all are treated alike."""
    (ny, nx), (bands, columns) = shape, n_tiles(shape)
    y = np.concatenate([spans.y for spans in regions])
    band = (y >> 5) + np.repeat(np.arange(len(regions)) * bands, [len(spans.y) for spans in regions])
    row = (y & 31) * (len(regions) * bands) + band
    x1 = np.concatenate([spans.x1 for spans in regions])
    words = np.zeros((columns + 1, SIDE * len(regions) * bands), dtype=np.int32)
    for x in (np.concatenate([spans.x0 for spans in regions]), np.where(x1 == nx, columns * SIDE, x1)):
        place = (x >> 5) * words.shape[1] + row
        np.bitwise_xor.at(words.view(np.uint32).reshape(-1), place, _ALL << (x & 31).astype(np.uint32))
    for k in range(1, columns):  # carry the last flag of a word into the next
        words[k] ^= words[k - 1] >> 31
    flags = words[:columns].view(np.uint32).reshape(columns, SIDE, len(regions) * bands)
    if ny % SIDE:
        flags[:, ny % SIDE :, bands - 1 :: bands] = flags[:, ny % SIDE - 1, None, bands - 1 :: bands]
    return flags
