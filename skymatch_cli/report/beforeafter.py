"""The mosaic before and after as the HTML report shows it: with its stars, and without."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skymatch_cli.errors import UsageError
from skymatch_cli.model import FloatArray

from .quicklook import Quicklook, Stretch, sky_stretches, stretches

PICTURE_SIDE = 720  # pixels of the longer side: two pictures of noise stay below 1.5 MiB
TILES_SIDE = 144  # of the pictures without stars


@dataclass(frozen=True, slots=True)
class Picture:
    """The mosaic before and after in one way, as addresses of PNG pictures; ``key`` tells the ways apart."""

    key: str
    title: str
    before: str
    after: str
    width: int
    height: int
    caption: str


def pictures(looks: Sequence[Quicklook], unit: str) -> list[Picture]:
    """Both ways of showing the mosaic; none where nothing is to be seen.

    Parameters
    ----------
    looks : sequence of Quicklook
        Of means and of medians; or empty.
    unit : str

    Returns
    -------
    list of Picture

    """
    if not looks or not np.isfinite(looks[0].after).any():
        return []
    stars, tiles = looks
    return [
        _picture("all", "Stars and sky", stars, stretches(stars), what="means of blocks of pixels, asinh", unit=unit),
        _picture("sky", "Sky alone", tiles, sky_stretches(tiles), what="medians of tiles, linear", unit=unit),
    ]


def _picture(
    key: str, title: str, look: Quicklook, contrast: tuple[Stretch, Stretch], *, what: str, unit: str
) -> Picture:
    before, after = contrast
    height, width = look.frame.shape
    caption = (
        f"{title}: {what}, averaged over the images; {look.frame.scale_arcsec:.3g}″ a point, north up, east left. "
        f"Both have the same contrast: black to white is {before.black:.4g} to {before.white:.4g} before, "
        f"{after.black:.4g} to {after.white:.4g} after{unit and ', in ' + unit}."
    )
    return Picture(key, title, _data_uri(look.before, before), _data_uri(look.after, after), width, height, caption)


def _data_uri(values: FloatArray, stretch: Stretch) -> str:
    """A PNG of grey and transparency, as the address of itself."""
    seen = np.isfinite(values)
    pixels = np.dstack([stretch.grey(values), seen.astype(np.uint8) * 255])[::-1]
    stream = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(pixels), "LA").save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def pillow() -> Any:
    """The package that writes the pictures.

    Raises
    ------
    UsageError
        If it is missing.

    """
    try:
        from PIL import Image
    except ImportError as error:
        raise missing(error) from None
    return Image


def missing(error: ImportError) -> UsageError:
    """The error that names the package that is missing, and the extra that brings it."""
    return UsageError(f"the report needs the package {error.name}", "pip install 'skymatch-cli[report]'")
