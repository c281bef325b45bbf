"""Pictures of the mosaic before and after for the HTML report, without stars and with them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.errors import missing_extra
from skymatch_cli.model import FloatArray

from .quicklook import Quicklook

PICTURE_SIDE = 720  # pixels of the longer side: two pictures of noise stay below 1.5 MiB
TILES_SIDE = 144  # of the pictures without stars


@dataclass(frozen=True, slots=True)
class Picture:
    """The mosaic before and after, drawn in one way, as data URIs of PNG pictures; ``key`` names the way."""

    key: str
    title: str
    before: str
    after: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """The scale of grey: asinh about ``black``, linear within ``softening`` of it, 1 at ``white``."""

    black: float
    white: float
    softening: float

    def grey(self, values: FloatArray) -> npt.NDArray[np.uint8]:
        """Return values as 0…255; NaN gives 0."""
        grey: npt.NDArray[np.uint8] = np.nan_to_num(np.clip(self.scaled(values), 0, 1) * 255).round().astype(np.uint8)
        return grey

    def scaled(self, values: FloatArray) -> FloatArray:
        """Return values as 0 (black) to 1 (white), and beyond."""
        scaled: FloatArray = np.arcsinh((values - self.black) / self.softening) / self._top
        return scaled

    def unscaled(self, scaled: FloatArray) -> FloatArray:
        """Return the values of a scale of 0 (black) to 1 (white): the inverse of `scaled`."""
        values: FloatArray = self.black + self.softening * np.sinh(scaled * self._top)
        return values

    @property
    def _top(self) -> float:
        return float(np.arcsinh((self.white - self.black) / self.softening))

    def shifted(self, by: float) -> Stretch:
        """Return the same contrast about another level."""
        return Stretch(self.black + by, self.white + by, self.softening)


def pictures(looks: Sequence[Quicklook], unit: str, *, cubes: bool = False) -> list[Picture]:
    """Draw the mosaic in both ways, from looks of means and of medians; return none where there are no pixels.

    ``cubes``: some images are planes of cubes, all of which are in the mean.
    """
    if not looks or not np.isfinite(looks[0].after).any():
        return []
    stars, tiles = looks
    over = ", averaged over the images" + cubes * " and all planes of the cubes"
    blocks = "means of blocks of pixels, asinh"
    return [
        _picture("sky", "Sky alone", tiles, sky_stretches(tiles), what="medians of tiles, linear" + over, unit=unit),
        _picture("all", "Stars and sky", stars, stretches(stars), what=blocks + over, unit=unit),
    ]


def _picture(
    key: str, title: str, look: Quicklook, contrast: tuple[Stretch, Stretch], *, what: str, unit: str
) -> Picture:
    before, after = contrast
    height, width = look.frame.shape
    caption = (
        f"{title}: {what}; {look.frame.scale_arcsec:.3g}″ per point, north up, east left. "
        f"Both have the same contrast; black to white is {_range(before, unit)} before and {_range(after, unit)} after."
    )
    return Picture(key, title, _data_uri(look.before, before), _data_uri(look.after, after), width, height, caption)


def _range(stretch: Stretch, unit: str) -> str:
    return f"{stretch.black:.4g} to {stretch.white:.4g} {unit}".rstrip()


def _data_uri(values: FloatArray, stretch: Stretch) -> str:
    """Encode values as a PNG of grey and transparency, as a data URI."""
    seen = np.isfinite(values)
    pixels = np.dstack([stretch.grey(values), seen.astype(np.uint8) * 255])[::-1]
    stream = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(pixels), "LA").save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def pillow() -> Any:
    """Import the package that writes the pictures; UsageError if it is missing."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra("the report", error, "report") from None
    return Image


def stretches(look: Quicklook) -> tuple[Stretch, Stretch]:
    """Choose one contrast for both pictures, each about its own level (``globalmin`` and ``user`` shift all)."""
    after, before, (low, level, high) = _seen(look, [1.0, 50.0, 99.7])
    spread = max(level - low, float(np.ptp(np.percentile(before - after, [0.5, 99.5]))), 1e-6 * max(1.0, abs(level)))
    stretch = Stretch(black=level - 1.5 * spread, white=max(high, level + 2 * spread), softening=spread)
    return stretch.shifted(float(np.median(before)) - level), stretch


def sky_stretches(look: Quicklook) -> tuple[Stretch, Stretch]:
    """Choose the contrast of a look without stars: linear, wide enough for the steps and most of the sky."""
    after, before, (low, level, high) = _seen(look, [2.0, 50.0, 90.0])
    shift = float(np.median(before)) - level
    step = 1.1 * float(np.abs(before - after - shift).max())
    black, white = min(low, level - step), max(high, level + step, level + 1e-6 * max(1.0, abs(level)))
    stretch = Stretch(black, white, softening=10 * (white - black))
    return stretch.shifted(shift), stretch


def _seen(look: Quicklook, percent: list[float]) -> tuple[FloatArray, FloatArray, list[float]]:
    """Return the points of both pictures that have an image, and percentiles of those after; zeros without any."""
    after, before = (values[np.isfinite(look.after)] for values in (look.after, look.before))
    after, before = (values if values.size else np.zeros(1) for values in (after, before))
    return after, before, np.percentile(after, percent).tolist()
