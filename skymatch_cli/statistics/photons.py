"""Photon counts: the rate of a Poisson distribution, where a median of whole numbers says little.

With 0.3 photons in a pixel the median is 0, and clipping takes all pixels that hold one. One rate explains the share of
pixels with at most k photons, k the median; bright pixels change that share no more than faint ones.

Photons that were amplified above the read noise have no such steps. They are told from stars, trails and hot pixels by
where they are, and by how bright: bright pixels that know nothing of their neighbours, and are much alike.
"""

from __future__ import annotations

from bisect import bisect_left
from math import exp, factorial

import numpy as np

from skymatch_cli.model import BoolArray, PixelArray
from skymatch_cli.statistics.sample import Run, SortedValues

_MOST = 8  # photons in the median pixel: beyond, a Gaussian does
_EXACT = 1e-3  # of a step, within which values are whole numbers of photons
_DEPARTURE = 0.15  # relative: stars in the field
_CHANCE = 5.0  # standard deviations of a number of pixels
_LEAST = 20  # pixels with photons
_HALVINGS = 60  # of the interval of rates: to the last digit
_SAMPLE = 2**17  # pixels that are looked at for amplified photons, by whole rows
_ABOVE = 5.0  # read noises
_SHARES = 0.01, 0.4  # of the pixels: fewer change little, more are no single photons
_ALIKE = 6.0  # brightness of the brightest tenth over that of the middle: hot pixels have any brightness
_CLUSTERED = 1.5  # bright neighbours over what chance makes of them: those of stars are many times as many


def photon_rate(run: Run) -> tuple[float, float, float] | None:
    """Return the rate of photons, its one-sigma error, and how sources raise it; None if values are no such counts.

    Counts, none of them clipped, are whole multiples of one step from 0 on, and their numbers up to the median are
    those of a Poisson distribution. Sources raise the rate that the next number of photons gives by more.
    """
    n_zero = int(run.below(np.array([np.nextafter(0.0, 1.0)]))[0])
    if float(run.at(0)[0]) != 0 or run.n - n_zero < _LEAST:
        return None
    step = float(run.at(n_zero)[0])
    k = round(float(run.at(run.n // 2)[0]) / step)
    if k > _MOST:
        return None
    counts = np.arange(k + 2, dtype=float)
    edges = np.stack([counts - _EXACT, counts + _EXACT, counts + 1 - _EXACT]) * step
    low, high, beyond = run.below(edges.reshape(-1)).reshape(3, -1)
    up_to = float(high[k]) / run.n
    if (beyond != high).any() or up_to >= 1:
        return None
    rate = _rate_of(k, up_to)
    expected = np.array([_poisson(j, rate) for j in range(k + 2)])
    allowed = _DEPARTURE * expected + _CHANCE * np.sqrt(expected / run.n)
    if (np.abs((high - low) / run.n - expected) > allowed).any():
        return None
    err = float(np.sqrt(up_to * (1 - up_to) / run.n) / expected[k])
    return rate * step, err * step, step * _raised(rate, k, float(high[k + 1]) / run.n, run.n)


def _raised(rate: float, k: int, up_to: float, n: int) -> float:
    """Return how much sources raise a rate, by the share ``up_to`` of the n pixels with at most ``k + 1`` photons.

    A pixel in a source is missing in both shares, which changes the rate by the second one more.
    """
    if up_to >= 1:
        return 0.0
    beyond, err = _rate_of(k + 1, up_to) - rate, np.sqrt(up_to * (1 - up_to) / n) / _poisson(k + 1, rate)
    before, after = (sum(_poisson(i, rate) for i in range(j + 1)) / _poisson(j, rate) for j in (k, k + 1))
    return float(np.sqrt(max(beyond, err) ** 2 - err**2) / (after / before - 1))


def _rate_of(k: int, up_to: float) -> float:
    """Return the rate at which a share ``up_to`` of the pixels has at most ``k`` photons."""
    low, high = 0.0, 4.0 * (_MOST + 1)
    for _ in range(_HALVINGS):
        rate = 0.5 * (low + high)
        share = sum(_poisson(j, rate) for j in range(k + 1))
        low, high = (rate, high) if share > up_to else (low, rate)
    return 0.5 * (low + high)


def _poisson(n: int, rate: float) -> float:
    """Return the probability of ``n`` photons."""
    return exp(-rate) * rate**n / factorial(n)


def clipped_photons(data: PixelArray, good: BoolArray) -> float:
    """Return what clipping takes off a mean where single photons stand far out of the read noise; 0 elsewhere."""
    every = max(1, data.size // _SAMPLE)
    data, good = data[::every], good[::every]
    values: SortedValues = data[good]
    if values.size < _LEAST**2:
        return 0.0
    values.sort()  # quicker than `np.median`, which partitions
    lower, upper = (values.size - 1) // 2, values.size // 2
    middle = 0.5 * (float(values[lower]) + float(values[upper]))
    noise = 1.4826 * 0.5 * (_nearest(values, middle, lower + 1) + _nearest(values, middle, upper + 1))
    least = values.dtype.type(middle + _ABOVE * noise)
    beyond = values[values.searchsorted(least, "right") :] - middle
    share = beyond.size / values.size
    if noise == 0 or not _SHARES[0] < share < _SHARES[1] or np.quantile(beyond, 0.9) > _ALIKE * np.median(beyond):
        return 0.0
    bright = good & (data > least)
    by_chance = share**2 * np.count_nonzero(good[:, 1:] & good[:, :-1])
    both = np.count_nonzero(bright[:, 1:] & bright[:, :-1])
    return share * float(np.median(beyond)) if both < _CLUSTERED * by_chance + _CHANCE * np.sqrt(by_chance) else 0.0


def _nearest(ordered: SortedValues, middle: float, n: int) -> float:
    """Return how far the n values that are nearest to ``middle`` reach: they are a run of the sorted values."""
    first = bisect_left(range(ordered.size - n), 0, key=lambda k: ordered[k] - middle + (ordered[k + n - 1] - middle))
    around = slice(max(first - 1, 0), first + 1)
    return float(np.maximum(middle - ordered[around], ordered[n - 1 :][around] - middle).min())
