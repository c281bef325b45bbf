"""Tile-compressed images whose pixels change: unpacked and packed again by astropy, without loss.

Only the cards that describe the packing come from the new HDU; the rest of the header is the one that was
there. Tiles keep their shape. Floats are packed with GZIP_2 and not quantised; integers, after undo, with the
algorithm that they had.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import describes_packing
from skymatch_cli.model import PixelFormat
from skymatch_cli.record.rewrite import PixelEdit

_LOSSLESS_INTEGER = frozenset({"RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"})
_MAX_RICE_BITS = 32
_WIDE_DESCRIPTOR = 16  # bytes of a 64-bit array descriptor (type Q)
_GZIP_TIME = slice(4, 8)  # RFC 1952


def rebuild(source: Source, index: int, new_cards: cd.Cards, edit: PixelEdit) -> tuple[cd.Cards, bytes]:
    """Change the pixels of a tile-compressed image: its new header and data, in whole blocks.

    ``new_cards``: the header as it shall be, its packing still as before the first run.
    """
    pixels = np.concatenate([edit.apply(raw, first) for first, raw in source.stored_pixels(index, edit.stored)])
    packed_cards, packed = _pack(pixels.reshape(source.file.hdus[index].shape), new_cards, edit.result)
    return _with_packing(new_cards, packed_cards, edit.result), packed


def _pack(pixels: np.ndarray[Any, Any], cards: cd.Cards, form: PixelFormat) -> tuple[cd.Cards, bytes]:
    """The header and the data of an HDU that holds the pixels without loss."""
    from astropy.io import fits

    algorithm = cd.value(cards, "ZCMPTYPE")
    if (
        not form.is_integer
        or algorithm not in _LOSSLESS_INTEGER
        or (algorithm == "RICE_1" and form.bitpix > _MAX_RICE_BITS)
    ):
        algorithm = "GZIP_2"
    tile = [cd.value(cards, f"ZTILE{axis}") for axis in range(pixels.ndim, 0, -1)]
    default = [1] * (pixels.ndim - 1) + [pixels.shape[-1]]
    hdu = fits.CompImageHDU(
        data=pixels.astype(form.dtype.newbyteorder("=")),
        compression_type=str(algorithm),
        tile_shape=tuple(t if isinstance(t, int) else d for t, d in zip(tile, default, strict=True)),
        hcomp_scale=0,
        quantize_level=0.0,
    )
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    raw = stream.getvalue()[cd.BLOCK :]
    end = next(at for at in range(0, len(raw), cd.CARD) if raw[at : at + 8] == b"END     ")
    packed = cd.split_header(raw[:end])
    return packed, _without_times(packed, raw[len(cd.join_header(packed)) :])


def _without_times(cards: cd.Cards, data: bytes) -> bytes:
    """Return the data without the packing time of every gzip tile, so that the same pixels give the same bytes."""
    if not str(cd.value(cards, "ZCMPTYPE")).startswith("GZIP"):
        return data
    rows, row = (int(cd.number(cards, key, 0)) for key in ("NAXIS2", "NAXIS1"))
    words = np.frombuffer(data, dtype=">i8" if row == _WIDE_DESCRIPTOR else ">i4", count=2 * rows).reshape(rows, 2)
    heap = int(cd.number(cards, "THEAP", rows * row))
    result = bytearray(data)
    for offset in (heap + words[:, 1]).tolist():
        result[offset + _GZIP_TIME.start : offset + _GZIP_TIME.stop] = bytes(4)
    return bytes(result)


def _with_packing(cards: cd.Cards, packed: cd.Cards, form: PixelFormat) -> cd.Cards:
    """The header with the cards that describe the packing taken from another one.

    ZBLANK describes the packing of floats; of integers it marks the undefined ones, and stays.
    """
    wanted = {card[:8]: card for card in packed if describes_packing(card)}
    result, last = [], 0
    for card in cards:
        if not describes_packing(card) or (form.is_integer and card.startswith(b"ZBLANK  =")):
            result.append(card)
            wanted.pop(card[:8], None)
            continue
        if (new := wanted.pop(card[:8], None)) is not None:
            old_value, new_value = cd.card_value(card), cd.card_value(new)
            result.append(card if old_value == new_value or new_value is None else cd.with_value(card, new_value))
            last = len(result)
    return [*result[:last], *wanted.values(), *result[last:]]
