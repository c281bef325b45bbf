"""The header of one HDU, as astropy reads it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

Value = str | bool | int | float | None

_CARD = 80
_CARDS_KEPT = 1024
_PRINTABLE = bytes(code if 32 <= code < 127 else ord("?") for code in range(256))


class CardHeader:
    """The keywords of one header.

    Parameters
    ----------
    raw : bytes
        Its cards without END. Bytes that FITS does not allow (an observer's name in another alphabet, an escape
        sequence) read as "?".
    instead : mapping of str to int
        Values that replace those in the cards.
    """

    def __init__(self, raw: bytes, instead: Mapping[str, int] | None = None) -> None:
        self._raw = raw.translate(_PRINTABLE)
        self._instead = instead or {}

    @cached_property
    def _upper(self) -> bytes:
        return self._raw.upper()

    @property
    def text(self) -> bytes:
        """The cards as 80-byte records."""
        new = {
            f"{key:<8}".encode("ascii"): f"{key:<8}= {n:>20}".ljust(80).encode("ascii")
            for key, n in self._instead.items()
        }
        if not new:
            return self._raw
        given = [self._raw[i : i + 80] for i in range(0, len(self._raw), 80)]
        kept = [new.pop(card[:8], card) for card in given]
        return b"".join([*kept, *new.values()])

    def value(self, key: str) -> Value:
        """The value of the first card of a keyword; None where there is no card, no value, or no way to read it."""
        if key in self._instead:
            return self._instead[key]
        cards = self._cards_with(key.upper().encode("ascii", "replace"))
        return value_in(cards, key) if cards else None

    def _cards_with(self, word: bytes) -> bytes:
        """The cards that contain a word, with their CONTINUE cards: most keywords that are asked for are in none."""
        found = []
        at = self._upper.find(word)
        while at >= 0:
            start, stop = at - at % _CARD, at - at % _CARD + _CARD
            while self._upper.startswith(b"CONTINUE", stop):
                stop += _CARD
            found.append(self._raw[start:stop])
            at = self._upper.find(word, stop)
        return b"".join(found)


@lru_cache(maxsize=_CARDS_KEPT)
def value_in(cards: bytes, key: str) -> Value:
    """The value of the first card of a keyword in 80-byte records, as `CardHeader.value`.

    The values used last are kept: the HDUs of a file, and the files of an instrument, have most of their cards alike.
    """
    from astropy.io.fits import Header, VerifyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # non-standard cards are common
            header = Header.fromstring(cards.translate(_PRINTABLE))
            try:
                value: Any = header.get(key)
            except VerifyError:  # such as a text without quotes, which astropy reads after a repair
                header.cards[key].verify("silentfix")
                value = header.get(key)
    except (VerifyError, ValueError, TypeError, KeyError, IndexError, AttributeError):  # a damaged card
        return None
    return value if isinstance(value, str | bool | int | float) else None
