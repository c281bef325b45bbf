"""The header of one HDU, as astropy reads it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.io.fits import Header

Value = str | bool | int | float | None

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
    def cards(self) -> Header:
        """The header as an astropy one, which parses cards on access."""
        from astropy.io.fits import Header

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # non-standard cards are common
            header = Header.fromstring(self._raw)
            for key, value in self._instead.items():
                header[key] = value
        return header

    @cached_property
    def _upper(self) -> bytes:
        return self._raw.upper() + b" ".join(key.encode("ascii") for key in self._instead)

    @property
    def text(self) -> bytes:
        """The cards as 80-byte records."""
        if not self._instead:
            return self._raw
        text: str = self.cards.tostring(sep="", endcard=False, padding=False)
        return text.encode("ascii", "replace")

    def value(self, key: str) -> Value:
        """The value of the first card of a keyword; None where there is no card, no value, or no way to read it."""
        if key.upper().encode("ascii", "replace") not in self._upper:
            return None  # most keywords that are asked for are in no header: no need to parse it
        from astropy.io.fits import VerifyError

        try:
            try:
                value: Any = self.cards.get(key)
            except VerifyError:  # such as a text without quotes, which astropy reads after a repair
                self.cards.cards[key].verify("silentfix")
                value = self.cards.get(key)
        except (VerifyError, ValueError, TypeError, KeyError, IndexError, AttributeError):  # a damaged card
            return None
        return value if isinstance(value, str | bool | int | float) else None
