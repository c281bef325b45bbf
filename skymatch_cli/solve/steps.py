"""Steps between overlapping images: how large they were, how large they are, and which of them can be seen."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray, Measurements

VISIBLE_NOISE = 0.05  # of the noise of a pixel: the eye averages along the edge of a frame, over some 20 pixels across
VISIBLE_SHARE = 1e-3  # of the largest step before
LOOK_SIGMA = 5.0  # a residual of more errors is not chance, also among thousands of overlaps


def largest(size: FloatArray, component: IntArray, n_components: int) -> FloatArray:
    """Find the largest absolute value in each component, (C,); NaN in components without any."""
    found = np.full(n_components, -np.inf)
    np.maximum.at(found, component, np.abs(size))
    return np.where(np.isfinite(found), found, np.nan)


def visible_step(measurements: Measurements, used: BoolArray, *, by_noise: bool = False) -> float:
    """Smallest step that someone could see in the pairs that are used (M,), in the comparison unit; 0 if unknown.

    ``by_noise``: do not count the size of the steps before.
    """
    m = measurements
    noise = m.delta_err if m.photometric is None else np.sqrt(m.photometric / np.where(m.weight > 0, m.weight, np.nan))
    if m.information is not None:
        noise = 1 / np.sqrt(np.where(m.information > 0, m.information, np.nan))
    return visible_limit(m.delta[used] * (not by_noise), noise[used], m.n_a[used], m.n_b[used])


def visible_limit(delta: FloatArray, delta_noise: FloatArray, n_a: IntArray, n_b: IntArray) -> float:
    """Smallest step that someone could see, from differences, their noise and the pixels behind them, (m,).

    Examples
    --------
    An overlap of 2 x 10,000 pixels, whose difference of 100 is known to 0.1: pixels have a noise of 7.

    >>> one = np.ones(1)
    >>> round(visible_limit(100 * one, 0.1 * one, 10_000 * one, 10_000 * one), 2)
    0.35
    """
    known = (n_a > 0) & (n_b > 0) & np.isfinite(delta_noise)
    if not known.any():
        return 0.0
    noise = np.median(delta_noise[known] / np.sqrt(1 / n_a[known] + 1 / n_b[known]))
    return float(max(VISIBLE_NOISE * noise, VISIBLE_SHARE * np.abs(delta[known]).max()))
