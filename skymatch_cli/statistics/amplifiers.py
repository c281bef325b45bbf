"""Steps between the amplifiers of a detector, by the pixels of one image: at the quarters of its rows and columns."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import BoolArray, FloatArray, PixelArray

_SIDE = 32  # blocks along either side of the frame
_REACH = 4  # blocks on either side of a line
_LINES = np.array([8, 16, 24, 4, 12, 20, 28])  # in blocks: the quarters, then the middles between them
_SAMPLE = 2**17  # pixels, by whole rows
_LEAST_PIX = 4  # sides of a block
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
    (array([-0.1,  3.1, -0.1]), array([0.2, 0.2, 0.2]))
    """
    found = UNKNOWN_STEPS.copy()
    if min(data.shape) < _LEAST_PIX * _SIDE:
        return found
    means = _block_means(data, good)
    contrast = _contrast()
    for of_axis, blocks in zip(found, (means, means.T), strict=True):
        for k, line in enumerate(_LINES):
            of_axis[:, k] = _trimmed_mean(blocks[:, line - _REACH : line + _REACH] @ contrast)
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
    every = min(-(-data.size // _SAMPLE), height // _LEAST_PIX)
    rows = (_starts(data.shape[0])[:, None] + np.arange(0, height, every)).ravel()
    values, usable = data[rows].astype(np.float32, copy=False), good[rows]
    if data.shape[1] % _SIDE:
        columns = (_starts(data.shape[1])[:, None] + np.arange(width)).ravel()
        values, usable = values[:, columns], usable[:, columns]
    values[~usable] = np.inf
    values = values.reshape(_SIDE, -1, _SIDE, width).swapaxes(1, 2).reshape(_SIDE**2, -1)
    count = usable.reshape(_SIDE, -1, _SIDE, width).sum(axis=(1, 3)).reshape(-1, 1)
    values.sort(axis=1)
    place = np.arange(values.shape[1])
    cut = (_CLIPPED * count).astype(np.int64)
    middle = (place >= cut) & (place < count - cut)
    total = np.where(middle, values, 0).sum(axis=1, dtype=np.float64)
    means = total / np.maximum(np.count_nonzero(middle, axis=1), 1)
    return np.asarray(np.where(count[:, 0] > len(place) / 2, means, np.nan).reshape(_SIDE, _SIDE))


def _starts(n: int) -> FloatArray:
    """First pixels of the blocks along a side of n pixels: blocks end at its quarters, what is left lies between."""
    block, ends = np.arange(_REACH) * (n // _SIDE), np.arange(5) * n // 4
    last = ends[1:, None] - (n // _SIDE) - block[::-1]
    return np.concatenate([ends[:-1, None] + block, last], axis=1).ravel()


def _trimmed_mean(values: FloatArray) -> tuple[float, float]:
    """Mean of the middle of the values and its error (Tukey & McLaughlin 1963, Sankhya A 25, 331)."""
    values = np.sort(values[np.isfinite(values)])
    n, k = len(values), int(_CLIPPED * len(values))
    if n < _SIDE // 2:
        return np.nan, np.nan
    mean = float(values[k : n - k].mean())
    square = float(((np.clip(values, values[k], values[n - k - 1]) - mean) ** 2).sum())
    err = np.sqrt(square / (n * (n - 1))) / (1 - 2 * k / n)
    return (mean, err) if err > 0 else (np.nan, np.nan)
