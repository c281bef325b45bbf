"""Roman images (ASDF) with their background and pixels changed; see ``images.formats.roman`` for how they are read."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.asdffile import opened_asdf
from skymatch_cli.images.formats.files import open_file
from skymatch_cli.images.formats.roman import BACKGROUND, OURS, array_and_unit, made_cards, schema_method
from skymatch_cli.images.formats.source import Source
from skymatch_cli.images.skycards import SUBTRACTED

if TYPE_CHECKING:
    from skymatch_cli.record.rewrite import HduEdit, PixelEdit, Sink

_STEP = "skymatch"  # of meta.cal_step
_IN_MEMORY = 64 * 2**20


def rewrite_asdf(source: Source, edits: Mapping[int, HduEdit], sink: Sink) -> None:
    """Write a Roman image with its background and, where they change, its pixels as ``edits`` says.

    Arrays keep their type and compression, all else its content; asdf writes the tree anew. PixelError if a pixel
    overflows.
    """
    edit = edits.get(0)
    with open_file(source.file.path) as stream:
        if edit is None:
            shutil.copyfileobj(stream, sink)
            return
        with opened_asdf(stream) as file, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as new:
            roman = file["roman"]
            if edit.pixels is not None:
                _put_pixels(file, source, edit.pixels)
            _record(roman, made_cards(file.tree), edit.cards)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as in `opened_asdf`
                file.write_to(new)
            new.seek(0)
            while piece := new.read(2**20):
                sink.write(piece)


def _put_pixels(file: Any, source: Source, edit: PixelEdit) -> None:
    """Change the pixels of an open file; the array stays compressed as it was."""
    roman, hdu = file["roman"], source.file.hdus[0]
    data, unit = array_and_unit(roman["data"])
    compression = file.get_array_compression(np.asarray(data))
    raw = np.frombuffer(source.read(hdu.data_offset, hdu.data_size), edit.stored.dtype)
    pixels = edit.apply(raw).reshape(data.shape).astype(data.dtype)
    roman["data"] = pixels if unit is None else type(roman["data"])(pixels, unit, copy=False)
    file.set_array_compression(pixels, compression)


def _record(roman: Any, made: cd.Cards, cards: cd.Cards) -> None:
    """Write the values of the cards into the tree; without cards of ours, restore the tree as before the first run.

    Cards without a sky leave no background: it was added back to the pixels, whoever had subtracted it.
    """
    known = {card[:8] for card in made} | {f"{keyword:8}".encode() for keyword in BACKGROUND.values()}
    kept = [card.rstrip().decode("latin-1") for card in cards if card[:8] not in known and card.strip()]
    if not kept:
        _restore(roman, has_sky=cd.find(cards, SUBTRACTED) is not None)
        return
    meta = roman["meta"]
    if OURS not in roman:
        roman[OURS] = {"before": _before(meta)}
    roman[OURS] = {**roman[OURS], "cards": kept}
    values = {name: cd.value(cards, keyword) for name, keyword in BACKGROUND.items()}
    meta["background"] = values | {"method": schema_method(str(values["method"]))}
    if _STEP in (meta.get("cal_step") or {}):
        meta["cal_step"][_STEP] = "COMPLETE"


def _before(meta: Any) -> dict[str, Any]:
    """Return the values that `_record` changes, as they are now; None where missing."""
    background, steps = meta.get("background"), meta.get("cal_step") or {}
    values = None if background is None else {str(name): background[name] for name in background}
    return {"background": values, _STEP: steps.get(_STEP)}


def _restore(roman: Any, *, has_sky: bool) -> None:
    """Undo `_record`."""
    meta, known = roman["meta"], roman.get(OURS) is not None
    before = roman[OURS].get("before") or {} if known else _before(meta)
    background, step = before.get("background"), before.get(_STEP)
    if not has_sky and background is not None and background.get("subtracted") is not None:
        background, step = None, None if step is None else "INCOMPLETE"
    if background is not None:
        meta["background"] = background
    elif "background" in meta:
        del meta["background"]
    if step is not None:
        meta["cal_step"][_STEP] = step
    if known:
        del roman[OURS]
