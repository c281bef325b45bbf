"""Images whose noise is smaller than the step of their integers: means of pixels are biased towards the integers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_SAMPLE = 16384
_FEW = 256  # values by which continuous data are told
_NOISE = 0.42  # steps: beyond, the bias is below a hundredth of a step
_LEAST_SHARE = 0.01  # of the pixels in the second value: with fewer there is no noise at all
_PHOTONS = 3.0  # steps from zero: below, integers are single photons


def rounding_bias(values: npt.NDArray[np.floating]) -> float:
    """Return the largest error that rounding to coarse integers makes in a mean; 0 where the noise hides the steps.

    For Gaussian noise sigma and steps s it is s / pi * exp(-2 (pi sigma / s)^2), the first term of the Fourier series
    of the rounding error (Widrow & Kollar 2008, Quantization Noise, chapter 4).

    Examples
    --------
    >>> noise = np.random.default_rng(1).normal(0, 1, 9999)
    >>> [round(rounding_bias(np.rint(20.2 + s * noise)), 2) for s in (0.3, 0.6)]
    [0.09, 0.0]
    """
    if len(values) < _FEW or is_continuous(values):
        return 0.0
    some = values[:: max(1, len(values) // _SAMPLE)].astype(np.float64)
    levels, counts = np.unique(some, return_counts=True)
    k = int(np.argmax(counts))
    neighbours = [i for i in (k - 1, k + 1) if 0 <= i < len(levels)]
    if not neighbours or counts[neighbours].max() < _LEAST_SHARE * len(some):
        return 0.0
    step = float(np.diff(levels)[[min(k, i) for i in neighbours]].min())
    near = some[np.abs(some - levels[k]) < 3.5 * step] / step
    variance = float(np.var(near)) - 1 / 12
    if variance >= _NOISE**2 or (levels[0] >= 0 and np.mean(near) < _PHOTONS):
        return 0.0
    return step / math.pi * math.exp(-2 * math.pi**2 * max(variance, 0.0))


def is_continuous(values: npt.NDArray[np.floating]) -> bool:
    """Return whether values, of which a few hundred are looked at, are hardly ever equal."""
    few = np.sort(values[:: max(1, len(values) // _FEW)])
    return len(few) >= _FEW and int(np.count_nonzero(np.diff(few))) >= len(few) // 4
