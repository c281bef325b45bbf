"""Clipped statistics of a set of pixels: the sky, its error, and what became of it.

``sky_statistic`` takes the pixels as they come; ``estimate`` is the same on any ordered sample, and is what
the fast path of ``tiles`` uses, so that both give the same answers.
"""

from __future__ import annotations

import numpy as np

from .lattice import Lattice, find_lattice, grouped_median
from .mode import histogram, midpoint, mode
from .model import PixelArray, Skystat, SkyStatistic, StatisticSettings, Status
from .sample import OrderedSample, SortedSample, Survivors

MIN_PIXELS = 10
"""Pixels that must survive for a statistic: fewer say too little about their own scatter to be weighted."""

_HALL_SHEATHER = 0.972  # 1.96^(2/3) (1.5 phi(0)^2)^(1/3): bandwidth n^(-1/3) for the density at the median
_LEAST_ERR = float(np.finfo(np.float32).tiny)  # keeps 1 / err^2 finite


def sky_statistic(values: PixelArray, settings: StatisticSettings) -> SkyStatistic:
    """Sky level of a set of pixels.

    Parameters
    ----------
    values : (n,) float32 or float64
        Good pixels, in any order; values that are not finite don't count.
    settings : StatisticSettings

    Returns
    -------
    SkyStatistic
        Value and one-sigma error in the unit of ``values``, and how many pixels survived. The status is
        ``all_masked`` without a pixel, ``outside_limits`` where none lies within ``lower`` and ``upper``,
        ``too_few_pixels`` where fewer than ``MIN_PIXELS`` survive.

    Notes
    -----
    Limits and clipping are worked out in float64 whatever the type of the pixels. The median of data on a
    lattice is interpolated within its step (see ``lattice``); elsewhere it is that of ``numpy``.
    """
    return estimate(SortedSample(values[np.isfinite(values)]), settings)


def estimate(sample: OrderedSample, settings: StatisticSettings) -> SkyStatistic:
    """``sky_statistic`` of an ordered sample."""
    if sample.n == 0:
        return SkyStatistic(np.nan, np.nan, 0, Status.ALL_MASKED)
    within = _within_limits(sample, settings)
    if within.n <= 0:
        return SkyStatistic(np.nan, np.nan, 0, Status.OUTSIDE_LIMITS)
    survivors = clip(within, settings)
    if survivors.n < MIN_PIXELS:
        return SkyStatistic(np.nan, np.nan, survivors.n, Status.TOO_FEW_PIXELS)
    value, err = _measure(survivors, settings)
    return SkyStatistic(value, max(err, _least_err(value, survivors, within)), survivors.n, Status.OK)


def _least_err(value: float, survivors: Survivors, within: Survivors) -> float:
    """What rounding leaves uncertain, however small the scatter.

    That of the number format; and where clipping has left a single point of a lattice, a step: no noise
    carries the values across it.
    """
    floor = survivors.eps * (abs(value) or 1.0) / np.sqrt(12)
    first, last = survivors.at(np.array([0, survivors.n - 1]))
    lattice = find_lattice(within) if first == last else None
    return max(float(floor), _LEAST_ERR, lattice.step / np.sqrt(12) if lattice else 0.0)


def _within_limits(sample: OrderedSample, settings: StatisticSettings) -> Survivors:
    """The values that lie within the inclusive limits of the user."""
    lower = -np.inf if settings.lower is None else settings.lower
    upper = np.inf if settings.upper is None else settings.upper
    start, stop = sample.below(np.array([lower, np.nextafter(upper, np.inf)]))
    return Survivors(sample, int(start), int(stop))


def clip(values: Survivors, settings: StatisticSettings) -> Survivors:
    """Values that survive the iterated clipping of ``astropy.stats.sigma_clip`` about the median."""
    for _ in range(settings.nclip):
        if values.n <= 0:
            break
        median, std = values.median(), values.moments()[1]
        lowest, highest = median - settings.lsigma * std, median + settings.usigma * std
        start, stop = values.sample.below(np.array([lowest, np.nextafter(highest, np.inf)]))
        kept = Survivors(values.sample, max(values.start, int(start)), min(values.stop, int(stop)))
        if kept == values:
            break
        values = kept
    return values


def _measure(survivors: Survivors, settings: StatisticSettings) -> tuple[float, float]:
    """Value of the statistic that is asked for, and its statistical error."""
    mean, std = survivors.moments()
    if settings.skystat is Skystat.MEAN:
        return mean, std / np.sqrt(survivors.n)
    lattice = find_lattice(survivors)
    median, err = _median(survivors, lattice)
    if settings.skystat is Skystat.MEDIAN or (lattice is None and _half_are_equal(survivors)):
        return median, err
    bins = histogram(survivors, std, settings.binwidth, lattice)
    return (midpoint(bins), err) if settings.skystat is Skystat.MIDPT else mode(bins)


def _half_are_equal(survivors: Survivors) -> bool:
    """Whether the quartiles coincide: a sky without noise, which bins could only blur."""
    low, high = survivors.at(np.array([survivors.n // 4, survivors.n - 1 - survivors.n // 4]))
    return bool(low == high)


def _median(survivors: Survivors, lattice: Lattice | None) -> tuple[float, float]:
    """Median and its error.

    The error is 1 / (2 f sqrt(n)) with the density f at the median, which a tail of stars leaves alone;
    f from the distance of two quantiles, with the bandwidth of Hall and Sheather 1988, JRSS B 50, 381.
    """
    if lattice is not None:
        return grouped_median(survivors, lattice)
    n = survivors.n
    low = max(0, int(n * (0.5 - _HALL_SHEATHER * n ** (-1 / 3))))
    high = n - 1 - low
    q_low, q_high = survivors.at(np.array([low, high]))
    return survivors.median(), float((q_high - q_low) * n / (high - low) / (2 * np.sqrt(n)))
