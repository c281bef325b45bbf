"""Make a synthetic mosaic with known skies, to try the program on and to check it.

The scene (stars and a smooth nebula) is a function of the position on a tangent plane, so that all images
see the same one; each image adds its own sky, noise, cosmic rays and bad columns (flagged in its DQ
extension). ``truth.txt`` holds the skies in the format of ``--skylist``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skymatch_cli.errors import UsageError
from skymatch_cli.model import FloatArray
from skymatch_cli.output.tables import Column, Report
from skymatch_cli.sky.tangent import plane_wcs

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

TRUTH_FILE = "truth.txt"
_RA_DEG, _DEC_DEG = 83.82, -5.39  # the field's centre
_NX, _NY = 3, 2  # frames along both axes
_SIZE = 256  # pixels along a side of a frame
_PIXEL_ARCSEC = 1.0
_STEP_ARCSEC = _SIZE * _PIXEL_ARCSEC * 0.85  # from frame to frame: neighbours share the rest
_SKIES = 100.0, 300.0  # smallest and largest, in electron
_SEED = 1
_GAIN, _READ_NOISE = 2.0, 3.0
_BAD_PIXEL = 4  # the DQ flag of bad columns
# stars (positions in arcsec, flux), and plane waves that make a nebula
_Scene = tuple[FloatArray, FloatArray, Callable[[FloatArray, FloatArray], FloatArray]]


def write_demo(directory: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write the images and ``truth.txt``, and return the paths of the images; UsageError if a file exists already.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = write_demo(Path(folder))
    >>> [path.name for path in paths[:2]]
    ['frame_00.fits', 'frame_01.fits']
    """
    paths = tuple(directory / f"frame_{k:02d}.fits" for k in range(_NX * _NY))
    present = [p for p in (*paths, directory / TRUTH_FILE) if p.exists()]
    if present and not overwrite:
        raise UsageError(f"{present[0]} exists already", "use --overwrite or another folder")
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(_SEED)
    scene = _make_scene(rng)
    truth = []
    for k, path in enumerate(paths):
        sky = float(rng.uniform(*_SKIES))
        _frame(rng, scene, (k % _NX, k // _NX), sky).writeto(path, overwrite=True)
        truth.append(f"{path.name} {sky!r}\n")
    (directory / TRUTH_FILE).write_text("# the sky that each frame was made with, in its own unit\n" + "".join(truth))
    return paths


def with_truth(report: Report, truth: Sequence[float]) -> tuple[Report, float]:
    """Put the true skies, in the unit of each image, beside those that were found; also return the rms of the errors.

    The truth is shifted to the mean of the skies, since overlaps fix only differences. Images are named without folder.
    """
    images = report.images
    sky = images.column("sky")
    shifted = np.asarray(truth) - np.mean(truth) + sky.mean()
    more = (Column("truth", shifted, "True sky, shifted"), Column("sky - truth", sky - shifted, "Error of the sky"))
    at = images.names.index("sky_unit")
    table = replace(images, columns=(*images.columns[:at], *more, *images.columns[at:]))
    names = tuple(Path(str(file)).name for file in images.column("file"))
    return replace(report, images=table, labels=names), float(np.sqrt(np.mean((sky - shifted) ** 2)))


def _make_scene(rng: np.random.Generator) -> _Scene:
    half = (max(_NX, _NY) * _STEP_ARCSEC + _SIZE * _PIXEL_ARCSEC) * 0.75
    n_stars = int(1.5e-3 * (2 * half) ** 2)
    n_waves = 12
    length = np.exp(rng.uniform(np.log(half / 6), np.log(2 * half), n_waves))
    angle = rng.uniform(0, 2 * np.pi, n_waves)
    wave = 2 * np.pi / length[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    star_xy = rng.uniform(-half, half, (n_stars, 2))
    flux = np.minimum(150 * (1 + rng.pareto(1.1, n_stars)), 1e6)
    waves = list(zip(wave, rng.uniform(0, 2 * np.pi, n_waves), 20 * length / (2 * half), strict=True))

    def nebula(x: FloatArray, y: FloatArray) -> FloatArray:
        return sum((a * (1 + np.cos(kx * x + ky * y + p)) for (kx, ky), p, a in waves), np.zeros(x.shape))

    return star_xy, flux, nebula


def _tan_wcs(ra: float, dec: float, scale_arcsec: float, rotation_deg: float, crpix: float) -> Any:
    c, n, step = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg)), scale_arcsec / 3600
    return plane_wcs((ra, dec), (crpix, crpix), step * np.array([[-c, n], [n, c]]))


def _frame(rng: np.random.Generator, scene: _Scene, place: tuple[int, int], sky: float) -> HDUList:
    """Make one exposure: scene, sky, noise, cosmic rays and bad columns."""
    from astropy.io import fits

    plane = _tan_wcs(_RA_DEG, _DEC_DEG, 1.0, 0.0, 1.0)
    centre = (np.array(place) - np.array([_NX - 1, _NY - 1]) / 2) * _STEP_ARCSEC + rng.normal(0, 3, 2)
    ra, dec = plane.wcs_pix2world([centre], 0)[0]
    wcs = _tan_wcs(ra, dec, _PIXEL_ARCSEC, rng.uniform(-4, 4), (_SIZE + 1) / 2)
    py, px = np.mgrid[:_SIZE, :_SIZE].astype(float)
    on_plane = plane.wcs_world2pix(wcs.wcs_pix2world(np.column_stack([px.ravel(), py.ravel()]), 0), 0)
    star_xy, flux, nebula = scene
    image = nebula(*on_plane.T).reshape(px.shape) + sky
    stars = wcs.wcs_world2pix(plane.wcs_pix2world(star_xy, 0), 0)
    _add_stars(image, stars, flux, sigma_pix=float(rng.uniform(1.0, 1.3)))
    image += rng.normal(0, 1, image.shape) * np.sqrt(np.maximum(image, 0) / _GAIN + _READ_NOISE**2)
    hits = rng.integers(0, _SIZE, (2, max(1, _SIZE**2 // 5000)))
    image[hits[0], hits[1]] += rng.exponential(2000, hits.shape[1])
    dq = np.zeros(image.shape, np.int16)
    bad = rng.choice(_SIZE, max(1, _SIZE // 100), replace=False)
    image[:, bad] = rng.uniform(0, 60000, (_SIZE, bad.size))
    dq[:, bad] = _BAD_PIXEL
    header = wcs.to_header()
    header["BUNIT"] = "electron"
    header["EXPTIME"] = (100.0, "[s]")
    sci = fits.ImageHDU(image.astype(np.float32), header, name="SCI", ver=1)
    return fits.HDUList([fits.PrimaryHDU(), sci, fits.ImageHDU(dq, name="DQ", ver=1)])


def _add_stars(image: FloatArray, xy: FloatArray, flux: FloatArray, sigma_pix: float) -> None:
    ny, nx = image.shape
    reach = int(np.ceil(6 * sigma_pix))
    near = (xy > -reach).all(axis=1) & (xy < np.array([nx, ny]) + reach).all(axis=1)
    for (x, y), f in zip(xy[near], flux[near], strict=True):
        xs = np.arange(max(0, int(x) - reach), min(nx, int(x) + reach + 1))
        ys = np.arange(max(0, int(y) - reach), min(ny, int(y) + reach + 1))
        profile = np.exp(-0.5 * ((ys - y) / sigma_pix) ** 2)[:, None] * np.exp(-0.5 * ((xs - x) / sigma_pix) ** 2)
        image[ys[:, None], xs] += f / (2 * np.pi * sigma_pix**2) * profile
