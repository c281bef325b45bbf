"""How large the noise and the brightest pixels of an image are: what a wrong unit changes by the same factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, ImageInfo, PixelArray
from skymatch_cli.statistics.sample import spread_sample

_SAMPLE = 2**12
_BRIGHT = 0.998  # quantile: stars, not single hot pixels
_QUARTILES_PER_SIGMA = 1.349


def pixel_scale(data: PixelArray, good: BoolArray) -> FloatArray:
    """Return the noise of a pixel and the height of the brightest ones above the median; NaN without pixels.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.random.default_rng(1).normal(100, 5, (60, 60))
    >>> pixels[:10, :10] += 500
    >>> pixel_scale(pixels, np.ones(pixels.shape, bool)).round()
    array([  5., 506.])
    """
    values = spread_sample(data, good, _SAMPLE).astype(np.float64)
    if not values.size:
        return np.full(2, np.nan)
    shares = np.array([0.25, 0.5, 0.75, _BRIGHT]) * (len(values) - 1)
    low, middle, high, bright = np.interp(shares, np.arange(len(values)), values)
    return np.array([(high - low) / _QUARTILES_PER_SIGMA, bright - middle])


def scales(infos: Sequence[ImageInfo], found: Sequence[FloatArray]) -> FloatArray:
    """Scales of the pixels of all images (see `pixel_scale`) in comparison units, (2, N)."""
    factor = np.array([abs(info.to_comparison) for info in infos])
    return np.asarray(np.array(found).reshape(-1, 2).T * factor)
