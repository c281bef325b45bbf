"""The own sky of an image, with the sources left out where that is asked for.

Where they are not, pixels above the clipped sky pull it up in a crowded field: the mean of the clipped pixels is above
their median, and in simulated fields the bias of the median is about four times that.

Sources are what stands above the noise of the smoothed image, as in DAOFIND and SExtractor. In a crowded field the
light between the bright stars is that of fainter ones: level and noise of the sky are found again without the sources,
and the sources with these, until they stay. The noise is that of the pixels below the sky, where no light adds to it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from skymatch_cli.choices import Skystat
from skymatch_cli.model import BoolArray, FloatArray, PixelArray, SkyStatistic, StatisticSettings, Status
from skymatch_cli.sky.raster import Spans
from skymatch_cli.statistics.amplifiers import trimmed_means
from skymatch_cli.statistics.regions import region_statistics

_SMOOTHING_PIX = 1.5  # standard deviation, and more where that holds fewer photons than these
_PHOTONS = 60.0
_SAME_RATE = 2.0  # photons by the noise, (level / noise)^2, over those by the share of pixels without one, at most
_THRESHOLD = 3.0  # in units of the noise of the smoothed image
_LEAST_PIXELS = 5  # of a source above the threshold, connected also by corners
_GROWTH_PIX = 2  # by which sources are wider than what is above the threshold
_ITERATIONS = 30
_SETTLED = 1e-3  # of the pixels change
_LEAST_SHARE = 0.02  # of the pixels must remain
_BLOCKS = 8  # a side, whose scatter is part of the error
_LEAST_BLOCKS = 25  # differences of blocks
_MEDIAN_SQUARE = 0.455  # of the square of a Gaussian, which sources in a few blocks leave alone
_QUARTER = 0.25  # of the pixels of a block left out at either end
_QUARTILES, _OF_MIDDLE = 1.349, 1.2  # quartiles apart, in sigma; variance of that mean, in that of the mean of all
_CORRELATED, _BANDED = 3.0, 6.0  # variance beyond that of independent pixels, which chance seldom makes
_OF_ASYMMETRY = 4.0  # bias of clipped pixels in a crowded field, over mean less median
_UNSEEN = 0.1  # of what the sources did to the sky, sources that are too faint may still do


def own_sky(data: PixelArray, good: BoolArray, settings: StatisticSettings, *, mask_sources: bool) -> SkyStatistic:
    """Estimate the sky of a whole image, with or without its sources.

    Without, the error counts the scatter of 8 x 8 blocks of the image, the asymmetry that is left in the pixels, and a
    tenth of the change by masking, for sources too faint to be found. With them, what stands between clipped pixels is
    a bias that grows with their asymmetry (mean less median), and the error counts that, and noise that pixels share.
    """
    frame = [Spans.full(data.shape)]
    (whole,) = region_statistics(data, good, frame, settings)
    if whole.status != Status.OK:
        return whole
    if not mask_sources:
        sources = np.hypot(_OF_ASYMMETRY * whole.crowding, whole.skewness)
        return _with_error(whole, float(np.hypot(sources, _correlated(data, good))))
    use = without_sources(data, good)
    (own,) = region_statistics(data, use, frame, settings)
    blocks = region_statistics(data, use, _blocks(data.shape), settings)
    value, n = np.array([(b.value, b.n) for b in blocks if b.status == Status.OK]).reshape(-1, 2).T
    scatter = np.sqrt(np.sum((n / n.sum() * (value - np.average(value, weights=n))) ** 2)) if n.sum() else 0.0
    structure = np.sqrt(max(scatter**2 - own.err**2, 0.0))
    faint = _UNSEEN * (whole.value - own.value)
    asymmetry = own.crowding  # of photons: their clipped mean says nothing
    if math.isinf(_photon_rate(data[use])):
        mean, median = (
            region_statistics(data, use, frame, replace(settings, skystat=kind))[0].value
            for kind in (Skystat.MEAN, Skystat.MEDIAN)
        )
        asymmetry = mean - median
    return _with_error(own, np.sqrt(structure**2 + faint**2 + asymmetry**2))


def _correlated(data: PixelArray, good: BoolArray) -> float:
    """Return the error of the level of a frame that is made by noise that pixels share.

    After resampling, neighbours do: differences of four blocks show it, free of gradients and of all sums of functions
    along and across. Else rows or columns do: bands of blocks, without the slope of those on either side, show it.
    """
    if min(data.shape) < _BLOCKS or math.isfinite(_photon_rate(data[good])):  # photons are independent
        return 0.0
    level, variance = _block_levels(data, good)
    four = np.diff(np.diff(level, axis=0), axis=1)
    known = four[np.isfinite(four)]
    if known.size < _LEAST_BLOCKS:
        return 0.0
    squares = [float(np.median(known**2)) / _MEDIAN_SQUARE / 4 / _BLOCKS**2]
    bands = [np.diff(level.mean(axis=axis), 2) for axis in (0, 1)]  # NaN where a block is unknown
    squares += [float(np.mean(bend**2)) / 6 / _BLOCKS for bend in bands]
    noise = variance / _BLOCKS**2
    chance = [_CORRELATED * noise, _BANDED * noise, _BANDED * noise]
    return math.sqrt(sum(square - noise for square, least in zip(squares, chance, strict=True) if square > least))


def _block_levels(data: PixelArray, good: BoolArray) -> tuple[FloatArray, float]:
    """Means (8, 8) of the middle half of the pixels of blocks, NaN where most are not good.

    And their typical variance, where pixels are independent: by the quartiles of the pixels.
    """
    height, width = (n // _BLOCKS for n in data.shape)
    pixels = np.where(good, data, np.inf)[: _BLOCKS * height, : _BLOCKS * width]
    pixels = pixels.reshape(_BLOCKS, height, _BLOCKS, width).swapaxes(1, 2).reshape(_BLOCKS**2, -1)
    pixels.sort(axis=1)
    count = np.count_nonzero(pixels < np.inf, axis=1)
    (known,) = np.nonzero(2 * count > pixels.shape[1])
    level, pixels, count = np.full(_BLOCKS**2, np.nan), pixels[known], count[known]
    level[known] = trimmed_means(pixels, count[:, None], _QUARTER)
    low, high = (pixels[np.arange(len(known)), (share * count).astype(int)] for share in (_QUARTER, 1 - _QUARTER))
    variance = _OF_MIDDLE * ((high - low).astype(float) / _QUARTILES) ** 2 / count
    return level.reshape(_BLOCKS, _BLOCKS), float(np.median(variance)) if len(known) else 0.0


def _with_error(sky: SkyStatistic, more: float) -> SkyStatistic:
    """Return a sky with an error beyond that of its noise."""
    return replace(sky, err=float(np.hypot(sky.err, more)), crowding=float(more))


def without_sources(data: PixelArray, good: BoolArray) -> BoolArray:
    """Return which good pixels (ny, nx) are outside of sources."""
    from scipy import ndimage

    use = good = good & np.isfinite(data)
    if not good.any():
        return good
    level = np.where(good, data - np.median(data[good]), 0).astype(np.float32)
    # Few photons in the smoothing would each look like a source.
    width = max(_SMOOTHING_PIX, math.sqrt(_PHOTONS / (4 * math.pi * _photon_rate(data[good]))))
    cover = ndimage.gaussian_filter(good.astype(np.float32), width, mode="constant")
    known = good & (cover > 0.3)
    smooth = ndimage.gaussian_filter(level, width, mode="constant") / np.maximum(cover, np.float32(0.3))
    for _ in range(_ITERATIONS):
        sky = smooth[use & known]
        if not sky.size:
            break
        middle = np.median(sky)
        noise = np.sqrt(np.mean((sky[sky < middle] - middle) ** 2, dtype=float)) if (sky < middle).any() else np.inf
        number, _ = ndimage.label((smooth > middle + _THRESHOLD * noise) & known, np.ones((3, 3)))
        size = np.bincount(number.reshape(-1))
        size[0] = 0
        found = ndimage.binary_dilation((size >= _LEAST_PIXELS)[number], iterations=_GROWTH_PIX)
        before, outside = use, good & ~found
        if np.count_nonzero(outside) < _LEAST_SHARE * np.count_nonzero(good):
            break
        use = outside
        if np.count_nonzero(use != before) < _SETTLED * np.count_nonzero(before):
            break
    return use


def _photon_rate(values: PixelArray) -> float:
    """Return the photons in a pixel by the share of pixels without one (Poisson); infinity where each has some.

    A few dead pixels are none without a photon: the noise of the others is far smaller than that of so few photons.
    """
    zeros = np.count_nonzero(values == 0) / values.size if values.min() >= 0 else 0.0
    if not 0 < zeros < 1:
        return math.inf
    rate = -math.log(zeros)
    low, middle = np.percentile(values, [16, 50])
    return rate if middle <= math.sqrt(_SAME_RATE * rate) * (middle - low) else math.inf


def _blocks(shape: tuple[int, int]) -> list[Spans]:
    """Blocks of an image, by rows and columns."""
    cuts_y, cuts_x = (np.linspace(0, n, _BLOCKS + 1).astype(int).tolist() for n in shape)
    rows = [np.arange(low, high) for low, high in pairwise(cuts_y)]
    return [Spans(y, np.full_like(y, low), np.full_like(y, high)) for y in rows for low, high in pairwise(cuts_x)]
