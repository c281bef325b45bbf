"""Copies of images in memory with their skies subtracted."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.choices import METHOD_IN_PIPELINES
from skymatch_cli.images.formats import cards as cd
from skymatch_cli.images.objects import is_model, is_pair, is_roman
from skymatch_cli.images.skycards import LEVEL, METHOD, SUBTRACTED, sky_cards
from skymatch_cli.images.undocards import PROGRAM
from skymatch_cli.model import ImageInfo
from skymatch_cli.model.section import Part
from skymatch_cli.model.skyparts import Skies
from skymatch_cli.model.skyplane import SkyPlane


@dataclass(frozen=True, slots=True)
class FoundSky:
    """The sky of one image in memory, to subtract from its original pixels."""

    info: ImageInfo
    sky: SkyPlane
    method: str

    def subtract(self, data: Any) -> Any:
        """Return the corrected pixels, (ny, nx): floats that hold the originals; nothing is subtracted twice."""
        values = np.asarray(data)
        before = self.info.recorded
        plane = self.sky
        if before is not None and before.subtracted:
            plane -= before.sky
        exact = np.result_type(values.dtype, np.float32)
        return (values.astype(np.float64) - plane.rows(0, values.shape[0], values.shape)).astype(exact)

    def cards(self) -> dict[str, Any]:
        """Return the sky keywords of its header."""
        return {LEVEL: self.sky.level, SUBTRACTED: True, METHOD: self.method}


def corrected_copy(item: Any, skies: Sequence[FoundSky]) -> Any:
    """Copy an image in memory, or an HDUList, without the skies of its images; the original is not changed.

    Images whose sky is not finite stay as they are.
    """
    from astropy.io import fits

    skies = [found for found in skies if math.isfinite(found.sky.level)]
    if isinstance(item, fits.HDUList):
        return _hdulist(item, skies)
    if not skies:
        return copy.deepcopy(item)
    (found,) = skies
    if is_pair(item):
        return _array(item[0], found), item[1]
    if is_model(item):
        return _model(item, found)
    return _nddata(item, found)


def _nddata(item: Any, found: FoundSky) -> Any:
    made = copy.deepcopy(item)
    pixels = found.subtract(item.data)
    if type(item).data.fset is None:  # of NDData itself; its kinds can be given other pixels
        kept = {name: getattr(made, name) for name in ("uncertainty", "mask", "wcs", "meta", "unit")}
        made = type(item)(pixels, **kept)
    else:
        made.data = pixels
    _forget(made.meta)
    made.meta.update(found.cards())
    return made


def _forget(header: Any) -> None:
    """Remove our undo cards, which describe the file that the image was read from."""
    if hasattr(header, "cards"):
        ours = [card.keyword == "HISTORY" and str(card.value).startswith(PROGRAM) for card in header.cards]
        for index in reversed([k for k, is_ours in enumerate(ours) if is_ours]):
            del header[index]


def _array(array: Any, found: FoundSky) -> Any:
    unit = getattr(array, "unit", None)
    if unit is not None:
        return type(array)(found.subtract(array.value), unit)
    if isinstance(array, np.ma.MaskedArray):
        return np.ma.MaskedArray(found.subtract(np.ma.getdata(array)), np.ma.getmaskarray(array).copy())
    return found.subtract(array)


def _hdulist(hdus: Any, skies: Sequence[FoundSky]) -> Any:
    made = type(hdus)([hdu.copy() for hdu in hdus])
    is_jwst = str(made[0].header.get("TELESCOP", "")).upper() == "JWST"
    for found in skies:
        hdu, plane = made[found.info.ref.hdu], found.info.ref.part.plane
        for header in (made[0].header, hdu.header):
            _forget(header)
        if plane is None:
            hdu.data = found.subtract(hdus[found.info.ref.hdu].data)
            (made[0] if is_jwst else hdu).header.update(found.cards())
            continue
        if hdu.data.dtype.kind != "f":
            hdu.data = hdu.data.astype(np.result_type(hdu.data.dtype, np.float32))
        planes = hdu.data.reshape(-1, *hdu.data.shape[-2:])
        planes[plane] = found.subtract(planes[plane])
        hdu.header.update({SUBTRACTED: True, METHOD: found.method})
        cards = sky_cards(Skies({Part(plane): found.sky}), [math.nan], tilted=False)
        hdu.header.update({keyword: cd.card_value(card) for keyword, card in cards.items()})
    return made


def _model(model: Any, found: FoundSky) -> Any:
    made = model.copy()
    made.data = found.subtract(model.data)
    if is_roman(model):
        from skymatch_cli.images.formats.roman import OURS, schema_method

        if hasattr(made, OURS):  # undo cards
            delattr(made, OURS)
        background = {"level": found.sky.level, "method": schema_method(found.method), "subtracted": True}
        made.meta["background"] = background
        if "cal_step" in made.meta:
            made.meta["cal_step"]["skymatch"] = "COMPLETE"
        return made
    if history := getattr(made, "history", None):
        made.history = [entry for entry in history if not str(entry.get("description", "")).startswith(PROGRAM)]
    made.meta.background.level = found.sky.level
    made.meta.background.method = METHOD_IN_PIPELINES.get(found.method, found.method)
    made.meta.background.subtracted = True
    made.meta.cal_step.skymatch = "COMPLETE"
    return made
