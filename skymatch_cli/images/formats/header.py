"""The header of one HDU, as astropy reads it."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.io.fits import Header

Value = str | bool | int | float | None

_PRINTABLE = bytes(code if 32 <= code < 127 else ord("?") for code in range(256))


class CardHeader:
    """The keywords of one header, given as its cards without END.

    ``text`` are the cards, in which bytes that FITS does not allow (an observer's name in another alphabet, an escape
    sequence) are "?".
    """

    def __init__(self, raw: bytes) -> None:
        self.text = raw.translate(_PRINTABLE)

    @cached_property
    def cards(self) -> Header:
        """The header as an astropy one, which parses cards on access."""
        from astropy.io.fits import Header

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # non-standard cards are common
            return Header.fromstring(self.text)

    @cached_property
    def _upper(self) -> bytes:
        return self.text.upper()

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
