"""Weights of cells when they are compared with the same cells of other images, and the skies of cells.

Residuals are values minus the offset of the image and the sky of the cell. One cell says little: seeing and errors
of the windows move light of a star from one cell to the next. In the mean over a window several seeing discs wide
that cancels, if all cells of the window have the same weight. So residuals are tested as means over windows, and the
weight of a window is spread over its cells with the same window: the weights of an image change smoothly.

Three measures are taken of every cell, each in units of what is typical for the image (`Spreads`):

- the mean over a window of 6 pixels (standard deviation) in units of its noise: biweight (Beaton & Tukey 1974,
  Technometrics 16, 147), for stars that disagree, trails and defects;
- the same over twice that window: what is fainter and wider, such as ghosts;
- the local variance of the cells. A star has noise of its own, and moves light between its cells: where the variance
  is more than 2.5 times the typical one, the weight falls with its square root. The highest variance of a cell and
  those around it counts: what seeing moves out of a star cancels only if the cells about it weigh as little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skymatch_cli.compare.mesh.cells import Float32Array
from skymatch_cli.compare.mesh.layers import Windows, cells_first
from skymatch_cli.compare.mesh.sheets import Sheet
from skymatch_cli.model import FloatArray

Int32Array = npt.NDArray[np.int32]
_CUT = 6.0  # typical distances at which the mean of a window counts no more
_HOPELESS = 24.0  # the same for a cell, however well the windows around agree
_NOISY = 2.5  # typical variances above which a cell loses weight: in noise alone, few do
_CELL_NOISE = 0.6  # scatter of cells in noise only, in units of what independent cells would have
_ENDLESS = 1e12  # residual of a cell, in noise, beyond which its square would be too large for float32
_BINS = 128  # of the logarithms of distances
_PER_OCTAVE = 4
_MANTISSA_BITS, _EXPONENT_OF_ONE = 23, 127  # of float32
_IMAGES = 1024  # whose distances are summed up at a time: memory
_QUARTER = 0.3186  # sigma below which a quarter of Gaussian distances are


def median_sky(sheet: Sheet, shifted: Float32Array) -> Float32Array:
    """Median over the images of every cell, (m, 64): a start that one bad image can't spoil; 0 where none counts."""
    sizes = (*sheet.layers.sizes, 0)
    seen, value = sheet.weight > 0, np.where(sheet.weight > 0, shifted, np.float32(np.inf))
    sky = np.zeros((sizes[0], value.shape[1]), np.float32)
    for k in range(1, len(sizes)):
        blocks = slice(sizes[k], sizes[k - 1])  # those of k images
        layers = [slice(start + blocks.start, start + blocks.stop) for start in sheet.layers.starts[:k]]
        if blocks.start == blocks.stop or k == 1:
            continue
        if k == 2:  # both images see a cell, or none counts
            middle = np.float32(0.5) * (value[layers[0]] + value[layers[1]])
            sky[blocks] = np.where(seen[layers[0]], middle, np.float32(0))
            continue
        ordered = np.sort(np.stack([value[layer] for layer in layers]), axis=0)
        count = np.sum([seen[layer] for layer in layers], axis=0)
        low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, 0)[0]
        high = np.take_along_axis(ordered, np.minimum(count // 2, k - 1)[None], 0)[0]
        sky[blocks] = np.where(count > 0, np.float32(0.5) * (low + high), np.float32(0))
    return sky


def mean_sky(sheet: Sheet, weight: Float32Array, shifted: Float32Array, before: Float32Array) -> Float32Array:
    """Weighted mean over the images of every cell; as before where no image is trusted."""
    total = sheet.layers.total(weight)
    return np.asarray(np.divide(sheet.layers.total(weight * shifted), total, out=before.copy(), where=total > 0))


@dataclass(frozen=True, slots=True, eq=False)
class Spreads:
    """Typical distances of the cells of every image: counts (3, N, 128) of their logarithms, by measure."""

    counts: Int32Array

    @classmethod
    def empty(cls, n: int) -> Spreads:
        """No cell yet, for ``n`` images."""
        return cls(np.zeros((3, n, _BINS), np.int32))

    def add(self, sheet: Sheet, distances: tuple[Float32Array, ...]) -> None:
        """Add the cells of a sheet, with the distances that `weighed` gives."""
        # Cells that are not seen count for an image after the last. The exponent of a fourth power tells the quarter of
        # an octave of a distance.
        n = len(sheet.images)
        number = np.append(_BINS * sheet.number, 0).astype(np.int32)
        first_bin = np.where(sheet.windows.weight > 0, number, np.int32(_BINS * n))
        smaller, larger, variance = distances
        for of_measure, square in zip(self.counts, (smaller**2, larger**2, variance), strict=True):
            with np.errstate(over="ignore"):
                bin_number = np.square(square).view(np.int32)
            bin_number >>= _MANTISSA_BITS
            bin_number -= _EXPONENT_OF_ONE - _BINS // 2
            np.clip(bin_number, 0, _BINS - 1, out=bin_number)
            bin_number += first_bin
            counts = np.bincount(bin_number.reshape(-1), minlength=(n + 1) * _BINS)
            of_measure[sheet.images] += counts.reshape(-1, _BINS)[:-1]

    def typical(self) -> FloatArray:
        """Standard deviations (3, N) from the lowest quarters; at least those of noise alone.

        Trails and ghosts may cover more than quarter of a narrow overlap.
        """
        parts = (self.counts[:, k : k + _IMAGES] for k in range(0, self.counts.shape[1], _IMAGES))
        return np.concatenate([np.empty((3, 0)), *map(_lowest_quarter, parts)], axis=1)


def _lowest_quarter(counts: Int32Array) -> FloatArray:
    below = np.cumsum(counts, axis=2, dtype=np.int64)
    quarter = 0.25 * below[..., -1]
    bin_number = np.argmax(below >= quarter[..., None], axis=2)
    inside = np.take_along_axis(counts, bin_number[..., None], 2)[..., 0]
    above = quarter - np.take_along_axis(below, bin_number[..., None], 2)[..., 0] + inside
    share = np.divide(above, inside, out=np.full_like(quarter, 0.5), where=inside > 0)
    distance = 2.0 ** ((bin_number + share - _BINS // 2) / _PER_OCTAVE)
    distance[:2] = np.maximum(distance[:2] / _QUARTER, 1.0)
    distance[2] = np.maximum(distance[2], _CELL_NOISE)
    return np.asarray(distance)


def weighed(
    sheet: Sheet, shifted: Float32Array, sky: Float32Array, scale: FloatArray, typical: FloatArray | None
) -> tuple[Float32Array, tuple[Float32Array, ...]]:
    """Weights (n, 64) of the cells, and their distances from the sky (m, 64); ``shifted``: values less the offsets.

    The distances, (64, n + 1) each, are the means over both windows and the local variance, in units of the noise.
    ``scale`` (N,): of the variance of the images; ``typical`` (3, N): their distances, None while no cell is doubted.
    """
    windows, residual = sheet.windows, cells_first(sheet.layers.each(np.subtract, shifted, sky))
    np.clip(residual, -_ENDLESS, _ENDLESS, out=residual)
    weighted = windows.weight * residual
    residual *= weighted
    distances = *windows.both(weighted), windows.beside.smoothed(residual, windows.finest)
    for mean, noise in zip(distances, windows.noise, strict=True):
        np.divide(mean, noise, out=mean)
    if typical is None:
        return sheet.weight / sheet.of_images(scale), distances
    return _trusted_weight(sheet, distances, scale, typical), distances


def _trusted_weight(
    sheet: Sheet, distances: tuple[Float32Array, ...], scale: FloatArray, typical: FloatArray
) -> Float32Array:
    windows, seen = sheet.windows, (sheet.windows.weight > 0).astype(np.float32)
    of_image, *scales, noisy = (np.append(each[sheet.leaves.image], 1).astype(np.float32) for each in (scale, *typical))
    limit = np.float32(_NOISY) * noisy**2
    quiet = windows.beside.highest(distances[2] * seen)
    np.maximum(quiet, limit, out=quiet)
    np.sqrt(np.divide(limit, quiet, out=quiet), out=quiet)
    weight = _spread(windows, quiet, seen, 0)
    weight *= windows.weight
    for k, (mean, usual) in enumerate(zip(distances[:2], scales, strict=True)):
        distance = mean / usual
        np.abs(distance, out=distance)
        far = np.flatnonzero(distance > _HOPELESS / 2)
        hopeless = _biweight(distance.reshape(-1)[far], _HOPELESS)
        weight *= _spread(windows, _biweight(distance, _CUT), seen, k)
        weight.reshape(-1)[far] *= hopeless
    weight /= of_image
    return np.ascontiguousarray(weight[:, :-1].T)


def _spread(windows: Windows, trust: Float32Array, seen: Float32Array, which: int) -> Float32Array:
    """Mean over the windows that a cell is part of, of those whose middle is seen."""
    trust *= seen
    spread = windows.beside.smoothed(trust, windows.finest + which)
    spread /= windows.seen[which]
    return spread


def _biweight(distance: Float32Array, cut: float) -> Float32Array:
    """Return the weights of distances >= 0, in their place."""
    # Flat up to half of the cut: noise alone loses no weight, so the weights remain its information.
    distance *= np.float32(2.0 / cut)
    distance -= np.float32(1)
    np.clip(distance, np.float32(0), np.float32(1), out=distance)
    distance *= distance
    np.subtract(np.float32(1), distance, out=distance)
    distance *= distance
    return distance
