"""Keywords of an image: looked up in its own header first, then in that of the primary HDU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.header import CardHeader, Value


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
