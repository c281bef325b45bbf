"""Header cards as stored, 80 bytes each; editing one leaves all others unchanged.

A header is a list of cards without END and the blanks that follow it. Nothing here normalises what it
isn't asked to change: order, spacing, comments and invalid cards survive. Layout: FITS Standard 4.0, section 4.
"""

from __future__ import annotations

import math
import re

CARD = 80
BLOCK = 2880
_BLANK_CARD = b" " * CARD
_CONTINUE = b"CONTINUE"
_VALUE_END = 30  # last column of a value in fixed format

_TEXT = re.compile(rb"'((?:[^']|'')*)'")
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?")
_FIELD = re.compile(rb"(?P<value> *(?:'(?:[^']|'')*'|[^/]*?)) *(?P<comment>/.*)?", re.DOTALL)

Cards = list[bytes]
Value = str | bool | int | float


def split_header(raw: bytes) -> Cards:
    """Split a header into its cards: ``raw`` ends before its END card."""
    return [raw[start : start + CARD] for start in range(0, len(raw), CARD)]


def join_header(cards: Cards) -> bytes:
    """Return the header as it is stored: the cards, END, and blanks up to the next block of 2880 bytes."""
    raw = b"".join(cards) + b"END".ljust(CARD)
    return raw.ljust(padded(len(raw)))


def padded(size: int) -> int:
    """Return the bytes of the whole blocks that hold ``size`` bytes."""
    return -(-size // BLOCK) * BLOCK


def find(cards: Cards, keyword: str) -> slice | None:
    """Return where the first card of a keyword is, with the CONTINUE cards that belong to it."""
    key = keyword.encode("ascii").ljust(8) + b"="
    keys = [card[:9] for card in cards]
    if key not in keys:
        return None
    start = keys.index(key)
    stop = start + 1
    while stop < len(cards) and cards[stop][:8] == _CONTINUE:
        stop += 1
    return slice(start, stop)


def value(cards: Cards, keyword: str) -> Value | None:
    """Return the value of the first card of a keyword; None where there is no card or no readable value."""
    at = find(cards, keyword)
    return None if at is None else card_value(cards[at.start])


def card_value(card: bytes) -> Value | None:
    """Return the value in one card: text (CONTINUE cards are not followed), logical, integer or real."""
    field = card[10:].strip()
    if text := _TEXT.match(field):
        return text[1].replace(b"''", b"'").rstrip().decode("latin-1")
    field = field.partition(b"/")[0].strip()
    if field in {b"T", b"F"}:
        return field == b"T"
    if not _NUMBER.fullmatch(field):
        return None
    if field.lstrip(b"+-").isdigit():
        return int(field)
    return float(field.upper().replace(b"D", b"E"))


def number(cards: Cards, keyword: str, default: float) -> float:
    """Return the value of a keyword as a real number; ``default`` where it is missing or not finite."""
    found = value(cards, keyword)
    if isinstance(found, str | bool) or found is None or not math.isfinite(found):
        return default
    return float(found)


def make_card(keyword: str, content: Value, comment: str = "") -> bytes:
    """Make a card in fixed format; a real number is written with all the digits that tell it from its neighbours."""
    field = _field(content)
    head = f"{keyword:8}= " + (f"{field:20}" if isinstance(content, str) else f"{field:>20}")
    if comment:
        head = f"{head} / {comment}"
    return head.encode("ascii")[:CARD].ljust(CARD)


def with_value(card: bytes, content: Value) -> bytes:
    """Return the card with another value, in fixed format; keyword and comment stay."""
    match = _FIELD.fullmatch(card[10:].rstrip())
    comment = (match["comment"] or b"") if match else b""
    start = make_card(card[:8].decode("ascii").rstrip(), content).rstrip()
    return (start.ljust(_VALUE_END) + b" " + comment if comment else start)[:CARD].ljust(CARD)


def end_of_content(cards: Cards) -> int:
    """Return where a new card goes: after the last card that is not blank."""
    stop = len(cards)
    while stop and cards[stop - 1] == _BLANK_CARD:
        stop -= 1
    return stop


def _field(content: Value) -> str:
    if isinstance(content, str):
        return f"'{content.replace(chr(39), chr(39) * 2):8}'"
    if isinstance(content, bool):
        return "T" if content else "F"
    if isinstance(content, int):
        return str(content)
    mantissa, _, exponent = repr(float(content)).upper().partition("E")
    mantissa += "" if "." in mantissa else ".0"
    return f"{mantissa}E{exponent}" if exponent else mantissa
