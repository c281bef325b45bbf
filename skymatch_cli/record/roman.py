"""Roman images (ASDF) with their background and pixels changed; see ``images.formats.roman`` for how they are read."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.formats.files import open_file
from skymatch_cli.images.formats.gwcs import opened_asdf
from skymatch_cli.images.formats.roman import BACKGROUND, OURS, array_and_unit, made_cards
from skymatch_cli.images.formats.source import Source

if TYPE_CHECKING:
    from skymatch_cli.record.rewrite import HduEdit, Sink

_IN_MEMORY = 64 * 2**20


def rewrite_asdf(source: Source, edits: Mapping[int, HduEdit], sink: Sink) -> None:
    """Write a Roman image with its background and, where they change, its pixels as ``edits`` says.

    Arrays keep their type and compression, and everything else in the tree its content; the text of the tree is
    written anew by asdf.

    Raises
    ------
    PixelError
        If a pixel overflows.
    OSError
    """
    edit = edits.get(0)
    with open_file(source.file.path) as stream:
        if edit is None:
            shutil.copyfileobj(stream, cast("IO[bytes]", sink))
            return
        with opened_asdf(stream) as file, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as new:
            roman = file["roman"]
            if edit.pixels is not None:
                extent, (data, unit) = source.extent(0), array_and_unit(roman["data"])
                raw = np.frombuffer(source.read(extent.data_start, extent.data_size), edit.pixels.stored.dtype)
                pixels = edit.pixels.apply(raw).reshape(data.shape).astype(data.dtype)
                roman["data"] = pixels if unit is None else unit * pixels
            _record(file, edit.cards)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as in `opened_asdf`
                file.write_to(new)
            new.seek(0)
            while piece := new.read(2**20):
                sink.write(piece)


def _record(file: Any, cards: cd.Cards) -> None:
    """Put what the cards say into the tree."""
    meta = file["roman"]["meta"]
    background = dict(meta.get("background") or {})
    for name, keyword in BACKGROUND.items():
        value = cd.value(cards, keyword)
        if value is not None or name in background:
            background[name] = value
    meta["background"] = background
    known = {card[:8] for card in made_cards(file.tree)}
    kept = [card.rstrip().decode("latin-1") for card in cards if card[:8] not in known and card.strip()]
    kept = [card for card in kept if card[:8].rstrip() not in BACKGROUND.values()]
    if kept:
        file[OURS] = {"cards": kept}
    elif OURS in file.tree:
        del file.tree[OURS]
