"""Undo cards: tagged HISTORY cards that say how a header was before the first run, and what the pixels are now.

::

    HISTORY skymatch-cli undo * subtracted {"shape":[23,37],  what the pixels are, as JSON: see `Written`
    HISTORY skymatch-cli undo - BKGLEVEL                      there was no such card
    HISTORY skymatch-cli undo = BITPIX  =       16 / pixels   it said this, byte for byte
    HISTORY skymatch-cli undo ! BSCALE  =       2. / scale    it said this, and was here
    HISTORY skymatch-cli undo + ...                           the last entry goes on

The first entry is that of ``--sky-keyword``. Other programs may edit keywords and pixels, so `undo` uses these cards
alone, which hold a digest of the pixels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.model import PixelFormat
from skymatch_cli.model.section import Part, Section, parse_section
from skymatch_cli.model.skyparts import Skies
from skymatch_cli.model.skyplane import SkyPlane

PROGRAM = "skymatch-cli"
"""How our HISTORY cards begin."""
TAG = b"HISTORY skymatch-cli "
NO_DIGEST = "0" * 16
STRUCTURAL = frozenset({"BITPIX", "ZBITPIX"})

_UNDO = TAG + b"undo "
_UNDO_TEXT = cd.CARD - len(_UNDO)
_ENTRY = re.compile(rb"(?P<mark>[-=+*!]) ?(?P<text>.*)", re.DOTALL)
_KEYWORD = re.compile(rb"[A-Z0-9_-]{1,8} *")
_NEVER_OURS = re.compile(rb"SIMPLE|XTENSION|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|TFIELDS|END|")  # others say they were
_UNREADABLE = "its undo cards are damaged, or of another version: undo with the version that wrote them"
_PART = b'["['  # how a sky begins that is not that of the whole image


@dataclass(frozen=True, slots=True)
class Entry:
    """One keyword before the first run: its cards, if any; of those that are gone, the place of the undo card."""

    keyword: str
    cards: tuple[bytes, ...]
    at: int | None = None


class LedgerError(ValueError):
    """Undo cards that the program did not write, or that were edited since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The state of the pixels when the program wrote its cards."""

    subtracted: bool
    sky: Skies  # the sky in the header, to the last bit
    # original pixels minus these, to the last bit. It is the sky unless another program had subtracted one before
    shift: Skies
    shape: tuple[int, ...]  # of the image, slowest axis first
    form: PixelFormat  # how the pixels are stored (``blank`` plays no part)
    # pixels that are restored differ from the original ones by no more than this, in the image's unit
    lost: float = 0.0
    digest: str = NO_DIGEST  # of the stored pixels, see `PixelDigest`

    def text(self, n_entries: int) -> str:
        """Return the text of the undo card; ``n_entries`` is the number of entries that follow."""
        words = {
            "shape": self.shape,
            "form": (self.form.bitpix, self.form.bscale, self.form.bzero),
            "sky": _listed(self.sky),
            **({"shift": _listed(self.shift)} if self.shift != self.sky else {}),
            "lost": self.lost,
            "pixels": self.digest,
            "entries": n_entries,
        }
        return ("subtracted " if self.subtracted else "recorded ") + json.dumps(words, separators=(",", ":"))


def _listed(skies: Skies) -> list[list[str | float]]:
    """The skies of parts, each with its part ("": the whole image), without the last coefficients that are zero."""
    terms = {part: (sky.level, *sky.shape) for part, sky in skies.parts.items()}
    needed = {part: max((k for k, value in enumerate(own) if value), default=0) + 1 for part, own in terms.items()}
    return [[str(part), *own[: needed[part]]] for part, own in terms.items()]


def _skies(listed: Sequence[Sequence[Any]], shape: tuple[int, ...]) -> Skies:
    parts: dict[Part, SkyPlane] = {}
    for text, *terms in listed:
        axes, plane = parse_section(text[1:-1]) if text else ([None, None], None)
        section = None if axes == [None, None] else Section.of(text[1:-1], (shape[-2], shape[-1]))
        parts[Part(plane, section)] = SkyPlane(*map(_finite, terms))
    return Skies(parts)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("no finite number")
    return float(number)


def written(cards: cd.Cards) -> Written | None:
    """Read how this program left the pixels; None where it left no undo card, LedgerError if these are damaged."""
    texts = _texts(cards)
    if not texts:
        return None
    states = [text for _, mark, text in texts if mark == b"*"]
    if not states:
        raise LedgerError("its undo cards are of a version before 0.2, or incomplete")
    if len(states) > 1:
        raise LedgerError("it holds two sets of undo cards")
    state, _, text = states[0].decode("latin-1").partition(" ")
    try:
        found = json.loads(text)
        if state not in {"subtracted", "recorded"} or found["entries"] != len(texts) - 1:
            raise LedgerError("its undo cards are incomplete")
        if not re.fullmatch(r"[0-9a-f]{16}", found["pixels"]):
            raise ValueError("no digest")
        shape, (bitpix, bscale, bzero) = tuple(map(int, found["shape"])), found["form"]
        sky = _skies(found["sky"], shape)
        return Written(
            subtracted=state == "subtracted",
            sky=sky,
            shift=_skies(found["shift"], shape) if "shift" in found else sky,
            shape=shape,
            form=PixelFormat(bitpix=int(bitpix), bscale=_finite(bscale), bzero=_finite(bzero)),
            lost=_finite(found["lost"]),
            digest=found["pixels"],
        )
    except LedgerError:
        raise
    except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError):
        raise LedgerError(_UNREADABLE) from None


def is_recorded(cards: cd.Cards) -> bool:
    """Return whether the program has written to this header."""
    return any(card.startswith(_UNDO) for card in cards)


def read_entries(cards: cd.Cards) -> tuple[Entry, ...]:
    """Read the undo entries of a header, those of removed cards last; LedgerError if its undo cards are damaged."""
    entries = [_entry(*own) for own in _texts(cards) if own[1] != b"*"]
    return tuple(sorted(entries, key=lambda entry: entry.at is not None))


def _texts(cards: cd.Cards) -> list[tuple[int, bytes, bytes]]:
    """The entries of the undo cards, each put together from its pieces: place, mark, text; not what can't be ours."""
    texts: list[tuple[int, bytes, list[bytes]]] = []
    for at, card in enumerate(cards):
        if not card.startswith(_UNDO):
            continue
        match = _ENTRY.fullmatch(card[len(_UNDO) :])
        if match is None or (match["mark"] == b"+" and not texts):
            raise LedgerError(_UNREADABLE)
        if match["mark"] == b"+":
            texts[-1][2].append(match["text"])
        else:
            texts.append((at, match["mark"], [match["text"]]))
    whole = ((at, mark, b"".join(parts).rstrip()) for at, mark, parts in texts)
    return [own for own in whole if own[1] == b"*" or not _NEVER_OURS.fullmatch(own[2][:8].rstrip())]


def _entry(at: int, mark: bytes, text: bytes) -> Entry:
    if not _KEYWORD.fullmatch(text[:8]):
        raise LedgerError("its undo cards name no keyword")
    keyword = text[:8].rstrip().decode("ascii")
    lines = [text[start : start + cd.CARD].ljust(cd.CARD) for start in range(0, len(text), cd.CARD)]
    if keyword in STRUCTURAL and (mark == b"-" or not isinstance(cd.card_value(lines[0]), int)):
        raise LedgerError(f"its undo cards hold no {keyword}")
    return Entry(keyword, () if mark == b"-" else tuple(lines), at if mark == b"!" else None)


def undo_cards(left: Written, entries: Sequence[Entry]) -> cd.Cards:
    """Make the undo cards of an image, but those in the places of removed cards.

    The first entry is that of the keyword of the level.
    """
    cards = _cards(b"* ", left.text(len(entries)).encode("ascii"))
    return cards + [card for entry in entries if entry.at is None for card in entry_cards(entry)]


def entry_cards(entry: Entry) -> cd.Cards:
    """Make the undo cards of one keyword."""
    mark = b"- " if not entry.cards else b"= " if entry.at is None else b"! "
    return _cards(mark, b"".join(entry.cards).rstrip() or entry.keyword.encode("ascii"))


def _cards(head: bytes, rest: bytes) -> cd.Cards:
    """Make undo cards of a text, cut into pieces that fill a card, so that trailing blanks are kept."""
    cards = []
    while rest:
        room = _UNDO_TEXT - len(head)
        cards.append((_UNDO + head + rest[:room]).ljust(cd.CARD))
        head, rest = b"+ ", rest[room:]
    return cards


def has_parts(cards: cd.Cards) -> bool:
    """Return whether the skies that the program left are those of sections or planes."""
    return any(mark == b"*" and _PART in text for _, mark, text in _texts(cards))
