"""Skies of images by wiimatch, at the nodes of shapes.py: python shape_wiimatch.py DEGREE OUT.npy FILES.

wiimatch compares arrays on one grid of pixels: images are resampled to it (bilinear), and bright pixels are clipped.
"""

from __future__ import annotations

import sys

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import map_coordinates
from wiimatch.containers import WMInMemoryData
from wiimatch.match import match_lsq

NODES = 12


def clipped(data: np.ndarray) -> np.ndarray:
    """Good pixels: finite, and within four standard deviations of the median in five passes."""
    good = np.isfinite(data)
    for _ in range(5):
        middle, spread = np.median(data[good]), data[good].std()
        good &= np.abs(data - middle) <= 4 * spread
    return good


def main() -> None:
    degree, out, files = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    images = [(fits.getdata(f).astype(float), WCS(fits.getheader(f))) for f in files]
    corners = [w.calc_footprint() for _, w in images]
    grid = WCS(naxis=2)
    grid.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    grid.wcs.crval = images[0][1].wcs.crval
    scale = np.sqrt(abs(np.linalg.det(images[0][1].pixel_scale_matrix)))
    grid.wcs.cdelt = [-scale, scale]
    grid.wcs.crpix = [1, 1]
    at = grid.all_world2pix(np.concatenate(corners), 0)
    low, high = np.floor(at.min(axis=0)), np.ceil(at.max(axis=0))
    grid.wcs.crpix = 1 - low + 1
    nx, ny = (high - low + 3).astype(int)
    x, y = np.meshgrid(np.arange(nx), np.arange(ny))
    sky = grid.all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0)
    arrays, masks = [], []
    for data, wcs in images:
        place = wcs.all_world2pix(sky, 0).T[::-1].reshape(2, ny, nx)
        good = clipped(data)
        arrays.append(WMInMemoryData(map_coordinates(np.where(good, data, 0), place, order=1, cval=0)))
        masks.append(WMInMemoryData(map_coordinates(good.astype(float), place, order=1, cval=0) > 0.999))
    middle = (nx / 2.0, ny / 2.0)
    scales = [1.0] * len(arrays)  # masks without them raise IndexError in wiimatch 0.3.2
    rows = match_lsq(arrays, masks, scales, degree=degree, center=middle, default_container=WMInMemoryData)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1)]
    skies = []
    for row, (data, wcs) in zip(rows, images, strict=True):
        nodes = [np.linspace(0, size - 1, NODES).round() for size in data.shape[::-1]]
        u, v = np.meshgrid(*nodes)
        gx, gy = grid.all_world2pix(wcs.all_pix2world(np.column_stack([u.ravel(), v.ravel()]), 0), 0).T
        terms = [(gx - middle[0]) ** i * (gy - middle[1]) ** j for i, j in powers]
        skies.append((np.ravel(row) @ np.array(terms)).reshape(NODES, NODES))
    np.save(out, np.array(skies))


if __name__ == "__main__":
    main()
