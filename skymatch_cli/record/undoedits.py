"""Edits of HDUs that take back what this program did to their images; headers are read, nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import format_of
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import without_sky
from skymatch_cli.images.skycards import LEVEL, SUBTRACTED, parts_in
from skymatch_cli.images.skystate import (
    UndoCardsError,
    header_of_sky,
    original_header,
    skies_in,
    written_state,
)
from skymatch_cli.images.undocards import is_recorded
from skymatch_cli.model import ImageRef
from skymatch_cli.model.section import WHOLE
from skymatch_cli.model.skyparts import NO_SKY, Skies
from skymatch_cli.record.edits import pixel_edit, whole_cube
from skymatch_cli.record.jwsttree import show_background, tree_edits
from skymatch_cli.record.precision import check_digest
from skymatch_cli.record.rewrite import HduEdit, PixelEdit


def undo_edits(
    source: Source, refs: Sequence[ImageRef], *, from_keyword: bool = False, sky_keyword: str = LEVEL
) -> dict[int, HduEdit]:
    """Make the edits that undo everything this program did to images of one file.

    InputError if an image is not there, if undo cards are damaged or gone, or if pixels are not those that were
    written. ``from_keyword``: add the sky in the keywords (`LEVEL` or ``sky_keyword``) back to images whose undo cards
    are gone, or contradict them and the pixels.
    """
    edits: dict[int, HduEdit] = {}
    for _, of_hdu in groupby(sorted(refs, key=lambda ref: ref.hdu), key=lambda ref: ref.hdu):
        images = list(of_hdu)
        if images[0].part != WHOLE:
            _check_all_named(source, images)
        edits |= _undo_image(source, whole_cube(images[0]), sky_keyword, from_keyword=from_keyword)
    return edits


def _check_all_named(source: Source, images: Sequence[ImageRef]) -> None:
    """Refuse to undo the skies of only some sections or planes of an HDU."""
    state = written_state(source, whole_cube(images[0]), LEVEL)
    skies = {} if state.written is None else state.written.sky.parts
    if left := [part for part in skies if part not in {ref.part for ref in images}]:
        what = "a sky of the whole image" if WHOLE in skies else f"skies of {', '.join(map(str, left))} too"
        if (plane := left[0].plane) is not None:
            what = f"skies of {len(left)} planes that are not named, such as {plane + 1}"
        hint = "name the image without a section: its skies are taken back together"
        raise InputError.at(images[0].label, f"its header holds {what}", hint)


def _undo_image(source: Source, ref: ImageRef, sky_keyword: str, *, from_keyword: bool) -> dict[int, HduEdit]:
    if from_keyword and _is_lost(source, ref, sky_keyword):
        return _from_keyword(source, ref, sky_keyword)
    state = written_state(source, ref, sky_keyword)
    where = ref.hdu if state.sections else header_of_sky(source, ref.hdu)
    if state.written is None:
        if state.subtracted:
            levels = [sky.level for sky in state.skies.parts.values()]
            what = f"{SUBTRACTED} = T, but it holds no undo cards: they are gone, or another program subtracted its sky"
            hint = f"--from-keyword adds the sky of its header back, {levels[0]:.8g}{' …' * (len(levels) > 1)}"
            raise InputError.at(ref.label, what, hint)
        if not is_recorded(source.cards(where)):
            return {}
    pixels = pixel_edit(source, ref, state, state.original, NO_SKY)
    edits = {index: HduEdit(cards=original_header(source, index, ref.label)) for index in {ref.hdu, where}}
    # the keywords may be right where another program subtracted a sky since
    expected = state.written if state.has_our_pixels or state.edited else None
    edits[ref.hdu] = replace(edits[ref.hdu], pixels=pixels, expected=expected)
    return edits | (tree_edits(source, show_background) if where != ref.hdu else {})


def _is_lost(source: Source, ref: ImageRef, sky_keyword: str) -> bool:
    """Whether the undo cards are unusable: missing, damaged, or contradicted by the keywords."""
    try:
        state = written_state(source, ref, sky_keyword)
    except UndoCardsError:
        return True
    if state.written is not None and state.edited and not state.has_our_pixels:
        try:
            check_digest(source, ref.hdu, state.written, ref.label)
        except InputError:
            return True
    return state.written is None


def _from_keyword(source: Source, ref: ImageRef, sky_keyword: str) -> dict[int, HduEdit]:
    """Add the sky of the header back, up to rounding, and remove its keywords."""
    hdus, where = source.file.hdus, header_of_sky(source, ref.hdu)
    shift = _subtracted(source, ref, where, sky_keyword)
    cards = {index: without_sky(source.cards(index), sky_keyword) for index in {ref.hdu, where}}
    edits = {index: HduEdit(cards=new) for index, new in cards.items() if new != source.cards(index)}
    if where != ref.hdu:
        edits |= tree_edits(source, show_background)
    if not shift:
        return edits
    form = format_of(source.cards(ref.hdu), tiled=hdus[ref.hdu].tiled)
    if form.is_integer:
        raise InputError.at(ref.label, f"{SUBTRACTED} = T, but its pixels are integers", "see BKGSUB")
    pixels = PixelEdit(original=form, stored=form, shift=shift, result=form, shape=hdus[ref.hdu].frame)
    edits[ref.hdu] = HduEdit(cards=cards[ref.hdu], pixels=None if pixels.changes_nothing else pixels)
    return edits


def _subtracted(source: Source, ref: ImageRef, where: int, sky_keyword: str) -> Skies:
    """The subtracted sky of an image, or of its parts, by the keywords alone; zero if there is none.

    InputError if they say that a sky is subtracted, and not how much.
    """
    shape, cards, hint = source.file.hdus[ref.hdu].shape, source.cards(ref.hdu), "see BKGSEC1"
    try:
        sections = {part: sky for part, (sky, _) in parts_in(cards, shape).items() if part.section is not None}
        if sections:
            return Skies(sections) if cd.value(cards, SUBTRACTED) is True else NO_SKY
        hint = "see --sky-keyword, or remove BKGSUB from the header"
        skies, subtracted = skies_in(source.cards(where), shape, sky_keyword)
        return skies if subtracted else NO_SKY
    except ValueError as error:
        raise InputError.at(ref.label, str(error), hint) from None
