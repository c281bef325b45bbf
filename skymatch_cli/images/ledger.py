"""What the program leaves in a header, and how the header was before: the sky keywords and tagged HISTORY cards.

::

    BKGLEVEL=               12.345 / sky of this image, in its own unit
    BKGSUB  =                    T / the sky is subtracted from the pixels
    BKGMETH = 'match   '           / how the sky was found
    BKGERR  =                0.012 / 1 sigma error of the sky
    BKGDX   =               0.0015 / tilt of the sky along x, per pixel         (with --model plane; BKGDY too)
    HISTORY skymatch-cli 1.0: sky subtracted, int16 pixels became float32
    HISTORY skymatch-cli   compare=pooled method=match ...
    HISTORY skymatch-cli undo - BKGLEVEL                      there was no such card
    HISTORY skymatch-cli undo = BITPIX  =       16 / pixels   it said this, byte for byte
    HISTORY skymatch-cli undo 17 BSCALE  =      2. / scale    it said this, and 17 cards were before it
    HISTORY skymatch-cli undo + ...                           the last entry goes on

So a header says of itself what was done to it and what it was: `original_cards` takes everything back, and
`recorded_cards` writes from the original. Writing again is therefore the same as writing for the first time.
The first entry that is kept is that of the level keyword.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import PixelFormat
from skymatch_cli.model.skyplane import SkyPlane

LEVEL, SUBTRACTED, METHOD, ERROR = "BKGLEVEL", "BKGSUB", "BKGMETH", "BKGERR"
TILT = "BKGDX", "BKGDY"

_TAG = b"HISTORY skymatch-cli "
_UNDO = b"HISTORY skymatch-cli undo "
_UNDO_TEXT = cd.CARD - len(_UNDO)
_TEXT = cd.CARD - len(_TAG)
_ENTRY = re.compile(rb"(?P<mark>[-=+]|\d+) ?(?P<text>.*)", re.DOTALL)
_STRUCTURAL = frozenset({"BITPIX", "ZBITPIX"})
_PACKING = re.compile(
    rb"(?:BITPIX|NAXIS[12]?|PCOUNT|GCOUNT|TFIELDS|(?:TTYPE|TFORM|TUNIT|TSCAL|TZERO|TNULL|TDIM|TDISP)\d+"
    rb"|ZBITPIX|ZCMPTYPE|ZQUANTIZ|ZDITHER0|ZNAME\d+|ZVAL\d+|ZSCALE|ZZERO|ZBLANK|ZMASKCMP) *"
)
_MANDATORY = re.compile(rb"(?:SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS) *")
_NEVER_OURS = re.compile(r"SIMPLE|XTENSION|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|TFIELDS|END|")  # others say they were
_OF_TILED = frozenset({"ZCMPTYPE", "ZBLANK", "ZHECKSUM", "ZDATASUM"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One keyword before the first run.

    ``cards`` is empty where there was none; ``at`` says how many cards were before them, if they are gone now.
    """

    keyword: str
    cards: tuple[bytes, ...]
    at: int | None = None


def is_recorded(cards: cd.Cards) -> bool:
    """Whether the program has written to this header."""
    return any(card.startswith(_UNDO) for card in cards)


def original_cards(cards: cd.Cards, *, tiled: bool) -> cd.Cards:
    """The header as it was before the first run of the program.

    ``tiled`` says what the header is now: BITPIX of a plain image is ZBITPIX of a tile-compressed one, and
    other programs may have turned one into the other since.
    """
    entries = read_entries(cards)
    kept = [card for card in cards if not card.startswith(_TAG)]
    for entry in sorted(entries, key=lambda e: -1 if e.at is None else e.at):
        if entry.keyword in _STRUCTURAL:
            _restore_bitpix(kept, entry, "ZBITPIX" if tiled else "BITPIX")
        elif (at := cd.find(kept, entry.keyword)) is not None:
            kept[at] = entry.cards
        elif tiled or entry.keyword not in _OF_TILED:
            index = cd.end_of_content(kept) if entry.at is None else _after_cards(kept, entry.at, tiled=tiled)
            kept[index:index] = entry.cards
    return kept


def describes_packing(card: bytes) -> bool:
    """Whether a card of a tile-compressed image says how its tiles are packed, and so changes with its pixels."""
    return _PACKING.fullmatch(card[:8]) is not None


def _cards_before(cards: cd.Cards, index: int, *, tiled: bool) -> int:
    """How many cards are before one; in a tile-compressed image not counting those that describe its packing."""
    return sum(not (tiled and describes_packing(card)) for card in cards[:index])


def _after_cards(cards: cd.Cards, count: int, *, tiled: bool) -> int:
    """The first place with so many cards before it, but never among those that a header must begin with."""
    index = 0
    while index < len(cards) and _MANDATORY.fullmatch(cards[index][:8]):
        index += 1
    before = _cards_before(cards, index, tiled=tiled)
    while index < len(cards) and before < count:
        before += _cards_before(cards[index : index + 1], 1, tiled=tiled)
        index += 1
    return index


def _restore_bitpix(cards: cd.Cards, entry: Entry, keyword: str) -> None:
    at, before = cd.find(cards, keyword), cd.card_value(entry.cards[0])
    if at is not None and before is not None:
        cards[at] = entry.cards if keyword == entry.keyword else (cd.with_value(cards[at.start], before),)


def read_entries(cards: cd.Cards) -> tuple[Entry, ...]:
    """What the header remembers of itself, in the order in which it was written."""
    texts: list[tuple[bytes, bytes]] = []
    for card in cards:
        match = _ENTRY.fullmatch(card[len(_UNDO) :]) if card.startswith(_UNDO) else None
        if match is None:
            continue
        if match["mark"] != b"+":
            texts.append((match["mark"], match["text"]))
        elif texts:
            mark, text = texts.pop()
            texts.append((mark, text + match["text"]))
    entries = (_entry(mark, text.rstrip()) for mark, text in texts)
    return tuple(entry for entry in entries if not _NEVER_OURS.fullmatch(entry.keyword))


def _entry(mark: bytes, text: bytes) -> Entry:
    keyword = text[:8].rstrip().decode("latin-1")
    lines = [text[start : start + cd.CARD].ljust(cd.CARD) for start in range(0, len(text), cd.CARD)]
    return Entry(keyword, () if mark == b"-" else tuple(lines), int(mark) if mark.isdigit() else None)


def _entry_cards(entry: Entry) -> cd.Cards:
    """The HISTORY cards of an entry: pieces that fill their card, so that blanks at their ends are kept."""
    rest = b"".join(entry.cards).rstrip() or entry.keyword.encode("ascii")
    head = b"- " if not entry.cards else b"= " if entry.at is None else b"%d " % entry.at
    cards = []
    while rest:
        room = _UNDO_TEXT - len(head)
        cards.append((_UNDO + head + rest[:room]).ljust(cd.CARD))
        head, rest = b"+ ", rest[room:]
    return cards


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is to be written into a header.

    Attributes
    ----------
    level_keyword : str
    level, error : float
        Error: NaN where it is not known (no card is written).
    method : str
    subtracted : bool
    program, settings : str
        For the HISTORY cards.
    shift : SkyPlane
        What is taken from the original pixels.
    format_before, format_after : PixelFormat
        How the pixels were and are stored; equal where that stays or is not this header's affair.
    tilt : (dx, dy) or None
        Per pixel; ``level`` is then at the image's centre. None: the sky is a constant.
    """

    level_keyword: str
    level: float
    error: float
    method: str
    subtracted: bool
    program: str
    settings: str
    shift: SkyPlane
    format_before: PixelFormat
    format_after: PixelFormat
    tilt: tuple[float, float] | None = None

    @property
    def changes_pixels(self) -> bool:
        """Whether the stored pixels are not those of the original file."""
        return bool(self.shift) or self.format_before != self.format_after


def recorded_cards(original: cd.Cards, record: Record, *, tiled: bool) -> cd.Cards:
    """The original header with a sky recorded in it."""
    new: dict[str, bytes | None] = {
        record.level_keyword: cd.make_card(record.level_keyword, record.level, "sky of this image, in its own unit"),
        SUBTRACTED: cd.make_card(SUBTRACTED, record.subtracted, "whether the sky is subtracted from the pixels"),
        METHOD: cd.make_card(METHOD, record.method, "how the sky was found"),
    }
    if record.error == record.error:  # NaN: not known
        new[ERROR] = cd.make_card(ERROR, record.error, "1 sigma error of the sky")
    for key, axis, tilt in zip(TILT, "xy", record.tilt or (None, None), strict=True):
        new[key] = None if tilt is None else cd.make_card(key, tilt, f"tilt of the sky along {axis}, per pixel")
    if tiled:
        new["ZHECKSUM"] = None  # of the image before it was packed: its header is another one now
    if tiled and record.changes_pixels:
        new |= {"ZDATASUM": None, "ZBLANK": None, "ZCMPTYPE": cd.make_card("ZCMPTYPE", "GZIP_2", "lossless")}
    if record.format_after != record.format_before:
        new |= dict.fromkeys(("BSCALE", "BZERO", "BLANK"))
        bitpix = "ZBITPIX" if tiled else "BITPIX"
        at = cd.find(original, bitpix)
        if at is not None:
            new[bitpix] = cd.with_value(original[at.start], record.format_after.bitpix)
    return _apply(original, new, _history(record), tiled=tiled)


def _apply(original: cd.Cards, new: dict[str, bytes | None], history: cd.Cards, *, tiled: bool) -> cd.Cards:
    """Replace, add or (None) remove the cards of each keyword, and remember what was there."""
    slots: list[tuple[bytes, ...]] = [(card,) for card in original]
    entries, added = [], []
    for keyword, card in new.items():
        at = cd.find(original, keyword)
        if at is None and card is not None:
            entries.append(Entry(keyword, ()))
            added.append(card)
        elif at is not None:
            place = _cards_before(original, at.start, tiled=tiled) if card is None else None
            entries.append(Entry(keyword, tuple(original[at]), place))
            slots[at] = [(card,) if card is not None else ()] + [()] * (at.stop - at.start - 1)
    stop = cd.end_of_content(original)
    undo = [line for entry in entries for line in _entry_cards(entry)]
    flat = [card for slot in slots[:stop] for card in slot]
    return [*flat, *added, *history, *undo, *original[stop:]]


def _history(record: Record) -> cd.Cards:
    done = "sky subtracted" if record.subtracted else "sky recorded, pixels as they were"
    if record.format_after != record.format_before:
        done += f", {record.format_before.name} became {record.format_after.name}"
    lines = [f"{record.program}: {done}", *_wrapped(record.settings)]
    return [(_TAG + line.encode("ascii", "backslashreplace"))[: cd.CARD].ljust(cd.CARD) for line in lines]


def _wrapped(text: str) -> list[str]:
    """Lines that fit a HISTORY card: broken between words where possible, printable ASCII only."""
    lines, line = [], " "
    for word in text.split(" "):
        rest = word.encode("ascii", "backslashreplace").decode("ascii")
        rest = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in rest)
        if line != " " and len(line) + 1 + len(rest) > _TEXT:
            lines.append(line)
            line = " "
        line += f" {rest}"
        while len(line) > _TEXT:
            lines.append(line[:_TEXT])
            line = "  " + line[_TEXT:]
    return [*lines, line] if line != " " else lines
