"""Invert a WCS by Newton's method, where the library's own inverse is missing or not accurate enough."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import CelestialWcs, FloatArray

_STEP_PIX = 0.5  # pixels, for derivatives; large compared with the rounding of single-precision projections (CSC)
_CONVERGED_PIX = 1e-7
_ITERATIONS = 30


def refine_pixels(
    wcs: CelestialWcs, vectors: FloatArray, x: FloatArray, y: FloatArray, box: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Improve first guesses x, y of the pixels of ICRS unit vectors (n, 3), within ``box`` (n, 4): x0, y0, x1, y1.

    Return where Newton's method ended; the caller checks that these are solutions.
    """
    x, y = x.copy(), y.copy()
    safe_x, safe_y = x.copy(), y.copy()
    todo = np.arange(len(x))
    for _ in range(_ITERATIONS):
        if not len(todo):
            break
        dx, dy = _newton_step(wcs, vectors[todo], x[todo], y[todo])
        off_sky = np.isnan(dx)
        back, on = todo[off_sky], todo[~off_sky]
        x[back], y[back] = 0.5 * (x[back] + safe_x[back]), 0.5 * (y[back] + safe_y[back])
        safe_x[on], safe_y[on] = x[on], y[on]
        x[on] += dx[~off_sky]
        y[on] += dy[~off_sky]
        if box is not None:
            x[todo] = np.clip(x[todo], box[todo, 0], box[todo, 2])
            y[todo] = np.clip(y[todo], box[todo, 1], box[todo, 3])
        todo = todo[off_sky | (np.hypot(x[todo] - safe_x[todo], y[todo] - safe_y[todo]) > _CONVERGED_PIX)]
    return x, y


def _newton_step(wcs: CelestialWcs, target: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the step (dx, dy) in pixels that solves the linearised problem; NaN off the sky."""
    ny, nx = wcs.shape
    # Differences are taken towards the middle of the image, which is on the sky.
    hx, hy = np.where(x > 0.5 * nx, -_STEP_PIX, _STEP_PIX), np.where(y > 0.5 * ny, -_STEP_PIX, _STEP_PIX)
    n = len(x)
    sky = wcs.to_sky(np.concatenate([x, x + hx, x]), np.concatenate([y, y, y + hy]))
    here, along_x, along_y = sky[:n], sky[n : 2 * n], sky[2 * n :]
    u, v, r = (along_x - here) / hx[:, None], (along_y - here) / hy[:, None], target - here
    uu, vv, uv = (u * u).sum(axis=1), (v * v).sum(axis=1), (u * v).sum(axis=1)
    ur, vr = (u * r).sum(axis=1), (v * r).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        det = uu * vv - uv * uv
        dx, dy = (vv * ur - uv * vr) / det, (uu * vr - uv * ur) / det
        # A step longer than the image would lead the search astray.
        shrink = np.minimum(1.0, 0.5 * max(nx, ny) / np.maximum(np.hypot(dx, dy), 1e-30))
    # Where a line of pixels is one point (a pole) there is no derivative: keep the first guess.
    stuck = np.isfinite(here).all(axis=1) & ~np.isfinite(dx * dy * shrink)
    return np.where(stuck, 0.0, dx * shrink), np.where(stuck, 0.0, dy * shrink)
