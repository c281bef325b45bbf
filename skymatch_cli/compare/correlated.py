"""Noise that neighbouring pixels have in common (resampled, drizzled images): errors of means are larger for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, IntArray, PixelArray
from skymatch_cli.sky.raster import Spans

_SIDE = 4  # pixels of a block
_APART = 8  # pixels between the blocks that are compared: beyond the kernels of resampling
_MOST = 1024  # triples of blocks of a region
_FEWEST = 30
_SURE = 9.2  # four standard deviations of the ratio of variances, times the root of the number of triples


def correlated_factor(data: PixelArray, good: BoolArray, region: Spans) -> float:
    """Factor by which the error of a mean over a region is larger than if its pixels were independent; 1 or more.

    The scatter of means of 4 x 4 pixels is compared with that of single pixels, both of second differences along rows
    at a distance of 8 pixels, in which smooth structure cancels; medians of their sizes leave stars out.

    Parameters
    ----------
    data : (ny, nx) float
    good : (ny, nx) bool
        True = use.
    region : Spans

    Returns
    -------
    float
        1 unless the scatter of means is larger by more than four standard deviations.
    """
    y, x = _places(region)
    rows = y[:, None, None] + np.arange(_SIDE)[:, None]
    columns = x[:, None, None] + (np.arange(3)[:, None] * _APART + np.arange(_SIDE)).ravel()
    whole = good[rows, columns].all(axis=(1, 2)) if len(y) else np.zeros(0, np.bool_)
    n = int(np.count_nonzero(whole))
    if n < _FEWEST:
        return 1.0
    block = data[rows[whole], columns[whole]].astype(np.float64).reshape(n, _SIDE, 3, _SIDE)
    pixels = block[:, :, 0] - 2 * block[:, :, 1] + block[:, :, 2]
    single = _scatter(pixels.ravel())
    if single == 0:
        return 1.0
    ratio = (_SIDE * _scatter(pixels.mean(axis=(1, 2))) / single) ** 2
    return float(np.sqrt(ratio)) if ratio > 1 + _SURE / np.sqrt(n) else 1.0


def _places(region: Spans) -> tuple[IntArray, IntArray]:
    """First pixels of blocks that lie in the region with the two to their right, (n,) each."""
    if not len(region.y):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first = int(region.y.min())
    n_rows = (int(region.y.max()) - first + 1) // _SIDE * _SIDE
    low, high = np.full(n_rows, np.iinfo(np.int64).max), np.zeros(n_rows, np.int64)
    inside = region.y - first < n_rows
    np.minimum.at(low, region.y[inside] - first, region.x0[inside])
    np.maximum.at(high, region.y[inside] - first, region.x1[inside])
    low, high = low.reshape(-1, _SIDE).max(axis=1), high.reshape(-1, _SIDE).min(axis=1)
    width = 2 * _APART + _SIDE
    count = np.maximum((high - low) // width, 0) * (high > low)
    total = int(count.sum())
    chosen = np.arange(total)[:: max(1, -(-total // _MOST))]
    row = np.searchsorted(np.cumsum(count), chosen, side="right")
    along = chosen - (np.cumsum(count) - count)[row]
    return first + _SIDE * row, low[row] + width * along


def _scatter(values: npt.NDArray[np.float64]) -> float:
    """Median distance from the median."""
    return float(np.median(np.abs(values - np.median(values))))
