"""Skies in headers, and the difference between stored and original pixels.

For pixels that this program subtracted a sky from, its undo cards say so to the last bit; the keywords are what
other programs read and sometimes edit, so they must agree. Of other programs the keywords are believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import format_of
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import original_cards
from skymatch_cli.images.skycards import LEVEL, SUBTRACTED, compared, parts_in, sky_with
from skymatch_cli.images.undocards import LedgerError, Written, read_entries, written
from skymatch_cli.model import ImageRef, PixelFormat, Recorded
from skymatch_cli.model.images import BITPIX
from skymatch_cli.model.section import WHOLE, Part
from skymatch_cli.model.skyparts import NO_SKY, Skies

OURS_ALONE = "use the file that skymatch wrote, or remove its cards BKG* and HISTORY skymatch-cli"
"""Hint for a file that another program made from one of ours."""

_SAME_LEVEL = 1e-6  # programs that copy a header may round its numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyState:
    """The sky in a header, and the state of the stored pixels."""

    skies: Skies  # in the header; without parts where it holds none
    subtracted: bool  # whether the stored pixels have lost them
    written: Written | None  # what this program left, so that `undo` can take it back
    shift: Skies  # stored pixels = pixels before the first run minus ``shift``, in physical units
    # the sky that was missing from the pixels before the first run of the program (0 unless another program had
    # subtracted one)
    base: Skies
    original: PixelFormat  # how the pixels were stored before the first run
    stored: PixelFormat  # and how they are now
    # what another program did to the keywords of the sky, so that they contradict the undo cards; "" if nothing
    edited: str = ""

    def recorded(self, part: Part) -> Recorded | None:
        """The sky of a part in the header."""
        return Recorded(self.skies.of(part), self.subtracted) if part in self.skies.parts else None

    @property
    def sections(self) -> Skies | None:
        """The skies of sections that this program left; None where it left one of the whole image, or none."""
        return self.written.sky if self.written is not None and self.written.sky.are_of_sections else None

    @property
    def has_our_pixels(self) -> bool:
        """Whether the program has changed the pixels."""
        return bool(self.shift) or self.original != self.stored


_LOST = "skymatch undo --from-keyword adds the sky of its header back"


class UndoCardsError(InputError):
    """Undo cards are damaged or missing; only the keywords tell what was subtracted."""


def original_header(source: Source, hdu: int, where: str) -> cd.Cards:
    """Return a header as it was before the first run; InputError if its undo cards are damaged."""
    cards, tiled = source.cards(hdu), source.file.hdus[hdu].tiled
    try:
        before = original_cards(cards, tiled=tiled)
    except LedgerError as error:
        raise UndoCardsError.at(where, str(error), _LOST) from None
    if before != cards and (bitpix := format_of(before, tiled=tiled).bitpix) not in BITPIX:
        raise UndoCardsError.at(where, f"its undo cards say that BITPIX was {bitpix}", _LOST)
    return before


def read_state(source: Source, ref: ImageRef, sky_keyword: str) -> SkyState:
    """Read the sky that one image of a file holds, for reading it or subtracting another.

    InputError if there is no such image, if its header says that a sky is subtracted and not how much, or if other
    programs changed what this one wrote. ``sky_keyword``: where another program may have left the level (else `LEVEL`;
    of subtracted pixels `LEVEL` comes first). Our own headers know their keyword.
    """
    state = written_state(source, ref, sky_keyword)
    if state.edited:
        hint = "skymatch undo takes back what was subtracted" if state.has_our_pixels else "see BKGSUB"
        raise InputError.at(ref.label, state.edited, hint)
    _check_sections(state, ref)
    return state


def _check_sections(state: SkyState, ref: ImageRef) -> None:
    """Refuse to mix a sky of the whole image with skies of sections, or sections that share pixels."""
    known, subtracted = state.sections, state.written is not None and state.written.subtracted
    if ref.section is None:
        if known is not None and subtracted:
            listed = ", ".join(map(str, known.parts))
            what = f"the skies of its sections {listed} are subtracted"
            raise InputError.at(ref.label, what, "name these sections, or skymatch undo first")
        return
    if state.written is not None and known is None:
        raise InputError.at(ref.label, "its header holds a sky of the whole image", "skymatch undo first")
    if state.base:
        what = f"{SUBTRACTED} = T: another program subtracted a sky from the whole image"
        raise InputError.at(ref.label, what, "name the image without a section")
    others = [part.section for part in known.parts if part.section != ref.section] if known and subtracted else []
    if other := next((section for section in others if section and section.overlaps(ref.section)), None):
        what = f"a sky is subtracted from its section {other}, which shares pixels with this one"
        raise InputError.at(ref.label, what, "name that section, or skymatch undo first")


def written_state(source: Source, ref: ImageRef, sky_keyword: str) -> SkyState:
    """Read the state like `read_state`, but describe edits of the sky keywords in ``edited``."""
    hdus = source.file.hdus
    if ref.hdu >= len(hdus) or not hdus[ref.hdu].is_image:
        raise InputError.at(ref.label, "this image is no longer in the file", "run again")
    cards, tiled = source.cards(ref.hdu), hdus[ref.hdu].tiled
    before = original_header(source, ref.hdu, ref.label)
    home = where = header_of_sky(source, ref.hdu)
    try:
        left = written(cards)
        are_of_sections = left is not None and left.sky.are_of_sections
        where = ref.hdu if are_of_sections else home
        entries = read_entries(source.cards(where))
        if left is not None and not entries:
            raise LedgerError("the undo cards of its primary header are gone")
        if left is None and entries and cd.value(source.cards(where), SUBTRACTED) is True:
            raise LedgerError("the undo cards beside its pixels are gone")
        keyword = entries[0].keyword if entries and not are_of_sections else sky_keyword
        own = before if home == ref.hdu else original_header(source, home, ref.label)
        skies, subtracted = skies_in(own, hdus[ref.hdu].shape, keyword)
    except LedgerError as error:
        raise UndoCardsError.at(ref.label, str(error), _LOST) from None
    except ValueError as error:
        raise InputError.at(ref.label, str(error), "see --sky-keyword, or remove BKGSUB from the header") from None
    original = format_of(before, tiled=tiled)
    stored = original if before == cards else format_of(cards, tiled=tiled)
    state = SkyState(
        skies=skies,
        subtracted=subtracted,
        written=left,
        shift=NO_SKY if left is None else left.shift,
        base=skies if subtracted and skies else NO_SKY,
        original=original,
        stored=stored,
    )
    if left is None:
        return state
    _check_pixels(left, state, hdus[ref.hdu].shape, ref)
    return _compare_keywords(
        left, state, source.cards(where), [entry.keyword for entry in entries], hdus[ref.hdu].shape
    )


def _check_pixels(left: Written, state: SkyState, shape: tuple[int, ...], ref: ImageRef) -> None:
    """Refuse an image whose pixels were changed since we wrote them, judged by shape and format."""
    if not state.has_our_pixels and not left.shift:
        return
    if shape != left.shape:
        now, then = ("x".join(map(str, reversed(axes))) for axes in (shape, left.shape))
        what = f"has {now} pixels, had {then} when skymatch subtracted its sky: another program changed them"
        raise InputError.at(ref.label, what, OURS_ALONE)
    if replace(state.stored, blank=None) != left.form:
        what = f"its pixels are {state.stored.name}, skymatch wrote {left.form.name}: another program changed them"
        if state.stored.bitpix == left.form.bitpix:
            what = "its BSCALE or BZERO changed since skymatch subtracted its sky"
        raise InputError.at(ref.label, what, OURS_ALONE)


def _compare_keywords(
    left: Written, state: SkyState, cards: cd.Cards, keywords: Sequence[str], shape: tuple[int, ...]
) -> SkyState:
    """Add the written skies, and where the keywords contradict them."""
    sky, flag, edited = left.sky, cd.value(cards, SUBTRACTED) is True, ""
    if flag != left.subtracted:
        what = "is subtracted" if left.subtracted else "is recorded but not subtracted"
        edited = f"{SUBTRACTED} = {'FT'[flag]}, but the undo cards say that the sky {what}: another program edited it"
    elif left.subtracted:
        edited = next(_contradictions(sky, cards, keywords), "")
    elif WHOLE in sky.parts:  # what another program recorded since is as good as ours
        sky = Skies({WHOLE: sky_with(cards, cd.number(cards, keywords[0], sky.of(WHOLE).level))})
    elif not sky.are_of_sections:
        sky, _ = skies_in(cards, shape, LEVEL)
    return replace(state, skies=sky, subtracted=left.subtracted, edited=edited)


def _contradictions(sky: Skies, cards: cd.Cards, keywords: Sequence[str]) -> Iterator[str]:
    """Yield how keywords contradict the sky that was subtracted; the first of ``keywords`` is that of the level."""
    if WHOLE in sky.parts:
        first, level = keywords[0], sky.of(WHOLE).level
        renamed = first != LEVEL and LEVEL in keywords  # else an earlier version wrote it
        for name, expected in {first: 0.0 if renamed else level, **({LEVEL: level} if renamed else {})}.items():
            if not _is_close(number := cd.number(cards, name, 0.0), expected):
                yield f"{name} = {number:.8g}, but skymatch subtracted {level:.8g}: another program edited it"
    for name, there, value in compared(sky, cards):
        if isinstance(there, str) or isinstance(value, str) or sky.are_of_sections:
            what = f"{there}, but the undo cards say {value}"
        else:
            what = f"{there:.8g}, but skymatch subtracted {value:.8g}"
        if there != value and (isinstance(there, str) or isinstance(value, str) or not _is_close(there, value)):
            yield f"{name} = {what}: another program edited it"


def _is_close(there: float, number: float) -> bool:
    return abs(there - number) <= _SAME_LEVEL * abs(number)


def header_of_sky(source: Source, hdu: int) -> int:
    """Return the HDU whose header holds the sky of an image: its own, in a JWST file the primary one."""
    images = [i for i, other in enumerate(source.file.hdus) if other.name == "SCI" and other.n_planes == 1]
    is_jwst = str(cd.value(source.cards(0), "TELESCOP")).upper() == "JWST"
    return 0 if hdu and is_jwst and images == [hdu] else hdu


def skies_in(cards: cd.Cards, shape: tuple[int, ...], keyword: str) -> tuple[Skies, bool]:
    """Read the skies of an image, or of planes of a cube, in a header without undo cards, and if they are subtracted.

    ValueError if they are subtracted and it doesn't say how much; LedgerError if they are those of sections.
    """
    subtracted = cd.value(cards, SUBTRACTED) is True
    if math.prod(shape[:-2]) > 1:
        planes = parts_in(cards, shape)
        if subtracted and not planes:
            raise ValueError(f"{SUBTRACTED} = T, but no plane has a BKGL: the subtracted sky is not known")
        return Skies({part: sky for part, (sky, _) in planes.items()}), subtracted
    # The keyword holds what is still to be subtracted.
    for name in (LEVEL, keyword) if subtracted else (keyword, LEVEL):
        level = cd.value(cards, name)
        if isinstance(level, int | float) and not isinstance(level, bool):
            return Skies({WHOLE: sky_with(cards, float(level))}), subtracted
    if subtracted and cd.value(cards, "BKGSEC1") is not None:
        raise LedgerError(f"{SUBTRACTED} = T for sections of it, but its undo cards are gone")
    if subtracted:
        raise ValueError(f"{SUBTRACTED} = T, but {keyword} is not a number: the subtracted sky is not known")
    return Skies({}), False
