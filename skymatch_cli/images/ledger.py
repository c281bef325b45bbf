"""What the program leaves in a header: the sky keywords and tagged HISTORY cards.

::

    BKGLEVEL=               12.345 / sky of this image, in its own unit         the keywords of the sky: see `skycards`
    HISTORY skymatch-cli 1.0: sky subtracted, int16 pixels became float32
    HISTORY skymatch-cli   compare=pooled method=match ...
    HISTORY skymatch-cli undo * subtracted {"shape":...       how the header was before: see `undocards`

So a header describes what was done to it and how it was before: `original_cards` restores it, and `recorded_cards`
starts from the original. Writing again is therefore the same as writing for the first time.
Of numbered keywords only those that existed before have undo cards.
The keyword of ``--sky-keyword``, where it is not BKGLEVEL, holds what is still to be subtracted: the sky while it is
only recorded, and 0 once it is subtracted; the sky is then in BKGLEVEL.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.skycards import ERROR, LEVEL, METHOD, SHAPE, SUBTRACTED, is_numbered, sky_cards
from skymatch_cli.images.undocards import (
    NO_DIGEST,
    STRUCTURAL,
    TAG,
    Entry,
    Written,
    entry_cards,
    has_parts,
    read_entries,
    undo_cards,
)
from skymatch_cli.model import PixelFormat
from skymatch_cli.model.section import WHOLE

PIPELINE_STEP = "S_SKYMAT"  # of JWST

_TEXT = cd.CARD - len(TAG)
_PACKING = re.compile(
    rb"(?:BITPIX|NAXIS[12]?|PCOUNT|GCOUNT|TFIELDS|(?:TTYPE|TFORM|TUNIT|TSCAL|TZERO|TNULL|TDIM|TDISP)\d+"
    rb"|ZBITPIX|ZCMPTYPE|ZQUANTIZ|ZDITHER0|ZNAME\d+|ZVAL\d+|ZSCALE|ZZERO|ZBLANK|ZMASKCMP) *"
)
_OF_TILED = frozenset({"ZCMPTYPE", "ZBLANK", "ZHECKSUM", "ZDATASUM"})


def original_cards(cards: cd.Cards, *, tiled: bool) -> cd.Cards:
    """Return the header as it was before the first run of the program; LedgerError if its undo cards are damaged.

    ``tiled`` says what the header is now: other programs may have packed or unpacked the image since.
    """
    entries = read_entries(cards)
    names, parts = {entry.keyword for entry in entries}, has_parts(cards)
    removed = {e.at: e for e in entries if e.at is not None and cd.find(cards, e.keyword) is None}
    kept: cd.Cards = []
    for at, card in enumerate(cards):
        if not card.startswith(TAG):
            ours = parts and is_numbered(card) and card[:8].decode("ascii").rstrip() not in names
            kept += [] if ours else [card]
        elif (entry := removed.get(at)) is not None and (tiled or entry.keyword not in _OF_TILED):
            kept += entry.cards
    for entry in entries:
        if entry.keyword in STRUCTURAL:
            _restore_bitpix(kept, entry, "ZBITPIX" if tiled else "BITPIX")
        elif (there := cd.find(kept, entry.keyword)) is not None:
            kept[there] = entry.cards
        elif entry.at is None and (tiled or entry.keyword not in _OF_TILED):
            end = cd.end_of_content(kept)
            kept[end:end] = entry.cards
    return kept


def without_sky(cards: cd.Cards, level_keyword: str) -> cd.Cards:
    """Remove all cards of this program from a header whose earlier state is unknown."""
    names = {SUBTRACTED, LEVEL, level_keyword, METHOD, ERROR, *SHAPE, PIPELINE_STEP}
    ours = {slot for name in names if (at := cd.find(cards, name)) is not None for slot in range(at.start, at.stop)}
    others = (card for i, card in enumerate(cards) if i not in ours and not card.startswith(TAG))
    return [card for card in others if not is_numbered(card)]


def describes_packing(card: bytes) -> bool:
    """Return whether a card describes how tiles are packed, and so changes with the pixels."""
    return _PACKING.fullmatch(card[:8]) is not None


def _restore_bitpix(cards: cd.Cards, entry: Entry, keyword: str) -> None:
    at, before = cd.find(cards, keyword), cd.card_value(entry.cards[0])
    if at is not None and before is not None:
        cards[at] = entry.cards if keyword == entry.keyword else (cd.with_value(cards[at.start], before),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Content to write into the header of an image."""

    level_keyword: str
    # of each section or plane, or the one image; NaN where it is not known (no card is written)
    errors: tuple[float, ...]
    method: str
    program: str  # for the HISTORY cards
    settings: str
    tilted: bool  # whether the sky is a plane, whose level is the one at the image's centre, or a constant
    format_before: PixelFormat  # how the pixels were stored
    written: Written  # what the pixels are: they go with this header
    # the keywords are written into the primary header, which has no pixels, and not into this one (`primary_cards`)
    primary: bool = False

    @property
    def changes_format(self) -> bool:
        """Whether the pixel format differs from that of the original file."""
        return replace(self.format_before, blank=None) != self.written.form

    @property
    def changes_pixels(self) -> bool:
        """Whether the stored pixels differ from those of the original file."""
        return bool(self.written.shift) or self.changes_format


def _keywords(record: Record) -> dict[str, bytes | None]:
    """Make the new cards of the sky keywords; None removes a keyword."""
    sky, level = record.written.sky, record.level_keyword
    what = "whether the sky is subtracted from the pixels"
    state: dict[str, bytes | None] = {
        SUBTRACTED: cd.make_card(SUBTRACTED, record.written.subtracted, what),
        METHOD: cd.make_card(METHOD, record.method, "how the sky was found"),
    }
    cards = sky_cards(sky, record.errors, tilted=record.tilted)
    if WHOLE not in sky.parts:
        return {**(dict.fromkeys((LEVEL, ERROR, *SHAPE)) if sky.are_of_sections else {}), **state, **cards}
    own = cards.pop(LEVEL)
    first = {level: f"{level:8}".encode("ascii") + own[8:]}
    if record.written.subtracted and level != LEVEL:  # programs that read the keyword subtract its value
        first = {level: cd.make_card(level, 0.0, "sky still to be subtracted"), LEVEL: own}
    error = {ERROR: cards.pop(ERROR)} if ERROR in cards else {}
    return {**first, **state, **error, **dict.fromkeys(SHAPE), **cards}


def primary_cards(original: cd.Cards, record: Record) -> cd.Cards:
    """Make the primary header of a JWST file, where its pipeline keeps the sky and the step that was done."""
    step: dict[str, bytes | None] = {PIPELINE_STEP: cd.make_card(PIPELINE_STEP, "COMPLETE", "sky matching")}
    no_pixels = replace(record.written, shift=record.written.sky, shape=(), form=PixelFormat(bitpix=8), lost=0.0)
    header = replace(record, written=replace(no_pixels, digest=NO_DIGEST), format_before=no_pixels.form)
    return _apply(original, _keywords(header) | step, header)


def recorded_cards(original: cd.Cards, record: Record, *, tiled: bool) -> cd.Cards:
    """Make the header of an image with a sky recorded in it, from the original one."""
    new = {} if record.primary else _keywords(record)
    if tiled:
        new["ZHECKSUM"] = None  # of the image before it was packed: its header is another one now
    if tiled and record.changes_pixels:
        new |= {"ZDATASUM": None, "ZBLANK": None, "ZCMPTYPE": cd.make_card("ZCMPTYPE", "GZIP_2", "lossless")}
    if record.changes_format:
        if record.format_before.is_integer:
            new |= dict.fromkeys(("BSCALE", "BZERO", "BLANK"))
        bitpix = "ZBITPIX" if tiled else "BITPIX"
        at = cd.find(original, bitpix)
        if at is not None:
            new[bitpix] = cd.with_value(original[at.start], record.written.form.bitpix)
    return _apply(original, new, record)


def _apply(original: cd.Cards, new: dict[str, bytes | None], record: Record) -> cd.Cards:
    """Replace, add or (None) remove the cards of each keyword, with undo entries."""
    slots: list[tuple[bytes, ...]] = [(card,) for card in original]
    entries, added = [], []
    for keyword, card in new.items():
        at = cd.find(original, keyword)
        if at is None and card is not None:
            entries += [] if is_numbered(card) else [Entry(keyword, ())]
            added.append(card)
        elif at is not None:
            entries.append(Entry(keyword, tuple(original[at]), at.start if card is None else None))
            new_cards = entry_cards(entries[-1]) if card is None else [card]
            slots[at] = [tuple(new_cards)] + [()] * (at.stop - at.start - 1)
    stop = cd.end_of_content(original)
    flat = [card for slot in slots[:stop] for card in slot]
    return [*flat, *added, *_history(record), *undo_cards(record.written, entries), *original[stop:]]


def _history(record: Record) -> cd.Cards:
    done = "sky subtracted" if record.written.subtracted else "sky recorded, pixels as they were"
    if record.changes_format:
        done += f", {record.format_before.name} became {record.written.form.name}"
    settings = record.settings.encode("ascii", "backslashreplace").decode("ascii")
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in settings)
    lines = textwrap.wrap(plain, _TEXT - 2, break_on_hyphens=False)
    texts = (f"{record.program}: {done}", *(f"  {line}" for line in lines))
    return [(TAG + text.encode("ascii"))[: cd.CARD].ljust(cd.CARD) for text in texts]
