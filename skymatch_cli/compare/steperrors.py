"""Turn steps between the amplifiers of a detector into errors of the differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from skymatch_cli.model import FloatArray, ImageInfo, OverlapGraph

_LAYOUTS = ([1], [0, 1, 2])  # quarters at which amplifiers end: two, and four
_LEAST = 3  # steps
_MOST_SQUARE = 25.0  # of a step over its error: one star or trail is no detector
_USUAL, _BELIEF = 1.2, 36.0  # of such squares where there is no step; how many lines' worth of belief that it is so
_CLEAR = 2.5  # standard deviations of chance, below which there is no step
_STRUCTURED = 2.5  # squares elsewhere, beyond which nebulae make them, and there is no such belief
_ALIKE = 4.0  # steps' worth of belief that images are as the others
_UNLIKE = 9.0  # most square of a step over the median
_MEDIAN = 0.455  # of the square of a Gaussian deviate


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
    belief = _BELIEF if not elsewhere.size or elsewhere.mean() < _STRUCTURED else 0.0
    dof = len(elsewhere) + belief
    usual = (float(elsewhere.sum()) + _USUAL * belief) / dof
    found, clearest = np.zeros((len(step), 2)), _CLEAR
    for k, lines in enumerate(_LAYOUTS):
        known = np.isfinite(square[:, lines])
        n = int(np.count_nonzero(known))
        if n < _LEAST:
            continue
        clear = _deviate(float(limited[:, lines][known].sum()) / n / usual, n, dof)
        if clear > clearest:
            found[:], clearest = 0.0, clear
            found[:, k] = _variance(step[:, lines], usual * err[:, lines] ** 2)
    return found


def _variance(step: FloatArray, noise: FloatArray) -> FloatArray:
    """Variances (n,) of the steps (n, k) of n images, beyond their noise."""
    known = np.isfinite(step)
    typical = max(float(np.median(step[known] ** 2) / _MEDIAN - np.median(noise[known])), 0.0)
    beyond = np.where(known, np.minimum(step**2 - noise, _UNLIKE * typical), 0.0).sum(axis=1)
    own = (beyond + _ALIKE * beyond.sum() / np.count_nonzero(known)) / (np.count_nonzero(known, axis=1) + _ALIKE)
    return np.asarray(np.maximum(own, 0.0))


def _deviate(ratio: float, n: int, dof: float) -> float:
    """Return the normal deviate as improbable as a ratio of variances (Paulson 1942, Ann. Math. Stat. 13, 233)."""
    a, b = 2 / (9 * n), 2 / (9 * dof)
    root = float(np.cbrt(ratio))
    return float(((1 - b) * root - (1 - a)) / np.sqrt(b * root**2 + a))


def step_errors(graph: OverlapGraph, share: FloatArray, variance: FloatArray, known: FloatArray) -> csr_array:
    """Return the errors (M, 12 N) of the differences by steps; columns are independent, and images have twelve each.

    ``share`` (2, M, 2, 4): of the quarters of both frames, along x and y, in the overlap; ``variance``: see
    `step_variances`; ``known`` (M,): variances by other structure, which steps only exceed. An amplifier has half of
    the variance of a step, relative to the mean of the frame.
    """
    ends = np.stack([graph.a, graph.b])
    four = share - 0.25
    layouts = four[..., ::2] + four[..., 1::2], four
    scale = np.sqrt(0.5 * variance[ends]) * np.array([1, -1])[:, None, None, None]
    entries = np.concatenate([scale[..., k, None] * of_layout for k, of_layout in enumerate(layouts)], axis=-1)
    total = (entries**2).sum(axis=(0, 2, 3))
    beyond = np.sqrt(np.maximum(1 - known / np.maximum(total, 1e-300), 0.0))
    columns = 12 * ends.T[..., None] + np.arange(12)
    rows = (entries.reshape(2, -1, 12) * beyond[:, None]).swapaxes(0, 1)
    begin = 24 * np.arange(len(ends.T) + 1)
    errors = csr_array((rows.ravel(), columns.ravel(), begin), shape=(len(ends.T), 12 * len(variance)))
    errors.eliminate_zeros()
    return errors


def variances(errors: csr_array) -> FloatArray:
    """Return the sums of the squares of the rows, (M,)."""
    return np.asarray(errors.multiply(errors).sum(axis=1), np.float64).reshape(-1)
