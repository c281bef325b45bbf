"""Find caps on the sphere that touch, with KD-trees of unit vectors: RA 0 and the poles are not special."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import FloatArray, IntArray
from skymatch_cli.sky.sphere import angle_rad

_FEW = 300  # caps of which all pairs are tested in less time than it takes to import KD-trees


def touching_caps(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """Find all pairs i < j of caps (centres (n, 3), angular radii (n,)) that touch, sorted by i, then j.

    Examples
    --------
    >>> import numpy as np
    >>> from skymatch_cli.sky.sphere import unit_vectors
    >>> ra = np.radians([359.9, 0.1, 5.0])
    >>> touching_caps(unit_vectors(ra, np.zeros(3)), np.radians([0.15, 0.15, 0.15]))
    (array([0]), array([1]))
    """
    i, j = _near_pairs(centres, radii_rad)
    touch = angle_rad(centres[i], centres[j]) <= radii_rad[i] + radii_rad[j]
    i, j = i[touch], j[touch]
    order = np.lexsort((j, i))
    return i[order].astype(np.int64), j[order].astype(np.int64)


def _near_pairs(centres: FloatArray, radii_rad: FloatArray) -> tuple[IntArray, IntArray]:
    """Find pairs i < j of caps that may touch, in any order.

    Many caps are searched in classes of radii within a factor of two, so that one wide image does not make all others
    candidates.
    """
    if len(centres) <= _FEW:
        i, j = np.triu_indices(len(centres), 1)
        return i, j
    from scipy.spatial import cKDTree

    size = np.floor(np.log2(np.maximum(radii_rad, 1e-9))).astype(np.int64)
    classes = [np.flatnonzero(size == s) for s in np.unique(size)]
    trees = [cKDTree(centres[members]) for members in classes]
    found = [np.empty((0, 2), np.int64)]
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
    """Return the chord of an angle with a margin for rounding; 2 where caps reach around the sphere."""
    return 2.0 * float(np.sin(0.5 * min(angle, np.pi))) + 1e-12
