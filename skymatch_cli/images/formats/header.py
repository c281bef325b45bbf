"""The header of one HDU: plain cards are understood here, all others by astropy, which is imported for them alone."""

from __future__ import annotations

import re
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

from skymatch_cli.images.formats import cards as cd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.io.fits import Header

Value = str | bool | int | float | None

_PRINTABLE = bytes(code if 32 <= code < 127 else ord("?") for code in range(256))
_PLAIN_KEY = re.compile(r"(?!(?:COMMENT|HISTORY|CONTINUE|HIERARCH|END)$)[A-Z0-9_-]{1,8}")  # those have no value
# No quotes in texts and no colons (records in the form of keywords): they have several readings.
_PLAIN_FIELD = re.compile(rb" *(?:'[^':]*'|[TF]|[+-]?\d+|[+-]?(?:\d+\.\d*|\.\d+)(?:[ED][+-]?\d+)?) *(?:/.*)?")


class CardHeader:
    """The keywords of one header.

    Parameters
    ----------
    raw : bytes
        Its cards without END. Bytes that FITS has no place for (an observer's name in another alphabet, an escape
        sequence) read as "?".
    instead : mapping of str to int
        Values that count instead of those in the cards.
    """

    def __init__(self, raw: bytes, instead: Mapping[str, int] | None = None) -> None:
        self.raw = raw.translate(_PRINTABLE)
        self._instead = instead or {}

    @cached_property
    def by_astropy(self) -> Header:
        """The header as astropy reads it."""
        from astropy.io.fits import Header

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # non-standard cards are the file's own affair
            header = Header.fromstring(self.raw)
            for key, value in self._instead.items():
                header[key] = value
        return header

    def value(self, key: str) -> Value:
        """The value of the first card of a keyword; None where there is no card, no value, or no way to read it."""
        name = key.upper()
        if name in self._instead or not _PLAIN_KEY.fullmatch(name):
            return self._read_by_astropy(key)
        if (at := self._places.get(name.encode("ascii"))) is None:
            return None
        card = self._cards[at]
        plain = card.startswith(name.encode("ascii").ljust(8) + b"= ") and _PLAIN_FIELD.fullmatch(card, 10)
        if not plain or b"".join(self._cards[at + 1 : at + 2]).startswith(b"CONTINUE"):
            return self._read_by_astropy(key)
        return cd.card_value(card)

    @cached_property
    def _cards(self) -> cd.Cards:
        return cd.split_header(self.raw)

    @cached_property
    def _places(self) -> Mapping[bytes, int]:
        """The first card of each keyword, in any spelling that astropy takes for one."""
        places: dict[bytes, int] = {}
        for k, card in enumerate(self._cards):
            name = card[:8].upper().partition(b"=")[0].strip()
            if name == b"HIERARCH":
                name = card[8:].upper().partition(b"=")[0].strip()
            places.setdefault(name, k)
        return places

    def _read_by_astropy(self, key: str) -> Value:
        from astropy.io.fits import VerifyError

        try:
            try:
                value: Any = self.by_astropy.get(key)
            except VerifyError:  # such as a text without quotes, which astropy reads when it is told to
                self.by_astropy.cards[key].verify("silentfix")
                value = self.by_astropy.get(key)
        except (VerifyError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return None
        return value if isinstance(value, str | bool | int | float) else None
