"""Names come from files and headers, and may hold anything: here they are made harmless."""

from __future__ import annotations

import unicodedata

_FORMULA = frozenset("=+-@")


def printable(text: str) -> str:
    """The text with everything that could move a cursor, change a colour or break a line written as an escape.

    Control and format characters (also those that turn the writing direction), line separators, lone surrogates
    of undecodable file names: all that ``str.isprintable`` says no to. A backslash stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def ascii_only(text: str) -> str:
    """The text as `printable` has it, with every character beyond ASCII as an escape too (FITS holds no other)."""
    return printable(text).encode("ascii", "backslashreplace").decode("ascii")


def harmless_cell(text: str) -> str:
    """The text as `printable` has it, with an apostrophe in front where a spreadsheet would run it as a formula.

    Examples
    --------
    >>> harmless_cell("=HYPERLINK(A1)")
    "'=HYPERLINK(A1)"
    >>> harmless_cell("a=b.fits")
    'a=b.fits'
    """
    text = printable(text)
    return f"'{text}" if unicodedata.normalize("NFKC", text.lstrip()[:1]) in _FORMULA else text
