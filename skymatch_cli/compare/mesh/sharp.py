"""Sharp outliers of one image: cosmic rays, hot pixels and trails one pixel wide.

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
_NEIGHBOURS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]

Region = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""


def sharp_outliers(
    data: PixelArray, good: BoolArray, sigma: npt.NDArray[np.float32], block_pix: int, regions: Iterable[Region]
) -> IntArray:
    """Find pixels that are too sharp for a star: indices into the flat image. Masked pixels are never outliers.

    ``sigma`` is the noise of a pixel in blocks of ``block_pix`` pixels a side; ``regions`` (rows, columns) say where to
    look.
    """
    frame = _Frame(data, good, sigma, block_pix)
    candidates = [_stand_out(frame, region) for region in regions]
    candidate = np.concatenate([np.empty(0, np.int64), *candidates])
    if not candidate.size or min(data.shape) <= _REACH:
        return np.empty(0, np.int64)
    found, excess = _tested(candidate, frame, np.zeros(data.size, bool), _FIRST)
    if not found.size:
        return found
    threshold = _clear_threshold(np.sort(excess / frame.noise(found)), data.size)
    return _grown(found[excess > threshold * frame.noise(found)], frame, threshold * _NEXT / _FIRST)


def _stand_out(frame: _Frame, region: Region) -> IntArray:
    """Pixels of a region that stand out of both neighbours of their row or of their column."""
    data, good = frame.data, frame.good
    (y0, y1), (x0, x1) = ((s.start, min(s.stop, n)) for s, n in zip(region, data.shape, strict=True))
    if y1 <= y0 or x1 <= x0 or min(data.shape) <= _REACH:
        return np.empty(0, np.int64)
    pixels = _with_border(data, good, (y0, y1), (x0, x1))
    # A flat array has the neighbours of all pixels in four slices; numpy finds few True in it an order faster than in
    # two dimensions. Of pixels of the margin it has the wrong neighbours.
    flat, width = pixels.reshape(-1), pixels.shape[1]
    first, last = width + 1, flat.size - width - 1
    left, right, up, down = (flat[first + step : last + step] for step in (-1, 1, -width, width))
    level = np.maximum(left, right)
    np.minimum(level, np.maximum(up, down), out=level)
    np.subtract(flat[first:last], level, out=level)
    place = np.flatnonzero(level > np.float32(_FIRST) * frame.least_noise((y0, y1), (x0, x1)))
    y, x = np.divmod(place + first, width)
    y += y0 - 1
    x += x0 - 1
    use = (x >= x0) & (x < x1)
    use[use] = good[y[use], x[use]]
    found = y[use] * data.shape[1] + x[use]
    return np.asarray(found[level[place[use]] > np.float32(_FIRST) * frame.noise(found)])


def _with_border(
    data: PixelArray, good: BoolArray, rows: tuple[int, int], columns: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Pixels of a rectangle and those one beside it, mirrored beyond the frame; masked ones are huge."""
    source, target = zip(*(_lines(*r, n) for r, n in zip((rows, columns), data.shape, strict=True)), strict=True)
    pixels = np.empty((rows[1] - rows[0] + 2, columns[1] - columns[0] + 2), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # of masked pixels
        pixels[target] = data[source]
    np.copyto(pixels[target], _MASKED, where=~good[source])
    for lines, inside in ((pixels, target[0]), (pixels.T, target[1])):
        if inside.start:
            lines[0] = lines[2]
        if inside.stop < len(lines):
            lines[-1] = lines[-3]
    return pixels


def _lines(first: int, last: int, n: int) -> tuple[slice, slice]:
    """Lines first to last of n and those beside them: in the frame, and in an array that begins before the first."""
    low, high = max(first - 1, 0), min(last + 1, n)
    return slice(low, high), slice(low - first + 1, high - first + 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """An image whose pixels are looked at one by one."""

    data: PixelArray
    good: BoolArray
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

    def around(self, flat: IntArray, steps: Sequence[tuple[int, int]]) -> IntArray:
        """Pixels (n steps, n) that lie some (rows, columns) away, mirrored at the border."""
        ny, nx = self.data.shape
        y, x = np.divmod(flat, nx)
        down, right = np.array(steps).T[:, :, None]
        return np.asarray(_mirrored(y + down, ny) * nx + _mirrored(x + right, nx))

    def neighbours(self, flat: IntArray) -> IntArray:
        """The good pixels that touch these, without repetition."""
        near = np.unique(self.around(flat, _NEIGHBOURS))
        return near[self.good.reshape(-1)[near]]


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


def _grown(new: IntArray, frame: _Frame, threshold: float) -> IntArray:
    """Test the neighbours of outliers with these taken out, a few rounds."""
    flags = np.zeros(frame.data.size, bool)
    found = [new]
    for _ in range(1, _ROUNDS):
        if not new.size:
            break
        flags[new] = True
        near = frame.neighbours(new)
        candidates = near[~flags[near]]
        new, _ = _tested(candidates, frame, flags, threshold)
        found.append(new)
    return np.sort(np.concatenate(found))


def _tested(candidates: IntArray, frame: _Frame, flags: BoolArray, threshold: float) -> tuple[IntArray, FloatArray]:
    """The candidates that stand out of their neighbours, by most of their height above the sky; and by how much."""
    least = np.float32(threshold) * frame.noise(candidates)
    value, level = frame.at(candidates).astype(float), _level_beside(candidates, frame, flags)
    alone = level == np.inf  # no neighbour is left: the sky is what it stands out of
    maybe = alone | (value - level > least)
    candidates, value, level, alone, least = (c[maybe] for c in (candidates, value, level, alone, least))
    sky = _sky_around(candidates, frame, flags)
    excess = value - np.where(alone, sky, level)
    with np.errstate(invalid="ignore"):
        use = np.isfinite(sky) & (excess > least) & (excess > _SHARP * (value - sky))
    return candidates[use], excess[use]


def _level_beside(candidates: IntArray, frame: _Frame, flags: BoolArray) -> FloatArray:
    """The higher neighbour of the row or that of the column, whichever is lower; outliers protect no neighbour."""
    level = np.full(len(candidates), np.inf)
    for steps in (((0, -1), (0, 1)), ((-1, 0), (1, 0))):
        sides = frame.around(candidates, steps)
        beside = np.where(flags[sides], -np.inf, frame.at(sides)).max(axis=0)
        level = np.minimum(level, np.where(beside == -np.inf, np.inf, beside))
    return level


def _sky_around(candidates: IntArray, frame: _Frame, flags: BoolArray) -> FloatArray:
    """Median of the good pixels of a ring, NaN where there is none."""
    around = frame.around(candidates, _RING)
    ring = frame.at(around).astype(float)
    ring[flags[around] | (ring >= _MASKED)] = np.nan
    ring.sort(axis=0)  # NaN last
    count = np.isfinite(ring).sum(axis=0)
    return np.asarray(ring[np.maximum(count - 1, 0) // 2, np.arange(len(candidates))])
