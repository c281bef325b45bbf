"""Sharp outliers of one image: cosmic rays, hot pixels and trails one pixel wide.

No star is narrower than the seeing, so a pixel that stands out of both neighbours of a row or of a
column by most of its height above the sky around it is not light from the sky (the idea of the
Laplacian edge detection of van Dokkum 2001, PASP 113, 1420, with second differences along rows and
columns). The test looks at one image only: what it takes for an outlier can't depend on the
difference to another image, so that difference stays unbiased.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skymatch_cli.model import BoolArray, FloatArray, IntArray

HALO = 4  # pixels around a region that the test may look at
_FIRST = 5.0  # sigma above the neighbours that a first outlier needs
_NEXT = 4.0  # the same, next to an outlier
_ROUNDS = 3
_SHARP = 0.6  # share of the height above the sky around; a star of FWHM 2 pixels has 0.5
_MASKED = np.float32(1e30)  # stands for masked pixels: protects its neighbours
_RING = [(j, i) for j in range(-2, 3) for i in range(-2, 3) if max(abs(i), abs(j)) == 2]
_NEIGHBOURS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]


def sharp_outliers(data: npt.NDArray[np.float32], good: BoolArray, sigma: npt.NDArray[np.float32]) -> BoolArray:
    """Find pixels that are too sharp for a star.

    Parameters
    ----------
    data : (ny, nx) float32
    good : (ny, nx) bool
    sigma : (ny, nx) float32, or an array that broadcasts to it
        Noise of a pixel.

    Returns
    -------
    (ny, nx) bool
        True = outlier. Masked pixels are never outliers; pixels within 2 of the border are not tested.
    """
    ny, nx = data.shape
    found = np.zeros((ny, nx), bool)
    if min(ny, nx) < 5:
        return found
    pixels = data if good.all() else np.where(good, data, _MASKED)
    rows = np.maximum(pixels[2:-2, 1:-3], pixels[2:-2, 3:-1])
    columns = np.maximum(pixels[1:-3, 2:-2], pixels[3:-1, 2:-2])
    np.minimum(rows, columns, out=rows)
    np.subtract(pixels[2:-2, 2:-2], rows, out=rows)
    inner_sigma = np.broadcast_to(sigma, data.shape)[2:-2, 2:-2]
    # flat: numpy finds the few True in one line of memory an order faster than in two dimensions
    first = np.flatnonzero((rows > _FIRST * inner_sigma).reshape(-1))
    first = (first // (nx - 4) + 2) * nx + first % (nx - 4) + 2
    pixels = np.ascontiguousarray(pixels)
    first = first[pixels.reshape(-1)[first] < _MASKED]
    if first.size:
        _grow(first, pixels, np.broadcast_to(sigma, data.shape), found)
    return found


def _grow(
    candidates: IntArray, pixels: npt.NDArray[np.float32], sigma: npt.NDArray[np.float32], found: BoolArray
) -> None:
    """Test the candidates, then their neighbours with the outliers taken out, a few rounds; fills ``found``."""
    ny, nx = pixels.shape
    flat, flags = pixels.reshape(-1), found.reshape(-1)
    threshold = _FIRST
    for _ in range(_ROUNDS):
        excess, height = _excess(candidates, flat, flags, nx)
        noise = sigma[candidates // nx, candidates % nx]
        new = candidates[(excess > threshold * noise) & (excess > _SHARP * height)]
        if not new.size:
            return
        flags[new] = True
        near = np.unique(np.concatenate([new + j * nx + i for j, i in _NEIGHBOURS]))
        y, x = near // nx, near % nx
        inside = (y >= 2) & (y < ny - 2) & (x >= 2) & (x < nx - 2)
        candidates = near[inside & ~flags[near] & (flat[near] < _MASKED)]
        threshold = _NEXT


def _excess(
    candidates: IntArray, flat: npt.NDArray[np.float32], flags: BoolArray, nx: int
) -> tuple[FloatArray, FloatArray]:
    """Height of the candidates above their neighbours, and above the sky around (median of a ring)."""
    value = flat[candidates].astype(float)
    around = np.stack([candidates + j * nx + i for j, i in _RING])
    ring = np.where(flags[around], np.nan, flat[around].astype(float))
    ring[ring >= _MASKED] = np.nan
    ring = np.sort(ring, axis=0)  # NaN last
    count = np.isfinite(ring).sum(axis=0)
    sky = ring[np.maximum(count - 1, 0) // 2, np.arange(len(candidates))]
    level = np.full(len(candidates), np.inf)
    for step in (1, nx):
        sides = np.stack([candidates - step, candidates + step])
        # An outlier that is found already protects no neighbour.
        beside = np.where(flags[sides], -np.inf, flat[sides]).max(axis=0)
        level = np.minimum(level, np.where(beside == -np.inf, np.inf, beside))
    level = np.where(level == np.inf, sky, level)
    excess = np.where(np.isfinite(sky), value - level, -np.inf)
    return excess, np.where(np.isfinite(sky), value - sky, 0.0)
