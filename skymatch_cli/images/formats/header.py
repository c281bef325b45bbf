"""The header of one HDU, as astropy reads it; keywords of an image: its own first, then those of the primary HDU."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.cards import CARD, split_header

Value = str | bool | int | float | None

_CARDS_KEPT = 1024
_PRINTABLE = bytes(code if 32 <= code < 127 else ord("?") for code in range(256))


class CardHeader:
    """The keywords of one header, given as its cards without END.

    ``text`` are the cards; bytes that FITS does not allow (an observer's name in another alphabet) are "?".
    """

    def __init__(self, raw: bytes) -> None:
        self.text = raw.translate(_PRINTABLE)

    @cached_property
    def _places(self) -> dict[bytes, int]:
        """The number of the first card of each keyword."""
        names = [card.partition(b"=")[0] for card in split_header(self.text.upper())]
        keys = [name.removeprefix(b"HIERARCH ").strip() for name in names]
        return dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))

    def value(self, key: str) -> Value:
        """The value of the first card of a keyword; None where there is no card, no value, or no way to read it."""
        at = self._places.get(key.upper().removeprefix("HIERARCH ").encode("ascii", "replace"))
        if at is None:
            return None
        start, stop = at * CARD, at * CARD + CARD
        while self.text[stop : stop + 8].upper() == b"CONTINUE":
            stop += CARD
        return value_in(self.text[start:stop], key)


@lru_cache(maxsize=_CARDS_KEPT)
def value_in(cards: bytes, key: str) -> Value:
    """Return the value of the first card of a keyword in 80-byte records, as `CardHeader.value`.

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


@dataclass(frozen=True, slots=True)
class Keywords:
    """The two headers of one image, its own and the primary; ``where`` is its label for messages."""

    where: str
    own: CardHeader
    primary: CardHeader

    def value(self, key: str) -> Value:
        """Return the value of a keyword; None where neither header has one that can be read."""
        own = self.own.value(key)
        return self.primary.value(key) if own is None and self.primary is not self.own else own

    def text(self, key: str) -> str:
        """Return a value as text, "" where there is none."""
        value = self.value(key)
        return "" if value is None else str(value).strip()

    def number(self, key: str) -> float:
        """Return a value as a finite number, NaN where there is none."""
        return as_number(self.value(key))

    def required_number(self, key: str, option: str) -> float:
        """Return the number of a keyword named by the user; InputError if it is missing or 0."""
        value = self.number(key)
        if not math.isfinite(value) or value == 0:
            found = self.text(key)
            what = f"{key} is {found!r}, not a usable number" if found else f"there is no {key} in its header"
            raise InputError.at(self.where, what, f"see {option}")
        return value


def as_number(value: Value) -> float:
    """Return a finite float, also from text; NaN for anything else."""
    if value is None or isinstance(value, bool):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
