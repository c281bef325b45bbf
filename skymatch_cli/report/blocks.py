"""Blocks of pixels as one number each: means, and medians for a look at the sky without its stars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, FloatArray, PixelArray

_SAMPLES = 32  # along a block, of its pixels: for a look, the median of a thousand is that of all


def block_means(data: PixelArray, good: BoolArray, side: int) -> FloatArray:
    """Means of the good pixels in blocks of ``side`` × ``side`` (cut at the far edges); NaN where there is none."""
    starts = [np.arange(0, n, side) for n in data.shape]

    def block_sums(values: npt.NDArray[np.generic]) -> FloatArray:
        return np.add.reduceat(np.add.reduceat(values, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)

    count = block_sums(good)
    total = block_sums(np.where(good, data, 0))
    means: FloatArray = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means


def block_medians(data: PixelArray, good: BoolArray, side: int) -> FloatArray:
    """Medians (the lower of two middle values) in the same blocks, each of about a thousand pixels at most."""
    ny, nx = (-(-n // side) for n in data.shape)
    medians = np.empty((ny, nx))
    step = -(-side // _SAMPLES)
    n = -(-side // step)
    for line in range(ny):  # a row of blocks at a time: no second copy of the image
        rows = np.s_[line * side : (line + 1) * side : step]
        values = np.full((n, nx * side), np.nan)
        part = np.where(good[rows], data[rows], np.nan)
        values[: len(part), : part.shape[1]] = part
        blocks = values.reshape(n, nx, side)[:, :, ::step].swapaxes(0, 1).reshape(nx, -1)
        blocks.sort(axis=1)  # NaN stand last
        middle = np.maximum(np.isfinite(blocks).sum(axis=1) - 1, 0) // 2
        medians[line] = blocks[np.arange(nx), middle]
    return medians
