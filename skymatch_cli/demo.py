"""Make a synthetic mosaic with known skies, to try the program on and to check it.

The scene (stars and a smooth nebula) is a function of the position on a tangent plane, so that all images
see the same one; each image adds its own sky, noise, cosmic rays and bad columns (flagged in its DQ
extension). ``truth.txt`` holds the skies in the format of ``--skylist``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_PIXEL_ARCSEC = 1.0
_GAIN, _READ_NOISE = 2.0, 3.0
_BAD_PIXEL = 4  # the DQ flag of bad columns


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """The layout of the synthetic mosaic."""

    nx: int = 3  # frames along both axes
    ny: int = 2
    size: int = 256  # pixels along a side of a frame
    overlap: float = 0.15  # fraction of a frame's side that neighbours share
    sky_range: tuple[float, float] = (100.0, 300.0)  # smallest and largest sky, in electron
    seed: int = 1  # of the random numbers: the same seed makes the same frames


@dataclass(frozen=True, slots=True)
class _Scene:
    """Stars (position in arcsec, flux) and plane waves of a nebula (wave vector per arcsec, phase, amplitude)."""

    star_xy: FloatArray
    flux: FloatArray
    wave: FloatArray
    phase: FloatArray
    amplitude: FloatArray

    def nebula(self, x: FloatArray, y: FloatArray) -> FloatArray:
        waves = zip(self.wave, self.phase, self.amplitude, strict=True)
        return sum((a * (1 + np.cos(kx * x + ky * y + p)) for (kx, ky), p, a in waves), np.zeros(x.shape))


def write_demo(directory: Path, settings: DemoSettings | None = None, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write the images and ``truth.txt``, and return the paths of the images; UsageError if a file exists already.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = write_demo(Path(folder), DemoSettings(nx=2, ny=1, size=32))
    >>> [path.name for path in paths]
    ['frame_00.fits', 'frame_01.fits']
    """
    s = settings or DemoSettings()
    paths = tuple(directory / f"frame_{k:02d}.fits" for k in range(s.nx * s.ny))
    present = [p for p in (*paths, directory / TRUTH_FILE) if p.exists()]
    if present and not overwrite:
        raise UsageError(f"{present[0]} exists already", "use --overwrite or another folder")
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(s.seed)
    scene = _make_scene(rng, s)
    truth = []
    for k, path in enumerate(paths):
        sky = float(rng.uniform(*s.sky_range))
        _frame(rng, s, scene, (k % s.nx, k // s.nx), sky).writeto(path, overwrite=True)
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


def _step_arcsec(s: DemoSettings) -> float:
    return s.size * _PIXEL_ARCSEC * (1 - s.overlap)


def _make_scene(rng: np.random.Generator, s: DemoSettings) -> _Scene:
    half = (max(s.nx, s.ny) * _step_arcsec(s) + s.size * _PIXEL_ARCSEC) * 0.75
    n_stars = int(1.5e-3 * (2 * half) ** 2)
    n_waves = 12
    length = np.exp(rng.uniform(np.log(half / 6), np.log(2 * half), n_waves))
    angle = rng.uniform(0, 2 * np.pi, n_waves)
    return _Scene(
        star_xy=rng.uniform(-half, half, (n_stars, 2)),
        flux=np.minimum(150 * (1 + rng.pareto(1.1, n_stars)), 1e6),
        wave=2 * np.pi / length[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]),
        phase=rng.uniform(0, 2 * np.pi, n_waves),
        amplitude=20 * length / (2 * half),
    )


def _tan_wcs(ra: float, dec: float, scale_arcsec: float, rotation_deg: float, crpix: float) -> Any:
    c, n, step = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg)), scale_arcsec / 3600
    return plane_wcs((ra, dec), (crpix, crpix), step * np.array([[-c, n], [n, c]]))


def _frame(rng: np.random.Generator, s: DemoSettings, scene: _Scene, place: tuple[int, int], sky: float) -> HDUList:
    """Make one exposure: scene, sky, noise, cosmic rays and bad columns."""
    from astropy.io import fits

    plane = _tan_wcs(_RA_DEG, _DEC_DEG, 1.0, 0.0, 1.0)
    centre = (np.array(place) - np.array([s.nx - 1, s.ny - 1]) / 2) * _step_arcsec(s) + rng.normal(0, 3, 2)
    ra, dec = plane.wcs_pix2world([centre], 0)[0]
    wcs = _tan_wcs(ra, dec, _PIXEL_ARCSEC, rng.uniform(-4, 4), (s.size + 1) / 2)
    py, px = np.mgrid[: s.size, : s.size].astype(float)
    on_plane = plane.wcs_world2pix(wcs.wcs_pix2world(np.column_stack([px.ravel(), py.ravel()]), 0), 0)
    image = scene.nebula(*on_plane.T).reshape(px.shape) + sky
    stars = wcs.wcs_world2pix(plane.wcs_pix2world(scene.star_xy, 0), 0)
    _add_stars(image, stars, scene.flux, sigma_pix=float(rng.uniform(1.0, 1.3)))
    image += rng.normal(0, 1, image.shape) * np.sqrt(np.maximum(image, 0) / _GAIN + _READ_NOISE**2)
    hits = rng.integers(0, s.size, (2, max(1, s.size**2 // 5000)))
    image[hits[0], hits[1]] += rng.exponential(2000, hits.shape[1])
    dq = np.zeros(image.shape, np.int16)
    bad = rng.choice(s.size, max(1, s.size // 100), replace=False)
    image[:, bad] = rng.uniform(0, 60000, (s.size, bad.size))
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
