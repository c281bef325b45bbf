"""What the program leaves in a header, and how the header was before: the sky keywords and tagged HISTORY cards.

::

    BKGLEVEL=               12.345 / sky of this image, in its own unit
    BKGSUB  =                    T / the sky is subtracted from the pixels
    BKGMETH = 'match   '           / how the sky was found
    BKGERR  =                0.012 / 1 sigma error of the sky
    BKGDX   =               0.0015 / tilt of the sky along x, per pixel         (beyond --model constant; BKGDY too)
    BKGC20  =                 0.25 / sky: times P2(u)P0(v) less its centre      (poly2, poly3; see `SkyPlane`)
    HISTORY skymatch-cli 1.0: sky subtracted, int16 pixels became float32
    HISTORY skymatch-cli   compare=pooled method=match ...
    HISTORY skymatch-cli undo * subtracted shape=23x37 ...    what the pixels are: see `Written`
    HISTORY skymatch-cli undo - BKGLEVEL                      there was no such card
    HISTORY skymatch-cli undo = BITPIX  =       16 / pixels   it said this, byte for byte
    HISTORY skymatch-cli undo 17 BSCALE  =      2. / scale    it said this, and 17 cards were before it
    HISTORY skymatch-cli undo + ...                           the last entry goes on

Sections of an image that have skies of their own (``a.fits[1][1:100,*]``) are numbered, and the image has no BKGLEVEL::

    BKGSEC1 = '[1:100,1:200]'      / section 1 of this image
    BKGLEV1 =               12.345 / sky of section 1                           (BKGERR1; BKGDX1 … BKGC031 with --model)
    BKGSUB  =                    T / whether the skies are subtracted from the pixels

So a header describes what was done to it and how it was before: `original_cards` restores it, and `recorded_cards`
starts from the original. Writing again is therefore the same as writing for the first time.
The planes of a cube have keywords of their own (`planecards`); only those that existed before have undo cards.
The first undo entry is that of ``--sky-keyword``. Where it is not BKGLEVEL, it holds what is still to be subtracted:
the sky while it is only recorded, and 0 once it is subtracted; the sky is then in BKGLEVEL.
Other programs may edit these keywords and the pixels, so `undo` uses the undo cards alone, which hold a digest of the
pixels.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.planecards import is_of_plane, plane_cards
from skymatch_cli.model import PixelFormat
from skymatch_cli.model.section import Section, SectionSkies
from skymatch_cli.model.skycube import Sky, SkyCube
from skymatch_cli.model.skyplane import SHAPE_TERMS, SkyPlane

LEVEL, SUBTRACTED, METHOD, ERROR = "BKGLEVEL", "BKGSUB", "BKGMETH", "BKGERR"
SHAPE = tuple(f"BKG{name.upper()}" for name in SHAPE_TERMS)
_SKY_OF_IMAGE = "sky of this image, in its own unit"
_MEANING = {"BKGDX": "tilt of the sky along x, per pixel", "BKGDY": "tilt of the sky along y, per pixel"} | {
    key: f"sky: times P{key[-2]}(u)P{key[-1]}(v) less its centre" for key in SHAPE[2:]
}
MOST_SECTIONS = 99
"""Most sections of one image: keywords have eight letters."""
PIPELINE_STEP = "S_SKYMAT"  # of JWST

PROGRAM = "skymatch-cli"
"""How our HISTORY cards begin."""
_TAG = b"HISTORY skymatch-cli "
_UNDO = b"HISTORY skymatch-cli undo "
_UNDO_TEXT = cd.CARD - len(_UNDO)
_TEXT = cd.CARD - len(_TAG)
_ENTRY = re.compile(rb"(?P<mark>[-=+*]|\d{1,6}) ?(?P<text>.*)", re.DOTALL)
_KEYWORD = re.compile(rb"[A-Z0-9_-]{1,8} *")
_NO_DIGEST = "0" * 16
_NEXT, _NO_SKY = ";", "-"  # between the skies of sections or planes; of a plane without one
_COEFFICIENTS = 1, 3, 6, 10  # of a constant, a plane, and polynomials of degree 2 and 3
_MAX_AXIS_DIGITS = 18
_STRUCTURAL = frozenset({"BITPIX", "ZBITPIX"})
_PACKING = re.compile(
    rb"(?:BITPIX|NAXIS[12]?|PCOUNT|GCOUNT|TFIELDS|(?:TTYPE|TFORM|TUNIT|TSCAL|TZERO|TNULL|TDIM|TDISP)\d+"
    rb"|ZBITPIX|ZCMPTYPE|ZQUANTIZ|ZDITHER0|ZNAME\d+|ZVAL\d+|ZSCALE|ZZERO|ZBLANK|ZMASKCMP) *"
)
_MANDATORY = re.compile(rb"(?:SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS) *")
_NEVER_OURS = re.compile(rb"SIMPLE|XTENSION|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|TFIELDS|END|")  # others say they were
_OF_TILED = frozenset({"ZCMPTYPE", "ZBLANK", "ZHECKSUM", "ZDATASUM"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One keyword before the first run.

    ``cards`` is empty where there was none; ``at`` says how many cards were before them, if they are gone now.
    """

    keyword: str
    cards: tuple[bytes, ...]
    at: int | None = None


class LedgerError(ValueError):
    """Undo cards that the program did not write, or that were edited since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The state of the pixels when the program wrote its cards."""

    subtracted: bool
    sky: Sky  # the sky in the header, to the last bit
    # original pixels minus these, to the last bit. It is the sky unless another program had subtracted one before
    shift: Sky
    shape: tuple[int, ...]  # of the image, slowest axis first
    form: PixelFormat  # how the pixels are stored (``blank`` plays no part)
    # pixels that are restored differ from the original ones by no more than this, in the image's unit
    lost: float = 0.0
    digest: str = _NO_DIGEST  # of the stored pixels, see `PixelDigest`

    def text(self, n_entries: int) -> str:
        """Return the text of the undo card; ``n_entries`` is the number of entries that follow."""
        sections = self.sky.parts if isinstance(self.sky, SectionSkies) else ()
        words = {
            "shape": "x".join(map(str, self.shape)),
            "bitpix": str(self.form.bitpix),
            "bscale": self.form.bscale.hex() if self.form.bscale != 1 else "",
            "bzero": self.form.bzero.hex() if self.form.bzero != 0 else "",
            "sections": _NEXT.join(str(section)[1:-1] for section, _ in sections),
            "sky": _numbers(self.sky),
            "shift": _numbers(self.shift) if self.shift != self.sky else "",
            "lost": self.lost.hex() if self.lost else "",
            "pixels": self.digest,
            "entries": str(n_entries),
        }
        state = "subtracted" if self.subtracted else "recorded"
        return " ".join([state, *(f"{name}={word}" for name, word in words.items() if word)])


def _numbers(sky: Sky) -> str:
    if isinstance(sky, SkyPlane):
        return _coefficients(sky)
    planes = sky.planes if isinstance(sky, SkyCube) else [plane for _, plane in sky.parts]
    return _NEXT.join(map(_coefficients, planes))


def _coefficients(plane: SkyPlane | None) -> str:
    if plane is None:
        return _NO_SKY
    needed = next(n for n in _COEFFICIENTS if not any(plane.shape[n - 1 :]))
    parts = (plane.level, *plane.shape)[:needed]
    return ",".join(part.hex() for part in parts)


def _sky(text: str, sections: list[Section]) -> Sky:
    if sections:
        return SectionSkies(tuple(zip(sections, map(_plane, text.split(_NEXT)), strict=True)))
    if _NEXT not in text:
        return _plane(text)
    return SkyCube(tuple(None if part == _NO_SKY else _plane(part) for part in text.split(_NEXT)))


def _plane(text: str) -> SkyPlane:
    parts = [_finite(part) for part in text.split(",")]
    if len(parts) not in _COEFFICIENTS:
        raise ValueError("a sky has one, three, six or ten numbers")
    return SkyPlane(*parts)


def _finite(text: str) -> float:
    try:
        number = float.fromhex(text)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("no finite number")
    return number


def written(cards: cd.Cards) -> Written | None:
    """Read how this program left the pixels; None where it left no undo card.

    LedgerError if its undo cards are not all there, or are damaged.
    """
    texts = _texts(cards)
    if not texts:
        return None
    states = [text for mark, text in texts if mark == b"*"]
    if not states:
        raise LedgerError("its undo cards are of a version before 0.2, or incomplete")
    if len(states) > 1:
        raise LedgerError("its undo cards are there twice")
    state, *words = states[0].decode("latin-1").split()
    named = dict(word.partition("=")[::2] for word in words)
    try:
        if state not in {"subtracted", "recorded"} or int(named["entries"]) != len(texts) - 1:
            raise LedgerError("its undo cards are incomplete")
        if not re.fullmatch(r"[0-9a-f]{16}", named["pixels"]):
            raise ValueError("no digest")
        shape = tuple(int(axis[:_MAX_AXIS_DIGITS]) for axis in named["shape"].split("x")) if "shape" in named else ()
        form = PixelFormat(
            bitpix=int(named["bitpix"]),
            bscale=_finite(named.get("bscale", "1")),
            bzero=_finite(named.get("bzero", "0")),
        )
        sections = [Section.of(part, _two_axes(shape)) for part in named.get("sections", "").split(";") if part]
        sky = _sky(named["sky"], sections)
        return Written(
            subtracted=state == "subtracted",
            sky=sky,
            shift=_sky(named["shift"], []) if "shift" in named else sky,
            shape=shape,
            form=form,
            lost=_finite(named.get("lost", "0")),
            digest=named["pixels"],
        )
    except (KeyError, ValueError) as error:
        if isinstance(error, LedgerError):
            raise
        raise LedgerError("its undo cards are damaged") from None


def _two_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    ny, nx = shape[-2:]
    return ny, nx


def is_recorded(cards: cd.Cards) -> bool:
    """Whether the program has written to this header."""
    return any(card.startswith(_UNDO) for card in cards)


def original_cards(cards: cd.Cards, *, tiled: bool) -> cd.Cards:
    """The header as it was before the first run of the program.

    ``tiled`` says what the header is now: BITPIX of a plain image is ZBITPIX of a tile-compressed one, and other
    programs may have turned one into the other since. LedgerError if its undo cards are damaged.
    """
    entries = read_entries(cards)
    kept = [card for card in cards if not card.startswith(_TAG)]
    if _is_cube(cards):
        names = {entry.keyword for entry in entries}  # of planes there are entries for what was there before alone
        kept = [card for card in kept if not is_of_plane(card) or card[:8].decode("ascii").rstrip() in names]
    for entry in sorted(entries, key=lambda e: -1 if e.at is None else e.at):
        if entry.keyword in _STRUCTURAL:
            _restore_bitpix(kept, entry, "ZBITPIX" if tiled else "BITPIX")
        elif (at := cd.find(kept, entry.keyword)) is not None:
            kept[at] = entry.cards
        elif tiled or entry.keyword not in _OF_TILED:
            index = cd.end_of_content(kept) if entry.at is None else _after_cards(kept, entry.at, tiled=tiled)
            kept[index:index] = entry.cards
    return kept


def _is_cube(cards: cd.Cards) -> bool:
    states = (text for mark, text in _texts(cards) if mark == b"*")
    return any(_NEXT.encode() in text and b" sections=" not in text for text in states)


def without_sky(cards: cd.Cards, level_keyword: str) -> cd.Cards:
    """Remove all cards of this program from a header whose earlier state is unknown."""
    names = {SUBTRACTED, LEVEL, level_keyword, METHOD, ERROR, *SHAPE, PIPELINE_STEP}
    numbered = ("BKGSEC", "BKGLEV", "BKGERR", *SHAPE)
    names |= {f"{name}{n}" for n in range(1, MOST_SECTIONS + 1) for name in numbered}
    ours = {slot for name in names if (at := cd.find(cards, name)) is not None for slot in range(at.start, at.stop)}
    others = (card for i, card in enumerate(cards) if i not in ours and not card.startswith(_TAG))
    return [card for card in others if not is_of_plane(card)]


def describes_packing(card: bytes) -> bool:
    """Whether a card describes how tiles are packed, and so changes with the pixels."""
    return _PACKING.fullmatch(card[:8]) is not None


def _cards_before(cards: cd.Cards, index: int, *, tiled: bool) -> int:
    """Count the cards before one, in a tile-compressed image without those that describe its packing."""
    return sum(not (tiled and describes_packing(card)) for card in cards[:index])


def _after_cards(cards: cd.Cards, count: int, *, tiled: bool) -> int:
    """Return the index after ``count`` cards, at least after the mandatory first ones."""
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
    """Read the undo entries of a header, in their order; LedgerError if its undo cards are damaged."""
    return tuple(_entry(mark, text) for mark, text in _texts(cards) if mark != b"*")


def _texts(cards: cd.Cards) -> list[tuple[bytes, bytes]]:
    """The entries of the undo cards, each put together from its pieces: mark and text; not those that can't be ours."""
    texts: list[tuple[bytes, list[bytes]]] = []
    for card in cards:
        if not card.startswith(_UNDO):
            continue
        match = _ENTRY.fullmatch(card[len(_UNDO) :])
        if match is None or (match["mark"] == b"+" and not texts):
            raise LedgerError("its undo cards are damaged")
        if match["mark"] == b"+":
            texts[-1][1].append(match["text"])
        else:
            texts.append((match["mark"], [match["text"]]))
    whole = ((mark, b"".join(parts).rstrip()) for mark, parts in texts)
    return [(mark, text) for mark, text in whole if mark == b"*" or not _NEVER_OURS.fullmatch(text[:8].rstrip())]


def _entry(mark: bytes, text: bytes) -> Entry:
    if not _KEYWORD.fullmatch(text[:8]):
        raise LedgerError("its undo cards name no keyword")
    keyword = text[:8].rstrip().decode("ascii")
    lines = [text[start : start + cd.CARD].ljust(cd.CARD) for start in range(0, len(text), cd.CARD)]
    if keyword in _STRUCTURAL and (mark == b"-" or not isinstance(cd.card_value(lines[0]), int)):
        raise LedgerError(f"its undo cards hold no {keyword}")
    return Entry(keyword, () if mark == b"-" else tuple(lines), int(mark) if mark.isdigit() else None)


def _entry_cards(entry: Entry) -> cd.Cards:
    """The HISTORY cards of an entry."""
    text = b"".join(entry.cards).rstrip() or entry.keyword.encode("ascii")
    return _undo_cards(b"- " if not entry.cards else b"= " if entry.at is None else b"%d " % entry.at, text)


def _undo_cards(head: bytes, rest: bytes) -> cd.Cards:
    """Make undo cards of a text, cut into pieces that fill a card, so that trailing blanks are kept."""
    cards = []
    while rest:
        room = _UNDO_TEXT - len(head)
        cards.append((_UNDO + head + rest[:room]).ljust(cd.CARD))
        head, rest = b"+ ", rest[room:]
    return cards


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What to write into the header of an image."""

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
    if isinstance(sky, SectionSkies):
        return _section_keywords(sky, record)
    if isinstance(sky, SkyCube):
        return _state_keywords(record) | plane_cards(sky, record.errors, tilted=record.tilted)
    new: dict[str, bytes | None] = {level: cd.make_card(level, sky.level, _SKY_OF_IMAGE)}
    if record.written.subtracted and level != LEVEL:  # programs that read the keyword subtract its value
        new[level] = cd.make_card(level, 0.0, "sky still to be subtracted")
        new[LEVEL] = cd.make_card(LEVEL, sky.level, _SKY_OF_IMAGE)
    new |= _state_keywords(record)
    if record.errors[0] == record.errors[0]:  # NaN: not known
        new[ERROR] = cd.make_card(ERROR, record.errors[0], "1 sigma error of the sky")
    for key, value in zip(SHAPE, sky.shape, strict=True):
        there = record.tilted and (key in SHAPE[:2] or value != 0)
        new[key] = cd.make_card(key, value, _MEANING[key]) if there else None
    return new


def _state_keywords(record: Record) -> dict[str, bytes | None]:
    what = "whether the sky is subtracted from the pixels"
    return {
        SUBTRACTED: cd.make_card(SUBTRACTED, record.written.subtracted, what),
        METHOD: cd.make_card(METHOD, record.method, "how the sky was found"),
    }


def numbered(skies: SectionSkies, errors: tuple[float, ...]) -> dict[int, dict[str, float | str]]:
    """Return the keywords and values of each section, without the error where it is NaN."""
    found: dict[int, dict[str, float | str]] = {}
    for n, ((section, sky), error) in enumerate(zip(skies.parts, errors, strict=True), start=1):
        values: dict[str, float | str] = {f"BKGSEC{n}": str(section), f"BKGLEV{n}": sky.level}
        values |= {} if math.isnan(error) else {f"BKGERR{n}": error}
        found[n] = values | {f"{key}{n}": value for key, value in zip(SHAPE, sky.shape, strict=True) if value}
    return found


def _section_keywords(skies: SectionSkies, record: Record) -> dict[str, bytes | None]:
    """Make the numbered cards of sections; keywords of a sky of the whole image are removed."""
    new: dict[str, bytes | None] = dict.fromkeys((LEVEL, ERROR, *SHAPE)) | _state_keywords(record)
    for n, values in numbered(skies, record.errors).items():
        meaning = {f"BKGSEC{n}": f"section {n} of this image", f"BKGLEV{n}": f"sky of section {n}"}
        new |= {key: cd.make_card(key, value, meaning.get(key, f"of section {n}")) for key, value in values.items()}
    return new


def primary_cards(original: cd.Cards, record: Record) -> cd.Cards:
    """Make the primary header of a JWST file, where its pipeline keeps the sky and the step that was done."""
    step: dict[str, bytes | None] = {PIPELINE_STEP: cd.make_card(PIPELINE_STEP, "COMPLETE", "sky matching")}
    no_pixels = replace(record.written, shift=record.written.sky, shape=(), form=PixelFormat(bitpix=8), lost=0.0)
    header = replace(record, written=replace(no_pixels, digest=_NO_DIGEST), format_before=no_pixels.form)
    return _apply(original, _keywords(header) | step, header, tiled=False)


def recorded_cards(original: cd.Cards, record: Record, *, tiled: bool) -> cd.Cards:
    """The original header of an image with a sky recorded in it."""
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
    return _apply(original, new, record, tiled=tiled)


def _apply(original: cd.Cards, new: dict[str, bytes | None], record: Record, *, tiled: bool) -> cd.Cards:
    """Replace, add or (None) remove the cards of each keyword, with undo entries."""
    slots: list[tuple[bytes, ...]] = [(card,) for card in original]
    entries, added = [], []
    for keyword, card in new.items():
        at = cd.find(original, keyword)
        if at is None and card is not None:
            entries += [] if is_of_plane(card) else [Entry(keyword, ())]
            added.append(card)
        elif at is not None:
            place = _cards_before(original, at.start, tiled=tiled) if card is None else None
            entries.append(Entry(keyword, tuple(original[at]), place))
            slots[at] = [(card,) if card is not None else ()] + [()] * (at.stop - at.start - 1)
    stop = cd.end_of_content(original)
    undo = _undo_cards(b"* ", record.written.text(len(entries)).encode("ascii"))
    undo += [line for entry in entries for line in _entry_cards(entry)]
    flat = [card for slot in slots[:stop] for card in slot]
    return [*flat, *added, *_history(record), *undo, *original[stop:]]


def _history(record: Record) -> cd.Cards:
    done = "sky subtracted" if record.written.subtracted else "sky recorded, pixels as they were"
    if record.changes_format:
        done += f", {record.format_before.name} became {record.written.form.name}"
    lines = [f"{record.program}: {done}", *_wrapped(record.settings)]
    return [(_TAG + line.encode("ascii", "backslashreplace"))[: cd.CARD].ljust(cd.CARD) for line in lines]


def _wrapped(text: str) -> list[str]:
    """Break a text into lines that fit a HISTORY card, between words where possible; printable ASCII only."""
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
