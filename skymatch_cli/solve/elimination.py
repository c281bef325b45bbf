"""Inverses of dense grounded Laplacians by elimination without a subtraction.

A Laplacian is kept as its off-diagonal weights and the weight of each node to the ground; its diagonal is
their sum, found anew for every pivot instead of being updated. All that is left is adding, multiplying and
dividing positive numbers, so that every entry of the inverse is accurate to rounding however many decades
the weights span (Grassmann, Taksar & Heyman 1985, Operations Research 33, 1107; for factorisations of
diagonally dominant M-matrices Alfa, Xue & Ye 2002, Math. Comp. 71, 217).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotri

from skymatch_cli.model import FloatArray

_BLOCK = 512  # rows brought up to date at a time: only what lies right of the diagonal is needed


def grounded_inverses(weights: FloatArray, ground: FloatArray) -> FloatArray:
    """Inverses of ``diag(ground + weights.sum(-1)) - weights`` for a stack of graphs.

    Parameters
    ----------
    weights : (k, n, n) float64
        Symmetric, not negative, nothing on the diagonal; overwritten.
    ground : (k, n) float64
        Weight of each node to the ground; every node must reach the ground over positive weights.

    Returns
    -------
    (k, n, n) float64
        In the memory of ``weights``.

    """
    n = ground.shape[1]
    pivot = _factorise(weights, ground.copy())
    diagonal = np.arange(n)
    above = np.triu(np.ones((n, n), np.bool_))
    for k, d in enumerate(pivot):
        upper = weights[k]
        upper /= -np.sqrt(d)[:, None]
        upper[diagonal, diagonal] = np.sqrt(d)
        half, _ = dpotri(upper.T, lower=1, overwrite_c=1)  # .T: LAPACK reads columns first
        upper[...] = np.where(above, half.T, half)
    return weights


def _factorise(weights: FloatArray, ground: FloatArray) -> FloatArray:
    """Eliminate the nodes in their order; weights keep the rows as they were at their turn -> pivots (k, n)."""
    n = ground.shape[1]
    width = 16 if n <= 256 else 96  # rows eliminated one by one before the rest is brought up to date
    pivot = np.empty(ground.shape)
    for start in range(0, n, width):
        stop = min(start + width, n)
        _eliminate(weights[:, start:stop, start:], ground[:, start:stop], pivot[:, start:stop])
        right = weights[:, start:stop, stop:]
        scaled = (right / pivot[:, start:stop, None]).transpose(0, 2, 1)
        for top in range(0, n - stop, _BLOCK):
            rows = slice(top, min(top + _BLOCK, n - stop))
            weights[:, stop:, stop:][:, rows, top:] += scaled[:, rows] @ right[:, :, top:]
        ground[:, stop:] += (scaled @ ground[:, start:stop, None])[:, :, 0]
    return pivot


def _eliminate(panel: FloatArray, ground: FloatArray, pivot: FloatArray) -> None:
    """Eliminate the rows (k, b, n) of a stack of panels in place; their diagonals are left meaningless."""
    for p in range(panel.shape[1]):
        row = panel[:, p, p + 1 :]
        pivot[:, p] = ground[:, p] + row.sum(-1)
        below = panel[:, p, p + 1 : panel.shape[1]] / pivot[:, p, None]
        panel[:, p + 1 :, p + 1 :] += below[:, :, None] * row[:, None, :]
        ground[:, p + 1 :] += below * ground[:, p, None]
