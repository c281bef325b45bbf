"""Noise of the pixels of one image, in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skymatch_cli.compare.mesh.cells import BLOCK_PIX, Float32Array
from skymatch_cli.compare.mesh.placement import Rectangle
from skymatch_cli.model import BoolArray, FloatArray, PixelArray

_MOST_SCATTERED = 65536  # pixels from which the scatter of an image is taken
_NOISE_ROWS = 4  # every fourth row is enough for the noise
_FEW_STEPS = 50  # of neighbours that differ at all, in a block
_MIN_NOISE_SAMPLES = 16
_CLIP = 5.0  # rms of the differences beyond which one is an edge or a star
_LEAST_NOISE = 1e-37  # keeps ratios of noises within float32


def block_noise(data: PixelArray, good: BoolArray, regions: Sequence[Rectangle], level: float) -> Float32Array:
    """Noise of a pixel in blocks of 64 x 64 pixels, (my, mx), from differences of neighbours in a row.

    The rms of the differences, clipped from above until nothing more is clipped: stars and gradients hardly count,
    and, other than a median, it is right where most neighbours are equal (sparse counts, integers, rebinned plates).
    The smallest step that occurs is never clipped: single photons are the noise. Blocks with so few steps that these
    are chance have one noise together: else those without a photon would weigh most. Blocks with too few good pixels,
    and those outside of the ``regions``, have the median of the others; never below rounding of ``level``.
    """
    sigma, steps = np.full([-(-n // BLOCK_PIX) for n in data.shape], np.nan, np.float32), []
    for rows, columns in regions:
        steps.append(_steps(data[rows, columns][::_NOISE_ROWS], good[rows, columns][::_NOISE_ROWS]))
    if steps:
        ordered = np.sort(np.concatenate([each.reshape(-1, each.shape[-1]) for each in steps]), axis=1)
        found = _clipped_rms(ordered) / np.sqrt(2.0)
        sparse = np.isfinite(found) & (np.count_nonzero((ordered > 0) & (ordered < np.inf), axis=1) < _FEW_STEPS)
        found[sparse] = np.sqrt(np.mean(found[sparse] ** 2)) if sparse.any() else 0.0
        first = 0
        for (rows, columns), (nj, ni, _) in zip(regions, (each.shape for each in steps), strict=True):
            j, i = rows.start // BLOCK_PIX, columns.start // BLOCK_PIX
            sigma[j : j + nj, i : i + ni] = found[first : first + nj * ni].reshape(nj, ni)
            first += nj * ni
    known = np.isfinite(sigma)
    if not known.all():
        sigma[~known] = np.median(sigma[known]) if known.any() else _scatter(data, good)
    # Noise-free pixels get the rounding of their values; images of zeros get a token.
    rounding = max(abs(level) * float(np.finfo(np.float32).eps), float(sigma.max()) * 1e-3) or 1e-12
    return np.maximum(sigma, np.float32(max(rounding, _LEAST_NOISE)))


def _steps(lines: PixelArray, usable: BoolArray) -> Float32Array:
    """Differences of neighbours by blocks, (nj, ni, 512), from every fourth row; infinite where there is none."""
    half, per_block = BLOCK_PIX // 2, BLOCK_PIX // _NOISE_ROWS
    pairs, nj, ni = lines.shape[1] // 2, -(-lines.shape[0] // per_block), -(-lines.shape[1] // BLOCK_PIX)
    each = np.full((nj * per_block, ni * half), np.inf, np.float32)
    both = usable[:, 1 : 2 * pairs : 2] & usable[:, 0 : 2 * pairs : 2]
    difference = lines[:, 1 : 2 * pairs : 2] - lines[:, 0 : 2 * pairs : 2]
    np.abs(difference, out=each[: len(lines), :pairs], where=both, casting="same_kind")
    return each.reshape(nj, per_block, ni, half).swapaxes(1, 2).reshape(nj, ni, -1)


def _scatter(data: PixelArray, good: BoolArray) -> float:
    """Clipped scatter of an image none of whose good pixels are neighbours: structure counts, so never too small."""
    from astropy.stats import sigma_clip

    values = data[good].astype(float)
    values = values[:: max(1, len(values) // _MOST_SCATTERED)]
    if len(values) < 2:
        return 0.0
    return float(np.std(sigma_clip(values, sigma=_CLIP, maxiters=None, masked=False), ddof=1))


def _clipped_rms(steps: Float32Array) -> FloatArray:
    """Rms of each row of ascending steps >= 0 (infinite: none) without the largest; NaN where there are few."""
    count, zeros = np.count_nonzero(steps < np.inf, axis=1), np.count_nonzero(steps == 0, axis=1)
    enough, least = count >= _MIN_NOISE_SAMPLES, np.minimum(np.maximum(count // 2, 1), count)
    smallest = np.take_along_axis(steps, np.minimum(zeros, steps.shape[1] - 1)[:, None], 1)[:, 0]
    floor = np.where(np.isfinite(smallest), 1.5 * smallest, 0)
    squares = np.where(steps < np.inf, steps, 0).astype(float) ** 2
    np.cumsum(squares, axis=1, out=squares)
    rms, row = np.zeros(len(steps)), np.arange(len(steps))
    while row.size:
        rms[row] = np.sqrt(squares[row, count[row] - 1] / np.maximum(count[row], 1))
        limit = np.maximum(_CLIP * rms[row], floor[row]).astype(np.float32)
        kept = np.count_nonzero(steps[row] <= limit[:, None], axis=1)
        kept = np.minimum(np.maximum(kept, least[row]), count[row])
        fewer = kept < count[row]
        count[row] = kept
        row = row[fewer]
    return np.where(enough, rms, np.nan)
