"""Noise that pairs have in common, because they look at the same pixels of an image.

The statistic of an image over an overlap behaves as a mean over the overlap's pixels. Two overlaps with
n and m pixels, k of them common, then have errors with correlation k / sqrt(n m). Which pixels are common
is known by blocks of the frame, each one independent source of noise: two overlaps that cover the parts f
and g of a block are taken to share (f g)^0.8 of it. That is exact where one of them covers it fully or not
at all, and in between it is the average of what borders do: parallel ones share min(f, g), as (f g)^0.73 on
average; crossing ones f g. What is left of a pair's variance is its own, so that the covariance is S S^T
with a sparse S and exact variances on its diagonal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from skymatch_cli.model import FloatArray, IntArray

_BORDER = 0.8  # exponent of shared parts of a block that borders cross


def pooled_noise(
    err: FloatArray, image: IntArray, side: IntArray, pair: IntArray, counts: npt.NDArray[np.integer[Any]]
) -> csr_array:
    """Noise factor S (M, K) of pooled differences: S S^T is their covariance, ``(err**2).sum(axis=0)`` its diagonal.

    Parameters
    ----------
    err : (2, M) float64
        1-sigma error of the statistic of the first and the second image of every pair, in comparison
        units; 0 for pairs that are not used.
    image, side, pair : (k,) int64
        The regions: overlap ``pair`` in an image that is the first of it (0) or the second (1).
    counts : (k, n_blocks) int
        Pixels of each region in each block of the frame. Where a pair has none, its noise is its own.
    """
    n_pairs = err.shape[1]
    region, block = np.nonzero(counts)
    n_pixels = counts[region, block].astype(float)
    image, side, pair = image[region], side[region], pair[region]
    of_side = side * n_pairs + pair
    variance = err[side, pair] ** 2 * n_pixels / np.bincount(of_side, n_pixels, minlength=2 * n_pairs)[of_side]
    column = image * counts.shape[1] + block
    n_shared = int(column.max(initial=0)) + 1
    largest = np.zeros(n_shared)
    np.maximum.at(largest, column, n_pixels)
    shared = variance * (n_pixels / largest[column]) ** (2 * _BORDER - 1)

    own = (err**2).sum(axis=0) - np.bincount(pair, shared, minlength=n_pairs)
    value = np.concatenate([(1.0 - 2.0 * side) * np.sqrt(shared), np.sqrt(np.maximum(own, 0.0))])
    row = np.concatenate([pair, np.arange(n_pairs)])
    column = np.concatenate([column, n_shared + np.arange(n_pairs)])
    return coo_array((value, (row, column)), shape=(n_pairs, n_shared + n_pairs)).tocsr()
