"""The sky that a header holds, and by how much the stored pixels differ from the original ones."""

from __future__ import annotations

from dataclasses import dataclass

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import BITPIX, PixelFormat, format_of
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import LEVEL, SUBTRACTED, TILT, original_cards, read_entries
from skymatch_cli.model import ImageRef, Recorded
from skymatch_cli.model.skyplane import SkyPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyState:
    """The sky that a header holds, and what the stored pixels are.

    Attributes
    ----------
    recorded : Recorded or None
        The sky in the header and whether the stored pixels have lost it.
    by_us : bool
        The program has written to this header, so `undo` can take it back.
    shift : SkyPlane
        Stored pixels = pixels before the first run minus ``shift``, in physical units.
    base : SkyPlane
        The sky that was missing from the pixels before the first run of the program (0 unless another
        program had subtracted one).
    original : PixelFormat
        How the pixels were stored before the first run.
    """

    recorded: Recorded | None
    by_us: bool
    shift: SkyPlane
    base: SkyPlane
    original: PixelFormat


def original_header(source: Source, hdu: int, where: str) -> cd.Cards:
    """A header as it was before the first run of the program.

    Raises
    ------
    InputError
        If its undo cards would make a file of it that nobody can read.
    """
    tiled = source.file.hdus[hdu].tiled
    before = original_cards(source.cards(hdu), tiled=tiled)
    bitpix = format_of(before, tiled=tiled).bitpix
    if bitpix not in BITPIX:
        raise InputError.at(where, f"its undo cards say that BITPIX was {bitpix}", "remove them")
    return before


def read_state(source: Source, ref: ImageRef, sky_keyword: str) -> SkyState:
    """The sky that one image of a file holds.

    Parameters
    ----------
    source : Source
    ref : ImageRef
    sky_keyword : str
        Where another program may have left the level (else `LEVEL`). Our own headers know their keyword.

    Raises
    ------
    InputError
        If there is no such image, or its header says that a sky is subtracted and not how much.
    """
    hdus = source.file.hdus
    if ref.hdu >= len(hdus) or not hdus[ref.hdu].is_image:
        raise InputError.at(ref.label, "no such image any more", "run again")
    cards, tiled = source.cards(ref.hdu), hdus[ref.hdu].tiled
    entries = read_entries(cards)
    before = original_header(source, ref.hdu, ref.label)
    keyword = entries[0].keyword if entries else sky_keyword
    try:
        foreign = _recorded(before, keyword)
        if foreign is None and ref.hdu and is_jwst(source):
            foreign = _recorded(original_header(source, 0, ref.label), keyword)
        recorded = _recorded(cards, keyword) if entries else foreign
    except ValueError as error:
        raise InputError.at(ref.label, str(error), "see --sky-keyword, or remove BKGSUB from the header") from None
    original = format_of(before, tiled=tiled)
    base = missing_sky(foreign)
    return SkyState(
        recorded=recorded,
        by_us=bool(entries),
        shift=missing_sky(recorded) - base,
        base=base,
        original=original,
    )


def missing_sky(recorded: Recorded | None) -> SkyPlane:
    """What is to be added to the stored pixels to have the original ones."""
    if recorded is None or not recorded.subtracted:
        return SkyPlane()
    return SkyPlane(recorded.level, recorded.dx, recorded.dy)


def is_jwst(source: Source) -> bool:
    """Whether the pipeline of this file keeps the sky in the primary header too."""
    return str(cd.value(source.cards(0), "TELESCOP")).upper() == "JWST"


def _recorded(cards: cd.Cards, keyword: str) -> Recorded | None:
    subtracted = cd.value(cards, SUBTRACTED) is True
    for name in (keyword, LEVEL):
        level = cd.value(cards, name)
        if isinstance(level, int | float) and not isinstance(level, bool):
            return Recorded(float(level), subtracted, *(cd.number(cards, key, 0.0) for key in TILT))
    if subtracted:
        raise ValueError(f"{SUBTRACTED} = T, but {keyword} is no number: what was subtracted is not known")
    return None
