"""Check that a tile-compressed image is safe to unpack: the decoders of HCOMPRESS and PLIO trust their input.

They take the size of a tile from its first bytes, not from the header, and write or read beyond their
memory where it is wrong. Layout: FITS Standard 4.0, section 10; streams of HCOMPRESS and PLIO as cfitsio
writes them.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

_ALGORITHMS = frozenset({"RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"})
_RICE_BLOCK = frozenset({16, 32})
_RICE_BYTES = frozenset({1, 2, 4})
_SEEDS = 10_000
_MAX_PARAMETERS = 20
_HCOMPRESS_MAGIC = b"\xdd\x99"
_PLIO_HEADER = 7  # 16-bit words
_WARNINGS = threading.Lock()  # warning filters belong to the process, not to the thread


@contextmanager
def opened_tiles(open_stream: Callable[[], IO[bytes]], index: int) -> Iterator[Any]:
    """Open a tile-compressed image whose values are as before packing: integers are not scaled; OSError if damaged."""
    from astropy.io import fits

    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of non-standard cards
            with open_stream() as stream, fits.open(stream, disable_image_compression=True) as hdus:
                check_streams(hdus[index])
            with open_stream() as stream, fits.open(stream, do_not_scale_image_data=True) as hdus:
                yield hdus[index]
    except Exception as error:  # noqa: BLE001 - damaged tiles raise whatever the decoder happens to trip over
        raise OSError(f"its compressed pixels are damaged: {error}") from None


def check_tiling(cards: Mapping[str, Any], axes: Sequence[int]) -> None:
    """Check what a header says about tiles of an image with these axes (first axis first); else ValueError."""
    algorithm = cards.get("ZCMPTYPE")
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"ZCMPTYPE is {algorithm!r:.40}")
    tiles = [cards.get(f"ZTILE{i}", axes[0] if i == 1 else 1) for i in range(1, len(axes) + 1)]
    if not all(type(tile) is int and tile > 0 for tile in tiles):
        raise ValueError(f"ZTILEn are {tiles!r:.60}")
    n_tiles = math.prod(-(-axis // tile) for axis, tile in zip(axes, tiles, strict=True))
    if n_tiles != cards.get("NAXIS2"):
        raise ValueError(f"{n_tiles} tiles don't fit a table of {cards.get('NAXIS2')!r:.40} rows")
    seed = cards.get("ZDITHER0")
    dithered = str(cards.get("ZQUANTIZ", "")).startswith("SUBTRACTIVE_DITHER")
    if dithered and not (type(seed) is int and 1 <= seed <= _SEEDS):
        raise ValueError(f"ZDITHER0 is {seed!r:.40}")
    _check_rice(cards)


def _check_rice(cards: Mapping[str, Any]) -> None:
    for i in range(1, _MAX_PARAMETERS):
        name, value = cards.get(f"ZNAME{i}"), cards.get(f"ZVAL{i}")
        if (name == "BLOCKSIZE" and value not in _RICE_BLOCK) or (name == "BYTEPIX" and value not in _RICE_BYTES):
            raise ValueError(f"{name} is {value!r:.40}")


def check_streams(table: Any) -> None:
    """Check the first bytes of every tile of an HCOMPRESS or PLIO image, its BinTableHDU; else ValueError."""
    header = table.header
    algorithm = header["ZCMPTYPE"]
    if algorithm not in {"HCOMPRESS_1", "PLIO_1"}:
        return
    axes = [header[f"ZNAXIS{i}"] for i in range(1, header["ZNAXIS"] + 1)]
    tiles = [header.get(f"ZTILE{i}", axes[0] if i == 1 else 1) for i in range(1, len(axes) + 1)]
    for row, stream in enumerate(table.data["COMPRESSED_DATA"]):
        if len(stream) == 0:
            continue  # this tile is stored in another column
        if algorithm == "PLIO_1":
            _check_plio(np.asarray(stream), row)
        else:
            _check_hcompress(np.asarray(stream).tobytes()[:10], _tile_pixels(row, axes, tiles), row)


def _tile_pixels(row: int, axes: Sequence[int], tiles: Sequence[int]) -> int:
    """Return the number of pixels in the tile of one table row; the first axis runs fastest."""
    pixels = 1
    for axis, tile in zip(axes, tiles, strict=True):
        row, index = divmod(row, -(-axis // tile))
        pixels *= min(tile, axis - index * tile)
    return pixels


def _check_hcompress(start: bytes, pixels: int, row: int) -> None:
    size = int.from_bytes(start[2:6], "big") * int.from_bytes(start[6:10], "big")
    if start[:2] != _HCOMPRESS_MAGIC or size != pixels:
        raise ValueError(f"tile {row + 1} claims {size} pixels and has {pixels}")


def _check_plio(words: Any, row: int) -> None:
    """The length of the list is in word 2, or in words 3 and 4 after a header of the length in word 1."""
    if len(words) < _PLIO_HEADER or words.dtype.itemsize != 2:
        raise ValueError(f"tile {row + 1} is no PLIO list")
    header, old, low, high = (int(word) for word in words[1:5])
    length = old if old > 0 else (high << 15) + low
    if not (0 <= length <= len(words) and (old > 0 or 0 <= header <= len(words))):
        raise ValueError(f"tile {row + 1} claims {length} words and has {len(words)}")
