"""Estimate the sky of a set of pixels by a clipped statistic, with its error and a status."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import FloatArray, IntArray, Skystat, SkyStatistic, StatisticSettings, Status
from skymatch_cli.statistics.lattice import MIN_TIES, find_lattice, grouped_median
from skymatch_cli.statistics.mode import histogram, midpoint, mode
from skymatch_cli.statistics.photons import photon_rate
from skymatch_cli.statistics.sample import OrderedSamples, Run, Runs

MIN_PIXELS = 10
"""Pixels that must survive for a statistic: fewer say too little about their own scatter to be weighted."""

SYMMETRIC = 0.02
"""Mean less median, over the noise, that photons have of their own."""

_HALL_SHEATHER = 0.972  # 1.96^(2/3) (1.5 phi(0)^2)^(1/3): bandwidth n^(-1/3) for the density at the median
_OF_MEAN_ERR = 1.5  # chance in mean less median, over the error of the mean: twice sqrt(pi/2 - 1)
_OF_MODE = 3.0  # mean less mode, over mean less median
_LEAST_ERR = float(np.finfo(np.float32).tiny)  # keeps 1 / err^2 finite


def estimate(samples: OrderedSamples, settings: StatisticSettings) -> list[SkyStatistic]:
    """Estimate the sky levels of sets of good pixels, computed together, and their one-sigma errors.

    The status is ``all_masked`` if there are no pixels, ``outside_limits`` if none lies within ``lower`` and ``upper``,
    ``too_few_pixels`` if fewer than ``MIN_PIXELS`` survive.

    Notes
    -----
    Limits and clipping are computed in float64 for pixels of any type. The median of data on a lattice is
    interpolated within its step (see `lattice`); elsewhere it is that of ``numpy``. Photon counts of up to eight in the
    median pixel have the rate of their Poisson distribution, without clipping, in the place of a median, mode or midpt.

    Examples
    --------
    >>> import numpy as np
    >>> from skymatch_cli.settings import Settings
    >>> from skymatch_cli.statistics.sample import SortedSample
    >>> values = np.append(np.linspace(99.0, 101.0, 1001), [5000.0] * 20)  # a sky and a star
    >>> (found,) = estimate(SortedSample(values), Settings().statistic)
    >>> round(float(found.value), 6), found.n, str(found.status)
    (100.0, 1001, 'ok')
    """
    within = _within_limits(samples, settings)
    survivors = clip(within, settings)
    which = np.flatnonzero(survivors.n >= MIN_PIXELS)
    measured = dict(zip(which.tolist(), zip(*_measure(survivors, which, settings), strict=True), strict=True))
    photons = _photons(within, settings)
    found = []
    for k, n in enumerate(survivors.n.tolist()):
        if k in photons:
            value, err, crowding = photons[k]
            found.append(SkyStatistic(value, err, int(within.n[k]), Status.OK, crowding))
        elif k in measured:
            value, err, *more = map(float, measured[k])
            err = max(err, _least_err(value, err, within.of(k)))
            found.append(SkyStatistic(value, err, n, Status.OK, *more))
        else:
            found.append(SkyStatistic(np.nan, np.nan, n, _why_not(int(samples.n[k]), int(within.n[k]))))
    return found


def _photons(within: Runs, settings: StatisticSettings) -> dict[int, tuple[float, float, float]]:
    """Return the rates of sets of photon counts, errors and what sources add: from 0 on, not clipped."""
    which = np.flatnonzero(within.n >= MIN_PIXELS)
    if settings.skystat is Skystat.MEAN or settings.lower is not None or settings.upper is not None or not which.size:
        return {}
    lowest = within.samples.at(which, within.start[which])
    rates = ((k, photon_rate(within.of(k))) for k in which[lowest == 0].tolist())
    return {k: rate for k, rate in rates if rate is not None}


def _why_not(n: int, n_within: int) -> Status:
    """Return why there is no statistic, from the numbers of pixels and of those within the limits."""
    if n == 0:
        return Status.ALL_MASKED
    return Status.TOO_FEW_PIXELS if n_within else Status.OUTSIDE_LIMITS


def _within_limits(samples: OrderedSamples, settings: StatisticSettings) -> Runs:
    """Return the values within the inclusive limits ``lower`` and ``upper``."""
    which = np.arange(samples.n.size)
    start, stop = np.zeros_like(samples.n), samples.n
    if settings.lower is not None:
        start = samples.below(which, np.full(which.size, settings.lower))
    if settings.upper is not None:
        stop = samples.below(which, np.full(which.size, np.nextafter(settings.upper, np.inf)))
    return Runs(samples, start, np.maximum(start, stop))


def clip(values: Runs, settings: StatisticSettings) -> Runs:
    """Clip iteratively about the median, as ``astropy.stats.sigma_clip`` does."""
    samples, start, stop = values.samples, values.start.copy(), values.stop.copy()
    active = np.flatnonzero(stop > start)
    for _ in range(settings.nclip):
        if active.size == 0:
            break
        a, b = start[active], stop[active]
        low, high = samples.at(np.tile(active, 2), np.concatenate([(a + b - 1) // 2, (a + b) // 2])).reshape(2, -1)
        median, std = (low + high) / 2, samples.moments(active, a, b)[1]
        with np.errstate(over="ignore", invalid="ignore"):
            bounds = [median - settings.lsigma * std, np.nextafter(median + settings.usigma * std, np.inf)]
        first, last = samples.below(np.tile(active, 2), np.concatenate(bounds)).reshape(2, -1)
        start[active] = np.maximum(a, first)
        stop[active] = np.maximum(start[active], np.minimum(b, last))
        active = active[((start[active] != a) | (stop[active] != b)) & (stop[active] > start[active])]
    return Runs(samples, start, stop)


def _measure(
    survivors: Runs, which: IntArray, settings: StatisticSettings
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Compute the chosen statistic of some runs, its statistical error, and what sources and photons add.

    Both are seen as mean less median: that of photons is what steps of one photon or more allow for.
    """
    mean, std = survivors.samples.moments(which, survivors.start[which], survivors.stop[which])
    median, err, ties = _medians(survivors, which)
    value, photons = median.copy(), np.zeros(which.size)
    for i, k in enumerate(which.tolist()):
        run = survivors.of(k)
        lattice = find_lattice(run) if ties[i] >= MIN_TIES else None
        if lattice is not None:
            median[i], err[i] = grouped_median(run, lattice)
            value[i], photons[i] = median[i], _skewness(mean[i], std[i], lattice.step)
        if settings.skystat in {Skystat.MEAN, Skystat.MEDIAN} or (lattice is None and _half_are_equal(run)):
            continue
        bins = histogram(run, float(std[i]), settings.binwidth, lattice)
        if settings.skystat is Skystat.MIDPT:
            value[i] = midpoint(bins)
        else:
            value[i], err[i] = mode(bins)
    mean_err = std / np.sqrt(survivors.n[which])
    if settings.skystat is Skystat.MEAN:
        value, err = mean, mean_err
    with np.errstate(invalid="ignore", over="ignore"):
        by_noise = np.maximum(SYMMETRIC * std, photons) + _OF_MEAN_ERR * mean_err
        crowding = np.sqrt(np.maximum((mean - median) ** 2 - by_noise**2, 0.0))
        if settings.skystat is Skystat.MEAN and not settings.nclip:  # all of a source counts, however sharp it is
            crowding = np.zeros_like(value)
        return value, err, crowding, np.minimum(np.abs(value - mean), _OF_MODE * photons)


def _skewness(mean: float, std: float, step: float) -> float:
    """Mean less median of photons that are not more than one a step: a sixth of what one photon makes."""
    return float(min(step, std**2 / mean)) / 6 if mean > 0 else 0.0


def _medians(survivors: Runs, which: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return medians, their errors, and how many values equal the (upper) middle one.

    The error is 1 / (2 f sqrt(n)) with the density f at the median, which a tail of stars leaves alone;
    f from the distance of two quantiles, with the bandwidth of Hall and Sheather 1988, JRSS B 50, 381.
    """
    n = survivors.n[which]
    low = np.maximum(0, (n * (0.5 - _HALL_SHEATHER * n ** (-1 / 3))).astype(np.int64))
    high = n - 1 - low
    ranks = np.stack([low, (n - 1) // 2, n // 2, high]) + survivors.start[which]
    q_low, middle, upper, q_high = survivors.samples.at(np.tile(which, 4), ranks.reshape(-1)).reshape(4, -1)
    around = np.concatenate([upper, np.nextafter(upper, np.inf)])
    first, last = survivors.samples.below(np.tile(which, 2), around).reshape(2, -1)
    return (middle + upper) / 2, (q_high - q_low) * n / (high - low) / (2 * np.sqrt(n)), last - first


def _half_are_equal(run: Run) -> bool:
    """Return whether the quartiles coincide: a sky without noise, which bins would only blur."""
    low, high = run.at(run.n // 4, run.n - 1 - run.n // 4)
    return bool(low == high)


def _least_err(value: float, err: float, within: Run) -> float:
    """Return the uncertainty from rounding, a floor for every error.

    It is the spacing of the number format, or the step of a lattice where the noise is too small to carry values
    from one lattice point to the next.
    """
    floor = within.eps * (abs(value) or 1.0) / np.sqrt(12)
    lattice = find_lattice(within) if err == 0 else None
    return max(float(floor), _LEAST_ERR, lattice.step / np.sqrt(12) if lattice else 0.0)
