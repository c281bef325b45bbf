"""The header of one HDU, as astropy reads it; keywords of an image: its own first, then those of the primary HDU."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.io.fits import Header

from dataclasses import dataclass

from skymatch_cli.errors import InputError

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


@dataclass(frozen=True, slots=True)
class Keywords:
    """The two headers of one image, its own and the primary; ``where`` is its label for messages."""

    where: str
    own: CardHeader
    primary: CardHeader

    def value(self, key: str) -> Value:
        """The value of a keyword; None where neither header has one that can be read."""
        own = self.own.value(key)
        return self.primary.value(key) if own is None and self.primary is not self.own else own

    def text(self, key: str) -> str:
        """A value as text, "" where there is none."""
        value = self.value(key)
        return "" if value is None else str(value).strip()

    def number(self, key: str) -> float:
        """A value as a finite number, NaN where there is none."""
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
