"""Connected components of images, and least-squares offsets from the differences of pairs."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from skymatch_cli.model import FloatArray, IntArray

_SMALL = 100  # images up to which a matrix of all is quicker than a sparse one


def connected(n: int, first: IntArray, second: IntArray) -> IntArray:
    """Number of the component of each of n images, (n,), by pairs of them, in the order of their first images."""
    each = np.arange(n)
    lowest = each  # image of the component, as far as it is known
    while True:
        joined, low = lowest.copy(), np.minimum(lowest[first], lowest[second])
        for ends in (first, second):
            np.minimum.at(joined, lowest[ends], low)
        while not np.array_equal(joined, onward := joined[joined]):
            joined = onward
        if np.array_equal(joined, lowest):
            return np.asarray(np.cumsum(lowest == each)[lowest] - 1)
        lowest = joined


def least_squares_offsets(
    n: int, first: IntArray, second: IntArray, weight: FloatArray, difference: FloatArray
) -> FloatArray:
    """Least-squares offsets (n,) of images from the differences of pairs of them; the heaviest of each component at 0.

    Images of one group have their own offsets here: residuals that say whether images agree in a cell must not
    contain the step between two chips. Pairs whose weight is lost in the rounding of the others are left out.
    """
    largest = np.zeros(n)
    for ends in (first, second):
        np.maximum.at(largest, ends, weight)
    use = weight > np.finfo(float).eps * np.minimum(largest[first], largest[second])
    a, b, w, d = first[use], second[use], weight[use], difference[use]
    heaviest = np.argsort(-largest, kind="stable")  # held: against one that weighs nothing the others would be lost
    free = np.delete(heaviest, np.unique(connected(n, a, b)[heaviest], return_index=True)[1])
    offset, pull = np.zeros(n), np.bincount(a, w * d, n) - np.bincount(b, w * d, n)
    row, column = np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a])
    laplacian = np.concatenate([w, w, -w, -w])
    if n <= _SMALL:
        dense = np.bincount(row * n + column, laplacian, n * n).reshape(n, n)
        offset[free] = np.linalg.solve(dense[np.ix_(free, free)], pull[free])
    else:
        sparse = coo_array((laplacian, (row, column)), shape=(n, n)).tocsr()
        offset[free] = splu(sparse[free][:, free].tocsc()).solve(pull[free])
    return offset
