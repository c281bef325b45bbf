"""Edits of HDUs that take back what this program did to their images; headers are read, nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.pixelformat import format_of
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.ledger import LEVEL, SUBTRACTED, without_sky
from skymatch_cli.images.skystate import (
    UndoCardsError,
    header_of_sky,
    original_header,
    sections_in,
    subtracted_in,
    written_state,
)
from skymatch_cli.images.undocards import is_recorded
from skymatch_cli.model import ImageRef
from skymatch_cli.model.section import SectionSkies
from skymatch_cli.model.skycube import SkyCube
from skymatch_cli.model.skyplane import SkyPlane
from skymatch_cli.record.edits import pixel_edit, tree_edits, whole_cube
from skymatch_cli.record.jwsttree import show_background
from skymatch_cli.record.precision import check_digest
from skymatch_cli.record.rewrite import HduEdit, PixelEdit


def undo_edits(
    source: Source, refs: Sequence[ImageRef], *, from_keyword: bool = False, sky_keyword: str = LEVEL
) -> dict[int, HduEdit]:
    """Make the edits that undo everything this program did to images of one file.

    InputError if an image is not there, if undo cards are damaged or gone, or if pixels are not those that were
    written.

    Parameters
    ----------
    from_keyword : bool
        Add the sky of the header back to images whose undo cards are gone, or contradict it and the pixels.
    sky_keyword : str
        Where that sky is, beside `LEVEL`.
    """
    edits: dict[int, HduEdit] = {}
    for _, of_hdu in groupby(sorted(refs, key=lambda ref: ref.hdu), key=lambda ref: ref.hdu):
        images = list(of_hdu)
        if images[0].part.plane is not None:
            _check_all_planes(source, images)
        elif images[0].section is not None:
            _check_all_named(source, images)
        edits |= _undo_image(source, whole_cube(images[0]), sky_keyword, from_keyword=from_keyword)
    return edits


def _check_all_planes(source: Source, planes: Sequence[ImageRef]) -> None:
    """Refuse to undo the skies of only some planes of a cube."""
    named = {ref.part.plane for ref in planes if ref.section is None}
    state = written_state(source, whole_cube(planes[0]), LEVEL)
    sky = None if state.written is None else state.written.sky
    skies = sky.planes if isinstance(sky, SkyCube) else ()
    if left := [k + 1 for k, own in enumerate(skies) if own is not None and k not in named]:
        hint = "name the cube without a section: its skies are taken back together"
        what = f"its header holds skies of {len(left)} planes that are not named, such as {left[0]}"
        raise InputError.at(planes[0].hdu_label, what, hint)


def _check_all_named(source: Source, sections: Sequence[ImageRef]) -> None:
    """Refuse to undo the skies of only some sections of an image."""
    state = written_state(source, sections[0], LEVEL)
    sky = None if state.written is None else state.written.sky
    recorded = [section for section, _ in sky.parts] if isinstance(sky, SectionSkies) else [None] * (sky is not None)
    if left := [section for section in recorded if section not in {ref.section for ref in sections}]:
        what = "a sky of the whole image" if state.sections is None else f"skies of {', '.join(map(str, left))} too"
        hint = "name the image without a section: its skies are taken back together"
        raise InputError.at(sections[0].label, f"its header holds {what}", hint)


def _undo_image(source: Source, ref: ImageRef, sky_keyword: str, *, from_keyword: bool) -> dict[int, HduEdit]:
    if from_keyword and _is_lost(source, ref, sky_keyword):
        return _from_keyword(source, ref, sky_keyword)
    state = written_state(source, ref, sky_keyword)
    where = ref.hdu if state.sections else header_of_sky(source, ref.hdu)
    if state.written is None:
        subtracted = [old.sky.level for old in (state.recorded, *state.planes) if old is not None and old.subtracted]
        if subtracted:
            what = f"{SUBTRACTED} = T, but it holds no undo cards: they are gone, or another program subtracted its sky"
            more = " …" * (len(subtracted) > 1)
            hint = f"--from-keyword adds the sky of its header back, {subtracted[0]:.8g}{more}"
            raise InputError.at(ref.label, what, hint)
        if not is_recorded(source.cards(where)):
            return {}
    pixels = pixel_edit(source, ref, state, state.original, SkyPlane())
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
    if ref.hdu >= len(hdus) or not hdus[ref.hdu].is_image:
        raise InputError.at(ref.label, "this image is no longer in the file", "run again")
    skies = _sections_of_keywords(source, ref)
    plane = SkyPlane() if skies else subtracted_in(source.cards(where), hdus[ref.hdu].n_planes, sky_keyword, ref.label)
    cards = {index: without_sky(source.cards(index), sky_keyword) for index in {ref.hdu, where}}
    edits = {index: HduEdit(cards=new) for index, new in cards.items() if new != source.cards(index)}
    if where != ref.hdu:
        edits |= tree_edits(source, show_background)
    if not (cd.value(source.cards(ref.hdu), SUBTRACTED) is True if skies else plane):
        return edits
    form = format_of(source.cards(ref.hdu), tiled=hdus[ref.hdu].tiled)
    if form.is_integer:
        raise InputError.at(ref.label, f"{SUBTRACTED} = T, but its pixels are integers", "see BKGSUB")
    pixels = PixelEdit(original=form, stored=form, shift=skies or plane, result=form, shape=hdus[ref.hdu].frame)
    edits[ref.hdu] = HduEdit(cards=cards[ref.hdu], pixels=None if pixels.changes_nothing else pixels)
    return edits


def _sections_of_keywords(source: Source, ref: ImageRef) -> SectionSkies | None:
    try:
        return sections_in(source.cards(ref.hdu), source.file.hdus[ref.hdu].frame)
    except ValueError as error:
        raise InputError.at(ref.label, str(error), "see BKGSEC1") from None
