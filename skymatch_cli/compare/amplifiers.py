"""Errors of differences by steps between amplifiers, which the images' own pixels show, and few overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.model import FloatArray, ImageInfo, OverlapGraph

_LAYOUTS = ([1], [0, 1, 2])  # quarters at which amplifiers end: two, and four
_LEAST = 3  # steps
_MOST_SQUARE = 25.0  # of a step over its error: one star or trail is no detector
_USUAL, _BELIEF = 1.2, 36.0  # of such squares where there is no step; how many lines' worth of belief that it is so
_CLEAR = 2.5  # standard deviations of chance, below which there is no step
_RARE = 20.0  # sets without a step for each that has some
_ALIKE = 4.0  # steps' worth of belief that images are as the others


def step_variances(infos: Sequence[ImageInfo], found: Sequence[FloatArray]) -> FloatArray:
    """Return the variances of the steps of all images in comparison units, (N, 2, 2); 0 where there are none.

    ``found``: see `amplifier_steps`. Along x, then y; between two amplifiers, then between four. All frames of one
    shape have their amplifiers alike, and steps between these must be more than elsewhere in the same frames.
    """
    variance = np.zeros((len(infos), 2, 2))
    factor = np.array([info.to_comparison for info in infos])
    steps = np.array(found).reshape(-1, 2, 2, 7) * factor[:, None, None, None]
    shapes = np.array([info.shape for info in infos]).reshape(-1, 2)
    for shape in np.unique(shapes, axis=0):
        mine = np.flatnonzero((shapes == shape).all(axis=1))
        for axis in (0, 1):
            variance[mine, axis] = _of_detector(*steps[mine, axis].swapaxes(0, 1))
    return variance


def _of_detector(step: FloatArray, err: FloatArray) -> FloatArray:
    """Variances (n, 2) of the steps between two and four amplifiers, from steps and errors (n, 7) of n images."""
    square = (step / err) ** 2
    limited = np.fmin(square, _MOST_SQUARE)
    elsewhere = limited[:, 3:][np.isfinite(square[:, 3:])]
    dof = len(elsewhere) + _BELIEF
    usual = max((float(elsewhere.sum()) + _USUAL * _BELIEF) / dof, 1.0)
    found, clearest = np.zeros((len(step), 2)), _CLEAR
    for k, lines in enumerate(_LAYOUTS):
        known = np.isfinite(square[:, lines])
        n = int(np.count_nonzero(known))
        if n < _LEAST:
            continue
        clear = _deviate(float(limited[:, lines][known].sum()) / n / usual, n, dof)
        if clear > clearest:
            beyond = np.where(known, step[:, lines] ** 2 - usual * err[:, lines] ** 2, 0.0).sum(axis=1)
            own = (beyond + _ALIKE * beyond.sum() / n) / (np.count_nonzero(known, axis=1) + _ALIKE)
            found[:], clearest = 0.0, clear
            found[:, k] = np.maximum(own, 0.0) / (1 + _RARE * np.exp(-0.5 * clear**2))
    return found


def _deviate(ratio: float, n: int, dof: float) -> float:
    """Return the normal deviate as improbable as a ratio of variances (Paulson 1942, Ann. Math. Stat. 13, 233)."""
    a, b = 2 / (9 * n), 2 / (9 * dof)
    root = float(np.cbrt(ratio))
    return float(((1 - b) * root - (1 - a)) / np.sqrt(b * root**2 + a))


def pair_variance(graph: OverlapGraph, share: FloatArray, variance: FloatArray) -> FloatArray:
    """Return the variances (M,) that steps give the differences of overlaps.

    ``share`` (2, M, 2, 4): of the quarters of both frames, along x and y, in the overlap; ``variance``: see
    `step_variances`. An amplifier has half of the variance of a step, relative to the mean of the frame.
    """
    four = share - 0.25
    two = four[..., ::2] + four[..., 1::2]
    square = np.stack([(of_layout**2).sum(axis=-1) for of_layout in (two, four)], axis=-1)
    return np.asarray(0.5 * (square * variance[np.stack([graph.a, graph.b])]).sum(axis=(0, 2, 3)))
