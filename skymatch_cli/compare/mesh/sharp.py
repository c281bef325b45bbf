"""Sharp outliers of one image: cosmic rays, hot pixels, trails one pixel wide, and whole rows and columns.

No star is narrower than the seeing, so a pixel that stands out of both neighbours of a row or of a
column by most of its height above the sky around it is not light from the sky (the idea of the
Laplacian edge detection of van Dokkum 2001, PASP 113, 1420, with second differences along rows and
columns). The test looks at one image only: what it takes for an outlier can't depend on the
difference to another image, so that difference stays unbiased.

Outliers stand clear of the noise. While most of those that are found lie within twice the threshold, they are
the tail of a noise that is not Gaussian (single photons, amplified photons): the threshold is doubled. While most
of them are equally high and make the noise, they are single photons: the threshold is several of them.
Beyond the border of the frame pixels are mirrored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from skymatch_cli.model import BoolArray, FloatArray, IntArray, PixelArray

_FIRST = 5.0  # sigma above the neighbours that a first outlier needs
_NEXT = 4.0  # the same, next to an outlier
_ROUNDS = 3
_SHARP = 0.6  # share of the height above the sky around; a star of FWHM 2 pixels has 0.5
_MASKED = np.float32(1e30)  # stands for masked pixels: protects its neighbours
_REACH = 2  # pixels around one that the test looks at
_FEW = 20  # outliers of which the tail of a distribution can't be told
_ALIKE = 1.5  # upper over lower quartile of their heights: cosmic rays and hot pixels have any height
_OWN_NOISE = 2.0  # variance that outliers make, in that of the noise
_PHOTONS = 4.0  # in one pixel: a few are no outlier either
_HUGE_SIGMA = 1e6  # threshold beyond which no noise reaches
_RING = [(j, i) for j in range(-2, 3) for i in range(-2, 3) if max(abs(i), abs(j)) == 2]
_SIDES = [(0, -1), (0, 1), (-1, 0), (1, 0)]
_NEIGHBOURS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]

_SAMPLE, _ENOUGH = 32, 12  # pixels in the middle of a third of a line, which show its level; and that must be good
_RANKS = np.arange(1, 6) / 10  # of the pixels whose mean is the level: below stars, and not in steps, as a median is
_SPREAD, _MAD = 1.282, 1.4826  # from the first to the last of those ranks, in sigma; sigma in median distances
_WIDE = 9  # lines around one that it is compared with
_CLEAR = 4.0  # sigma in each third
_ALIKE_THIRDS = 2.0  # most over least of these
_MANY = 0.05  # of the lines

Region = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""


def without_sharp(
    data: PixelArray, good: BoolArray, sigma: npt.NDArray[np.float32], block_pix: int, regions: Iterable[Region]
) -> BoolArray:
    """Return ``good`` (ny, nx) without the pixels that are too sharp for a star.

    ``sigma`` is the noise of a pixel in blocks of ``block_pix`` pixels a side; ``regions`` (rows, columns) say where to
    look.
    """
    frame = _Frame(data, good, good.copy(), sigma, block_pix)
    candidates = [_stand_out(frame, region) for region in regions]
    candidate = np.concatenate([np.empty(0, np.int64), *candidates])
    if candidate.size and min(data.shape) > _REACH:
        found, excess = _tested(candidate, frame, _FIRST)
        threshold = _clear_threshold(np.sort(excess / frame.noise(found)), data.size)
        _leave_out(found[excess > threshold * frame.noise(found)], frame, threshold * _NEXT / _FIRST)
    return frame.clean


def without_lines(data: PixelArray, good: BoolArray) -> BoolArray:
    """Return ``good`` (ny, nx) without the rows and columns that stand out of those around them all along the frame.

    Hot columns may be fainter than the noise of a pixel; but all frames of a detector have them in one place, so that
    overlaps at the same side of it see the same ones, and no comparison shows them.
    """
    row, column = _odd_lines(data, good), _odd_lines(data.T, good.T)
    return good & ~row[:, None] & ~column if row.any() or column.any() else good


def _odd_lines(data: PixelArray, good: BoolArray) -> BoolArray:
    """Rows (ny,) that stand out by about the same in each third of them: stars don't. None, where many are so."""
    n, width = data.shape[1], min(data.shape[1] // 3, _SAMPLE)
    middles = (slice(first, first + width) for first in ((k * n - 3 * width) // 6 for k in (1, 3, 5)))
    heights, maybe = [], np.ones(len(data), np.bool_)
    for part in middles:
        heights.append(_heights(data[:, part], good[:, part]))
        maybe &= np.abs(heights[-1]) > _CLEAR
        if not maybe.any():  # as in most frames
            return maybe
    low, high = np.sort(np.abs(heights), axis=0)[[0, -1]]
    odd = maybe & (high < _ALIKE_THIRDS * low) & (np.abs(np.sum(heights, axis=0)) > high)
    return np.asarray(odd & (np.count_nonzero(odd) <= _MANY * len(data)))


def _heights(data: PixelArray, good: BoolArray) -> FloatArray:
    """By how many sigma the level of every row (ny,) differs from those around; 0 where that is unknown."""
    values, count = np.where(good, data, np.inf), np.count_nonzero(good, axis=1)
    values.sort(axis=1)
    heights, known = np.zeros(len(data)), np.flatnonzero(count >= _ENOUGH)
    if len(known) > _WIDE:
        at = values[known[:, None], (count[known, None] * _RANKS).astype(np.int64)]
        level = at.mean(axis=1, dtype=np.float64)
        around = sliding_window_view(np.pad(level, _WIDE // 2, mode="reflect"), _WIDE)
        away = level - np.sort(around, axis=1)[:, _WIDE // 2]  # importing scipy.ndimage would take a tenth of a second
        noise = np.median(at[:, -1] - at[:, 0]) / (_SPREAD * np.sqrt(count[known].min()))
        if sigma := float(max(_MAD * np.median(np.abs(away)), noise)):
            heights[known] = away / sigma
    return heights


def _stand_out(frame: _Frame, region: Region) -> IntArray:
    """Pixels of a region that stand out of both neighbours of their row or of their column, whatever is masked."""
    data, good = frame.data, frame.good
    (y0, y1), (x0, x1) = ((s.start, min(s.stop, n)) for s, n in zip(region, data.shape, strict=True))
    if y1 <= y0 or x1 <= x0 or min(data.shape) <= _REACH:
        return np.empty(0, np.int64)
    top, left = max(y0 - 1, 0), max(x0 - 1, 0)
    pixels = np.ascontiguousarray(data[top : y1 + 1, left : x1 + 1])
    # In a flat array the neighbours of all pixels are four slices. Those at its sides lie outside of the region, or at
    # the border of the frame. Masked pixels protect no neighbour here.
    width, flat, level = pixels.shape[1], pixels.reshape(-1), np.empty_like(pixels)
    flat_level = level.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        np.fmax(flat[:-2], flat[2:], out=flat_level[1:-1])
        level[:, 0], level[:, -1] = pixels[:, 1], pixels[:, -2]
        inner = flat_level[width:-width]
        np.fmin(inner, np.fmax(flat[: -2 * width], flat[2 * width :]), out=inner)
        for k, beside in ((0, 1), (-1, -2)):
            np.fmin(level[k], pixels[beside], out=level[k])
        np.subtract(pixels, level, out=level)
    place = np.flatnonzero(level > np.float32(_FIRST) * frame.least_noise((y0, y1), (x0, x1)))
    y, x = np.divmod(place, width)
    y += top
    x += left
    use = (y >= y0) & (y < y1) & (x >= x0) & (x < x1) & good[y, x]
    found, height = y[use] * data.shape[1] + x[use], flat_level[place[use]]
    return np.asarray(found[height > np.float32(_FIRST) * frame.noise(found)])


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """An image whose pixels are looked at one by one."""

    data: PixelArray
    good: BoolArray
    clean: BoolArray  # those that are good and no outlier; outliers are taken out as they are found
    sigma: npt.NDArray[np.float32]  # noise of a pixel, in blocks of ``block_pix`` pixels a side
    block_pix: int

    def least_noise(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.float32:
        """Least noise of the pixels of a rectangle."""
        blocks = (slice(low // self.block_pix, -(-high // self.block_pix)) for low, high in (rows, columns))
        return np.float32(self.sigma[tuple(blocks)].min())

    def noise(self, flat: IntArray) -> npt.NDArray[np.float32]:
        """Noise of pixels that are given as indices into the flat image."""
        y, x = np.divmod(flat, self.data.shape[1])
        return np.asarray(self.sigma[y // self.block_pix, x // self.block_pix])

    def at(self, flat: IntArray) -> npt.NDArray[np.float32]:
        """Values of pixels that are given as indices into the flat image; masked ones are huge."""
        return np.where(self.good.reshape(-1)[flat], self.data.reshape(-1)[flat], _MASKED).astype(np.float32)

    def are_outliers(self, flat: IntArray) -> BoolArray:
        """Whether pixels that are given as indices into the flat image are outliers."""
        return np.asarray(self.good.reshape(-1)[flat] & ~self.clean.reshape(-1)[flat])

    def around(self, flat: IntArray, steps: Sequence[tuple[int, int]]) -> IntArray:
        """Pixels (n steps, n) that lie some (rows, columns) away, mirrored at the border."""
        ny, nx = self.data.shape
        y, x = np.divmod(flat, nx)
        down, right = np.array(steps).T[:, :, None]
        return np.asarray(_mirrored(y + down, ny) * nx + _mirrored(x + right, nx))

    def neighbours(self, flat: IntArray) -> IntArray:
        """The clean pixels that touch these, without repetition."""
        near = np.sort(self.around(flat, _NEIGHBOURS), axis=None)
        near = near[np.diff(near, prepend=-1) > 0]  # quicker than `np.unique`
        return near[self.clean.reshape(-1)[near]]


def _mirrored(line: IntArray, n: int) -> IntArray:
    line = np.abs(line)
    return np.where(line >= n, 2 * (n - 1) - line, line)


def _clear_threshold(height: FloatArray, n_pixels: int) -> float:
    """The threshold, in sigma, that most of the outliers exceed by a factor of two; ``height`` (n,) are ascending.

    Outliers that are equally high, and make the noise, are single photons.
    """
    threshold = _FIRST
    while threshold < _HUGE_SIGMA:
        above, clear = (len(height) - np.searchsorted(height, t) for t in (threshold, 2 * threshold))
        if above < _FEW:
            break
        low, high = np.quantile(height[-above:], [0.25, 0.75])
        if high < _ALIKE * low and above * high**2 < _OWN_NOISE * n_pixels:
            threshold = max(2 * threshold, _PHOTONS * high)
        elif 2 * clear >= above:
            break
        else:
            threshold *= 2
    return threshold


def _leave_out(new: IntArray, frame: _Frame, threshold: float) -> None:
    """Take outliers out, and a few times those of their neighbours that are outliers then."""
    clean = frame.clean.reshape(-1)
    clean[new] = False
    for _ in range(1, _ROUNDS):
        if not new.size:
            break
        new, _ = _tested(frame.neighbours(new), frame, threshold)
        clean[new] = False


def _tested(candidates: IntArray, frame: _Frame, threshold: float) -> tuple[IntArray, FloatArray]:
    """The candidates that stand out of their neighbours, by most of their height above the sky; and by how much."""
    least = np.float32(threshold) * frame.noise(candidates)
    value, level = frame.at(candidates).astype(float), _level_beside(candidates, frame)
    alone = level == np.inf  # no neighbour is left: the sky is what it stands out of
    maybe = alone | (value - level > least)
    candidates, value, level, alone, least = (c[maybe] for c in (candidates, value, level, alone, least))
    if not candidates.size:
        return candidates, value
    sky = _sky_around(candidates, frame)
    excess = value - np.where(alone, sky, level)
    with np.errstate(invalid="ignore"):
        use = np.isfinite(sky) & (excess > least) & (excess > _SHARP * (value - sky))
    return candidates[use], excess[use]


def _level_beside(candidates: IntArray, frame: _Frame) -> FloatArray:
    """The higher neighbour of the row or that of the column, whichever is lower; outliers protect no neighbour."""
    sides = frame.around(candidates, _SIDES)
    beside = np.where(frame.are_outliers(sides), -np.inf, frame.at(sides)).reshape(2, 2, -1).max(axis=1)
    return np.asarray(np.where(beside == -np.inf, np.inf, beside).min(axis=0))


def _sky_around(candidates: IntArray, frame: _Frame) -> FloatArray:
    """Median of the clean pixels of a ring, NaN where there is none."""
    around = frame.around(candidates, _RING)
    ring = frame.at(around).astype(float)
    ring[~frame.clean.reshape(-1)[around] | (ring >= _MASKED)] = np.nan
    ring.sort(axis=0)  # NaN last
    count = np.isfinite(ring).sum(axis=0)
    return np.asarray(ring[np.maximum(count - 1, 0) // 2, np.arange(len(candidates))])
