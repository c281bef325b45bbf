"""The solid angle of pixels, by the WCS of their image."""

from __future__ import annotations

import numpy as np

from skymatch_cli.model import CelestialWcs
from skymatch_cli.sky.sphere import ring_sr

_SR_TO_ARCSEC2 = (180.0 * 3600.0 / np.pi) ** 2


def pixel_area_arcsec2(wcs: CelestialWcs) -> float:
    """Return the mean solid angle of a pixel in the middle tenth of the image, in arcsec2; NaN off the sky.

    Measured on the sky, so it is right far from the reference point of the projection too.
    """
    ny, nx = wcs.shape
    half_x, half_y = max(0.05 * nx, 0.5), max(0.05 * ny, 0.5)
    x, y = 0.5 * (nx - 1), 0.5 * (ny - 1)
    corners = wcs.to_sky(
        np.array([x - half_x, x + half_x, x + half_x, x - half_x]),
        np.array([y - half_y, y - half_y, y + half_y, y + half_y]),
    )
    return float(ring_sr(corners) * _SR_TO_ARCSEC2 / (4.0 * half_x * half_y))


def pixel_area_ratio(wcs: CelestialWcs) -> float:
    """Return the largest solid angle of a pixel over the smallest, from a grid of 3 x 3 pixels; 1 off the sky."""
    ny, nx = wcs.shape
    y, x = (grid.ravel() for grid in np.meshgrid(np.linspace(0, ny - 1, 3), np.linspace(0, nx - 1, 3), indexing="ij"))
    corner, right, upper = wcs.to_sky(
        np.concatenate([x - 0.5, x + 0.5, x - 0.5]), np.concatenate([y - 0.5, y - 0.5, y + 0.5])
    ).reshape(3, -1, 3)
    area = np.linalg.norm(np.cross(right - corner, upper - corner), axis=1)
    area = area[area > 0]
    return float(area.max() / area.min()) if len(area) else 1.0
