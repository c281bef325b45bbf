"""CHECKSUM and DATASUM of an HDU (FITS Standard 4.0, section 4.4.2.7 and appendix J), and the digest of pixels."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from skymatch_cli.images.formats import cards as cd

_ALL_ONES = 0xFFFFFFFF
_ZEROS = "0" * 16
_PUNCTUATION = frozenset(range(0x3A, 0x41)) | frozenset(range(0x5B, 0x61))


def ones_complement_sum(data: bytes | memoryview, before: int = 0) -> int:
    """Return the 32-bit ones'-complement sum of big-endian words, added to an earlier sum.

    Only the last piece of a sequence may have a length that is no multiple of 4.
    """
    whole = len(data) // 4 * 4
    total = before + int(np.frombuffer(data[:whole], dtype=">u4").sum(dtype=np.uint64))
    if whole < len(data):
        total += int.from_bytes(bytes(data[whole:]).ljust(4, b"\0"), "big")
    while total > _ALL_ONES:
        total = (total & _ALL_ONES) + (total >> 32)
    return total


def sum_of(pieces: Iterable[bytes | memoryview]) -> int:
    """Return the sum of data that are given in pieces."""
    total = 0
    for piece in pieces:
        total = ones_complement_sum(piece, total)
    return total


class PixelDigest:
    """Digest of the pixels of an image as a plain file stores them: their sum, and CRC-32 for their order.

    It is the same for a tile-compressed image. The sum is the one of DATASUM.
    """

    def __init__(self) -> None:
        self._sum = self._crc = 0

    def update(self, data: bytes) -> None:
        """Add the next pixels; see `ones_complement_sum` for their number."""
        self._sum, self._crc = ones_complement_sum(data, self._sum), zlib.crc32(data, self._crc)

    def text(self) -> str:
        """Return sixteen hexadecimal digits."""
        return f"{self._sum:08x}{self._crc:08x}"


def are_right(cards: cd.Cards, data_sum: int) -> bool:
    """Return whether the checksums in a header match the header and its data."""
    stated = cd.value(cards, "DATASUM")
    if stated and str(stated).strip() != str(data_sum):
        return False
    return not cd.value(cards, "CHECKSUM") or ones_complement_sum(cd.join_header(cards), data_sum) in {0, _ALL_ONES}


def has_checksums(cards: cd.Cards) -> bool:
    """Return whether a header holds a checksum (an empty one says that it is not defined)."""
    return bool(cd.value(cards, "CHECKSUM") or cd.value(cards, "DATASUM"))


def with_checksums(cards: cd.Cards, data_sum: int) -> cd.Cards:
    """Return the header with its checksums updated in place; ``data_sum`` is that of all blocks of its data."""
    result = list(cards)
    _set(result, "DATASUM", str(data_sum))
    if not cd.value(cards, "CHECKSUM"):
        return result
    if ones_complement_sum(cd.join_header(result), data_sum) in {0, _ALL_ONES}:
        return result
    _set(result, "CHECKSUM", _ZEROS)
    total = ones_complement_sum(cd.join_header(result), data_sum)
    _set(result, "CHECKSUM", encode(_ALL_ONES - total))
    return result


def encode(complement: int) -> str:
    """Encode a checksum as sixteen letters and digits (their sum as 32-bit words in a header is ``complement``)."""
    columns = []
    for byte in complement.to_bytes(4, "big"):
        quotient, remainder = divmod(byte, 4)
        first, second = _letters_and_digits(quotient + remainder + 48, quotient + 48)
        parts = [first, second, *_letters_and_digits(quotient + 48, quotient + 48)]
        columns.append(parts)
    text = "".join(chr(columns[byte][part]) for part in range(4) for byte in range(4))
    return text[-1] + text[:-1]


def _letters_and_digits(first: int, second: int) -> tuple[int, int]:
    """Two codes with the same sum, neither of which is punctuation."""
    while {first, second} & _PUNCTUATION:
        first, second = first + 1, second - 1
    return first, second


def _set(cards: cd.Cards, keyword: str, text: str) -> None:
    at = cd.find(cards, keyword)
    if at is not None and (before := cd.card_value(cards[at.start])) and before != text:
        cards[at.start] = cd.with_value(cards[at.start], text)
