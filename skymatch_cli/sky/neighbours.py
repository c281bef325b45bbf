"""Which caps on the sphere touch, from vectors: no longitude wrap, no pole.

Many are found by KD-trees of their centres. A few thousand are compared with all that are near along one axis: that
costs less than loading scipy.spatial.
"""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import FloatArray, IntArray
from skymatch_cli.sky.sphere import angle_rad

_FEW = 3000
_ROWS = 256  # that are compared with others at a time


def touching_caps(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """All pairs i < j of caps that touch, sorted by i, then j.

    Parameters
    ----------
    centres : (n, 3) float64
        Unit vectors.
    radii_rad : (n,) float64
        Angular radii.

    Returns
    -------
    i, j : (m,) int64
    """
    i, j = (_pairs_along_axis if len(centres) <= _FEW else _pairs_of_trees)(centres, radii_rad)
    touch = angle_rad(centres[i], centres[j]) <= radii_rad[i] + radii_rad[j]
    i, j = i[touch], j[touch]
    order = np.lexsort((j, i))
    return i[order].astype(np.int64), j[order].astype(np.int64)


def _pairs_along_axis(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """Pairs of caps that may touch, in any order: their centres are no further apart than an arc's chord, and rounding.

    Each is compared with those after it along the axis on which they are spread most, as far as one could reach.
    """
    along = centres[:, np.argmax(np.ptp(centres, axis=0))] if len(centres) else np.empty(0)
    order = np.argsort(along, kind="stable")
    along, radii = along[order], radii_rad[order]
    stop = np.searchsorted(along, along + radii + radii.max(initial=0.0) + 1e-7, side="right")
    found = [np.empty((2, 0), np.int64)]
    for low in range(0, len(order), _ROWS):
        first = np.arange(low, min(low + _ROWS, len(order)))
        count = stop[first] - first - 1
        i = np.repeat(first, count)
        j = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + i + 1
        square = ((centres[order[i]] - centres[order[j]]) ** 2).sum(axis=1)
        near = square <= (radii[i] + radii[j]) ** 2 + 1e-14
        found.append(np.stack([order[i[near]], order[j[near]]]))
    i, j = np.sort(np.concatenate(found, axis=1), axis=0)
    return i, j


def _pairs_of_trees(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """Pairs i < j of caps that may touch, in any order.

    Caps are searched in classes of radii within a factor of two, so that one wide image doesn't make neighbours of
    all others.
    """
    from scipy.spatial import cKDTree

    size = np.floor(np.log2(np.maximum(radii_rad, 1e-9))).astype(np.int64)
    classes = [np.flatnonzero(size == s) for s in np.unique(size)]
    trees = [cKDTree(centres[members]) for members in classes]
    found = []
    for k, (members, tree) in enumerate(zip(classes, trees, strict=True)):
        reach = _chord(2.0 * radii_rad[members].max())
        found.append(members[tree.query_pairs(reach, output_type="ndarray")])
        for others, other_tree in zip(classes[:k], trees[:k], strict=True):
            reach = _chord(radii_rad[members].max() + radii_rad[others].max())
            near = tree.sparse_distance_matrix(other_tree, reach, output_type="ndarray")
            found.append(np.stack([members[near["i"]], others[near["j"]]], axis=1))
    i, j = np.sort(np.concatenate(found), axis=1).T
    return i, j


def _chord(angle: float) -> float:
    """Chord of an angle, with a margin for rounding; 2 where caps reach around the sphere."""
    return 2.0 * float(np.sin(0.5 * min(angle, np.pi))) + 1e-12
