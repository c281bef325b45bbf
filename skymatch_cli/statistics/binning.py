"""Sort the values of an image into bins that are fine where medians and clipping bounds fall."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, PixelArray
from skymatch_cli.statistics.sample import SortedValues, spread_sample

BINS = 255
"""Bins of values; the first and the last have no bound. Code ``BINS`` itself: a pixel that doesn't count."""

_LEVELS = 16384
_CORE = 30.0  # half-width of the range that the levels divide, in sigma of the quartiles
_SAMPLE = 16384  # pixels from which the bins are laid out
_QUARTILES_PER_SIGMA = 1.349
# Fractions of the sample, and of the bins used up to there: fine in the middle and in the tail of stars.
_SHARE_OF_SAMPLE = (0.0, 0.01, 0.45, 0.55, 0.95, 1.0)
_SHARE_OF_BINS = (0.0, 0.04, 0.27, 0.52, 0.75, 1.0)


class Binning:
    """Bins that keep the order of values: a larger value is never in a lower bin.

    A value becomes one of 16384 levels by a subtraction and a product; a look-up table gives the bin of a level.
    Rounding may move a value to the next level but never swaps two values, and counting needs no more. The sorted
    sample of the image affects the speed, not the result.
    """

    def __init__(self, sample: SortedValues) -> None:
        low, self.pivot, high = (float(sample[int(q * (sample.size - 1))]) for q in (0.25, 0.5, 0.75))
        number: Any = sample.dtype.type
        least = max(abs(self.pivot) * float(np.finfo(sample.dtype).eps), float(np.finfo(np.float32).tiny) * _LEVELS)
        sigma = max((high - low) / _QUARTILES_PER_SIGMA, least)
        self._low = number(self.pivot - _CORE * sigma)
        self._scale = number(_LEVELS / (2 * _CORE * sigma))
        levels = self._levels(sample)
        counts = np.bincount(levels, minlength=_LEVELS)
        before = (np.cumsum(counts) - counts) / sample.size
        share = np.interp(before, _SHARE_OF_SAMPLE, _SHARE_OF_BINS)
        self._bins = (1 + np.minimum(share * (BINS - 2), BINS - 3)).astype(np.uint8)
        self._bins[0], self._bins[-1] = 0, BINS - 1
        cuts = np.searchsorted(self._bins.take(levels), np.arange(BINS + 1))
        first, last = cuts[:-1], cuts[1:] - 1
        self.lowest = np.append(sample, number(np.inf))[first]  # values of the sample in every bin
        self.ties = bool((self.lowest[last > first] == sample[last[last > first]]).any())  # of all that it has in a bin

    @classmethod
    def of(cls, data: PixelArray, good: BoolArray) -> Binning:
        """Lay out bins for the good pixels of an image, (ny, nx) each."""
        sample = spread_sample(data, good, _SAMPLE)
        return cls(sample if sample.size else np.zeros(1, dtype=data.dtype))

    def bins(self, values: SortedValues) -> npt.NDArray[np.uint8]:
        """Return the bins of pixels, ``BINS`` for infinite ones."""
        bins = self._bins.take(self._levels(values))
        bins[values == np.inf] = BINS
        return bins

    def _levels(self, values: SortedValues) -> npt.NDArray[np.uint16]:
        """Return the levels of values, none of which may be NaN."""
        with np.errstate(over="ignore"):
            level = values - self._low
            level *= self._scale
        clipped: SortedValues = np.clip(level, 0, _LEVELS - 1, out=level)
        return clipped.astype(np.uint16)
