"""Steps between the amplifiers of a detector, by the pixels of one image: at the quarters of its rows and columns."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, IntArray, PixelArray

_SIDE = 32  # blocks along either side of the frame
_REACH = 4  # blocks on either side of a line
_LINES = np.array([8, 16, 24, 4, 12, 20, 28])  # in blocks: the quarters, then the middles between them
_SAMPLE = 2**17  # pixels, by whole rows
_LEAST_PIX = 4  # sides of a block
_LEAST_ROWS = 2  # of a block that are looked at
_CLIPPED = 0.1  # of the pixels of a block, and of the blocks along a line, at either end: stars and nebulae
UNKNOWN_STEPS: FloatArray = np.full((2, 2, len(_LINES)), np.nan)
"""Those of a frame that was not read as a whole, or is too small."""


def amplifier_steps(data: PixelArray, good: BoolArray) -> FloatArray:
    """Return the steps at the quarters of the frame, and at lines where no amplifier ends; NaN where they are unknown.

    A step is what a line makes beside a slope that both of its sides share. Trimmed means of the pixels of blocks, and
    of the blocks along the line, leave little of stars and nebulae.

    Parameters
    ----------
    data : (ny, nx) float32 or float64
        Pixels of a whole frame.
    good : (ny, nx) bool
        True = use.

    Returns
    -------
    (2, 2, 7) float64
        Along x, then y: steps and their one-sigma errors, in the unit of the data, at 1/4, 2/4, 3/4 of the frame, then
        at 1/8, 3/8, 5/8 and 7/8.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.random.default_rng(1).normal(100, 5, (256, 256))
    >>> pixels[:, 128:] += 3
    >>> steps, errors = amplifier_steps(pixels, np.ones(pixels.shape, bool))[0]
    >>> steps.round(1)[:3], errors.round(1)[:3]
    (array([ 0. ,  2.8, -0.1]), array([0.1, 0.2, 0.1]))
    """
    found = UNKNOWN_STEPS.copy()
    if min(data.shape) < _LEAST_PIX * _SIDE:
        return found
    means, contrast = _block_means(data, good), _contrast()
    for of_axis, blocks in zip(found, (means, means.T), strict=True):
        steps = np.stack([blocks[:, line - _REACH : line + _REACH] @ contrast for line in _LINES])
        of_axis[:] = _line_means(steps)
    return found


def _contrast() -> FloatArray:
    """Factors (8,) of the blocks beside a line that give the step, and nothing of a slope."""
    x = np.arange(-_REACH, _REACH) + 0.5
    step = np.sign(x) / 2
    steady = step - x * (step @ x) / (x @ x)
    return np.asarray(steady / (steady @ step))


def _block_means(data: PixelArray, good: BoolArray) -> FloatArray:
    """Trimmed means (32, 32) of the pixels of blocks; NaN where most are not good."""
    height, width = (n // _SIDE for n in data.shape)
    every = min(max(data.size // _SAMPLE, 1), height // _LEAST_ROWS)
    rows = (_starts(data.shape[0])[:, None] + np.arange(0, height, every)).ravel()
    values, usable = data[rows].astype(np.float32, copy=False), good[rows]
    if data.shape[1] % _SIDE:
        columns = (_starts(data.shape[1])[:, None] + np.arange(width)).ravel()
        values, usable = values[:, columns], usable[:, columns]
    values[~usable] = np.inf
    values = values.reshape(_SIDE, -1, _SIDE, width).swapaxes(1, 2).reshape(_SIDE**2, -1)
    count = usable.reshape(_SIDE, -1, _SIDE, width).sum(axis=(1, 3)).reshape(-1, 1)
    values.sort(axis=1)
    means = trimmed_means(values, count)
    return np.where(count[:, 0] > values.shape[1] / 2, means, np.nan).reshape(_SIDE, _SIDE)


def _starts(n: int) -> IntArray:
    """First pixels of the blocks along a side of n pixels: blocks end at its quarters, what is left lies between."""
    block, ends = np.arange(_REACH) * (n // _SIDE), np.arange(5) * n // 4
    last = ends[1:, None] - (n // _SIDE) - block[::-1]
    return np.concatenate([ends[:-1, None] + block, last], axis=1).ravel()


def trimmed_means(values: PixelArray, count: IntArray, clipped: float = _CLIPPED) -> FloatArray:
    """Means (k,) of the middle of the first ``count`` (k, 1) of sorted values (k, n), without a share at either end."""
    cut, place = (clipped * count).astype(np.int32), np.arange(values.shape[1], dtype=np.int32)
    middle = (place >= cut) & (place < (count - cut).astype(np.int32))
    total = np.where(middle, values, 0).sum(axis=1, dtype=np.float64)
    return np.asarray(total / np.maximum(count - 2 * cut, 1)[:, 0])


def _line_means(values: FloatArray) -> FloatArray:
    """Trimmed means of values (k, 32) and their errors, (2, k) (Tukey & McLaughlin 1963, Sankhya A 25, 331)."""
    values = np.sort(values, axis=1)
    known = np.isfinite(values)
    count = np.count_nonzero(known, axis=1, keepdims=True)
    cut = (_CLIPPED * count).astype(np.int64)
    mean = trimmed_means(values, count)
    low, high = (np.take_along_axis(values, end, axis=1) for end in (cut, np.maximum(count - cut - 1, 0)))
    square = np.where(known, (np.clip(values, low, high) - mean[:, None]) ** 2, 0).sum(axis=1)
    n = np.maximum(count[:, 0], 2)
    err = np.sqrt(square / (n * (n - 1))) / (1 - 2 * cut[:, 0] / n)
    return np.where((count[:, 0] >= _SIDE // 2) & (err > 0), [mean, err], np.nan)
