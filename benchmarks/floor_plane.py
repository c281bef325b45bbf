"""The floor on the accuracy of skies with tilts (Cramér–Rao), for a simulated set of images.

    python benchmarks/floor_plane.py DIR

No unbiased estimator of a level and a tilt for each image, with an unknown sky on top that all images share, has
smaller errors than these, in the gauge in which mean level (at the images' centres) and mean tilt are zero. The
noise is that of the simulator: ``value / 2 + 9`` in each pixel.

The unknown sky is free in cells of 8 pixels. What a block of 4 x 4 pixels knows counts at its own place.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.sparse import coo_array

BLOCK, CELL = 4, 8  # pixels
GAIN, READ_VARIANCE = 2.0, 9.0


def science(path: Path) -> tuple[np.ndarray, WCS, np.ndarray]:
    """Pixels, WCS and which pixels are good."""
    with fits.open(path) as hdus:
        hdu = hdus["SCI"] if "SCI" in hdus else hdus[0]
        data = hdu.data.astype(float)
        good = np.isfinite(data)
        if "DQ" in hdus:
            good &= hdus["DQ"].data == 0
        return data, WCS(hdu.header), good


def common_plane(path: Path) -> WCS:
    """Pixels of the first image's size on a tangent plane about its centre."""
    _, first, _ = science(path)
    scale = np.sqrt(abs(np.linalg.det(first.pixel_scale_matrix)))
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval, plane.wcs.crpix, plane.wcs.cdelt = first.wcs.crval, [1, 1], [-scale, scale]
    return plane


def geometry(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 2) of the images on the common plane, and there the derivatives (N, 2, 2) by x and y."""
    plane = common_plane(files[0])
    places, slopes = [], []
    for path in files:
        data, wcs, _ = science(path)
        ny, nx = data.shape
        at = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) + np.array([(nx - 1) / 2, (ny - 1) / 2])
        found = plane.all_world2pix(wcs.all_pix2world(at, 0), 0)
        places.append(found[0])
        slopes.append((found[[1, 3]] - found[[2, 4]]).T / 2)
    return np.array(places), np.array(slopes)


def gauge(places: np.ndarray) -> np.ndarray:
    """The projection (3 N, 3 N) of planes to those with mean level and mean tilt zero."""
    n = len(places)
    common = np.zeros((n, 3, 3))  # the plane that nobody can tell, as levels and tilts of the images
    common[:] = np.eye(3)
    common[:, 0, 1:] = places
    common = common.reshape(3 * n, 3)
    mean = np.tile(np.eye(3), n) / n
    return np.eye(3 * n) - common @ np.linalg.solve(mean @ common, mean)


def information(files: list[Path]) -> np.ndarray:
    """Fisher information (3 N, 3 N) about levels at the centres and tilts (per pixel of the common plane)."""
    plane = common_plane(files[0])
    places, _ = geometry(files)
    rows, columns, values, cells, weights = [], [], [], [], []
    for i, path in enumerate(files):
        data, wcs, good = science(path)
        ny, nx = (n // BLOCK for n in data.shape)
        blocks = np.where(good, data, np.nan)[: ny * BLOCK, : nx * BLOCK]
        blocks = blocks.reshape(ny, BLOCK, nx, BLOCK).swapaxes(1, 2).reshape(ny * nx, -1)
        count = np.isfinite(blocks).sum(axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # blocks without a good pixel
            value = np.nanmedian(blocks, axis=1)
        x, y = np.meshgrid(*((np.arange(n) + 0.5) * BLOCK - 0.5 for n in (nx, ny)))
        at = plane.all_world2pix(wcs.all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0), 0)
        seen = count > 0
        weight = count[seen] / (np.maximum(value[seen], 1.0) / GAIN + READ_VARIANCE)
        basis = np.column_stack([np.ones(seen.sum()), at[seen] - places[i]])
        cell = np.floor(at[seen] / CELL).astype(int)
        cells.append((cell[:, 0] + 2**20) * 2**21 + cell[:, 1] + 2**20)
        weights.append(weight)
        values.append(basis)
        columns.append(np.full(len(weight), i))
    _, rows = np.unique(np.concatenate(cells), return_inverse=True)
    weight, image, basis = np.concatenate(weights), np.concatenate(columns), np.concatenate(values)
    n, n_cells = len(files), rows.max() + 1
    entries = (weight[:, None] * basis).ravel()
    where = (np.repeat(rows, 3), (3 * image[:, None] + np.arange(3)).ravel())
    by_cell = coo_array((entries, where), shape=(n_cells, 3 * n)).tocsr()
    total = np.bincount(rows, weight)
    own = np.zeros((3 * n, 3 * n))
    for i in range(n):
        mine = image == i
        own[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = (basis[mine] * weight[mine, None]).T @ basis[mine]
    return own - (by_cell.T @ (by_cell / total[:, None])).toarray()


def floors(files: list[Path]) -> tuple[float, float, float]:
    """Rms over the images: level, tilt (per pixel and axis), and level if all tilts were known."""
    places, _ = geometry(files)
    fisher = information(files)
    project = gauge(places)
    covariance = project @ np.linalg.pinv(fisher, rcond=1e-12, hermitian=True) @ project.T
    variance = np.diag(covariance).reshape(-1, 3)
    constant = np.diag(np.linalg.pinv(fisher[::3, ::3], rcond=1e-10, hermitian=True))
    return tuple(float(np.sqrt(v.mean())) for v in (variance[:, 0], variance[:, 1:], constant))


def main() -> None:
    level, tilt, constant = floors(sorted(Path(sys.argv[1]).glob("*.fits")))
    print(f"level {level:.5f}   tilt {tilt:.3e} per pixel   level without tilts {constant:.5f}")


if __name__ == "__main__":
    main()
